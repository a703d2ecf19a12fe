"""LangChain's, LlamaIndex's and LiteLLM's clients. Run as ``python -m tests.clients.frameworks OPEN KEYED FOLDER``.

Each is imported inside its check, so that one that cannot be imported fails alone.
"""

import asyncio
import functools
import importlib
import io
import os
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

from tests.clients.checks import KEY, Client, decoded, fetched, picture, raised

OPEN, KEYED = sys.argv[1:3]
os.environ.update(OPENAI_API_KEY=KEY, OPENAI_BASE_URL=f"{KEYED}/v1", LITELLM_LOCAL_MODEL_COST_MAP="True")


def langchain() -> None:
    """DallEAPIWrapper joins the addresses and reads nothing else."""
    us = Client("langchain-community", metadata.version("langchain-community"), OPEN, KEYED)
    with us.check("DallEAPIWrapper: run, n=2"):
        module: Any = importlib.import_module("langchain_community.utilities.dalle_image_generator")
        assert fetched(module.DallEAPIWrapper(model="dall-e-3").run("a lighthouse")).format == "PNG"
        wrapper = module.DallEAPIWrapper(model="dall-e-2", n=2, size="512x512", base_url=f"{KEYED}/v1", api_key=KEY)
        addresses = wrapper.run("two boats").split("\n")
        assert [fetched(address).size for address in addresses if address] == [(512, 512)] * 2


def llama_index() -> None:
    """The tool downloads what it made into a folder."""
    name = "llama-index-tools-openai-image-generation"
    us = Client(name, metadata.version(name), OPEN, KEYED)
    with us.check("OpenAIImageGenerationToolSpec: url, download"):
        module: Any = importlib.import_module("llama_index.tools.openai.image_generation.base")
        folder = Path(sys.argv[3])
        tool = module.OpenAIImageGenerationToolSpec(api_key=KEY, cache_dir=str(folder))
        address = tool.image_generation("a lighthouse", model="dall-e-3", size="1024x1792", style="natural")
        assert fetched(address).format == "PNG"
        # The release returns a tuple of one path.
        (made,) = tool.image_generation("a lighthouse", model="dall-e-2", size="512x512", download=True)
        assert Path(made).read_bytes().startswith(b"\x89PNG")


def litellm() -> None:
    """The library as a client."""
    us = Client("litellm", metadata.version("litellm"), OPEN, KEYED)
    with us.check("image_generation: url, b64_json, async"):
        lite: Any = importlib.import_module("litellm")
        server = {"api_base": f"{KEYED}/v1", "api_key": KEY}
        made = lite.image_generation(prompt="a lighthouse", model="openai/dall-e-3", size="1024x1024", **server)
        assert fetched(made.data[0].url).size == (1024, 1024)
        assert isinstance(made.created, int)
        made = lite.image_generation(prompt="two boats", model="openai/gpt-image-1", n=2, **server)
        assert [decoded(image.b64_json).format for image in made.data] == ["PNG", "PNG"]
        made = asyncio.run(lite.aimage_generation(prompt="a lighthouse", model="openai/gpt-image-1", **server))
        assert decoded(made.data[0].b64_json).format == "PNG"
    with us.check("image_edit"):
        file = io.BytesIO(picture())
        file.name = "picture.png"
        made = lite.image_edit(image=file, prompt="a red hat", model="openai/gpt-image-1", **server)
        assert decoded(made.data[0].b64_json).format == "PNG"
    with us.check("errors: their classes"):
        for values, kinds, code in (
            ({"model": "openai/nonesuch"}, (lite.NotFoundError,), "model_not_found"),
            ({"model": "openai/gpt-image-1", "size": "1x1"}, (lite.BadRequestError,), "invalid_value"),
            # It tells a wrong key by words of OpenAI's message, and else by the type, which a bad request shares.
            (
                {"model": "openai/gpt-image-1", "api_key": "wrong"},
                (lite.AuthenticationError, lite.BadRequestError),
                "invalid_api_key",
            ),
        ):
            call = functools.partial(lite.image_generation, **{"prompt": "a lighthouse", **server, **values})
            assert code in str(raised(kinds, call))


if __name__ == "__main__":
    langchain()
    llama_index()
    litellm()
