"""OpenAI's Responses API as far as its image_generation tool goes.

``resource`` answers; ``asked`` is what comes in, ``pictures`` what it is about, ``output`` what goes out, ``kept`` what
can be asked for again. https://platform.openai.com/docs/api-reference/responses
"""
