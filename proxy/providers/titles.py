"""A model's name as a person would write it."""

import re

_SPELLED = {
    "4b": "4B",
    "9b": "9B",
    "chatgpt": "ChatGPT",
    "flux": "FLUX",
    "gpt": "GPT",
    "pro11": "Pro 1.1",
    "pro11ultra": "Pro 1.1 Ultra",
    "sd": "SD",
    "sd15": "SD 1.5",
    "sdxl": "SDXL",
    "stablediffusion": "Stable Diffusion",
    "xl": "XL",
}
_BETWEEN = re.compile(r"[-_ ]+|\.(?!\d)|(?<!\d)\.")
_VERSION = re.compile(r"v\d")


def title(name: str) -> str:
    """Return ``name`` as words: ``FLUX 2 Klein 4B`` for ``flux-2.klein.4b``."""
    numbered = re.sub(r"(?<=\d)-(?=\d)", ".", name).replace("dall-e", "DALL·E")
    return " ".join(_word(word) for word in _BETWEEN.split(numbered) if word)


def _word(word: str) -> str:
    if word in _SPELLED:
        return _SPELLED[word]
    return word if _VERSION.match(word) else word[0].upper() + word[1:]
