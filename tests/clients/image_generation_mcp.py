"""image-generation-mcp's SD Web UI provider. Run as ``python -m tests.clients.image_generation_mcp OPEN KEYED FOLDER``.

It sends no key, so the open demo alone is asked.
"""

import asyncio
import importlib
import io
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

from PIL import Image

from tests.clients.checks import Client, picture

V1 = "prodia-v1/dreamshaper_8.safetensors [9d40847d]"


def made_of(result: Any) -> Image.Image:
    """Return the picture of a result."""
    image = Image.open(io.BytesIO(result.image_data))
    image.load()
    return image


async def run() -> None:
    """Run the checks through the service that its MCP tools call."""
    name = "image-generation-mcp"
    us = Client(name, metadata.version(name), *sys.argv[1:3])
    domain: Any = importlib.import_module("image_generation_mcp.domain")
    types: Any = importlib.import_module("image_generation_mcp.providers.types")
    provider: Any = importlib.import_module("image_generation_mcp.providers.sd_webui")
    service = domain.ImageService(scratch_dir=Path(sys.argv[3]), default_provider="sd_webui", transform_cache_size=1)
    service.register_provider("sd_webui", provider.SdWebuiImageProvider(host=us.open))
    with us.check("capabilities: sd-models, options"):
        found = await service.discover_all_capabilities()
        offered = (found if isinstance(found, dict) else service.capabilities)["sd_webui"]
        assert not offered.degraded
        assert {"dall-e-3", V1} <= {model.model_id for model in offered.models}
    with us.check("txt2img with its presets, progress"):
        told: list[float] = []
        _, made = await service.generate(
            "a slow tide [seconds:1]",
            model="imagelabs/sdxl-turbo",
            negative_prompt="fog",
            aspect_ratio="16:9",
            progress_callback=lambda fraction, _message: told.append(fraction),
        )
        width, height = made_of(made).size
        assert abs(width / height - 16 / 9) < 0.1
        assert isinstance(made.provider_metadata["seed"], int)
        assert told
        assert all(0 <= fraction <= 1 for fraction in told)
    with us.check("img2img with denoising_strength"):
        given = types.InputImage(picture())
        for more in ({}, {"strength": 0.3}):
            _, made = await service.generate("a red hat", model=V1, reference_images=[given], **more)
            assert made_of(made).format == "PNG"
            assert made.provider_metadata["edited"] is True
    with us.check("an unknown checkpoint is an error"):
        failed = asyncio.create_task(service.generate("a hat", model="nonesuch"))
        await asyncio.wait([failed])
        assert isinstance(failed.exception(), types.ImageProviderError)
        assert "404" in str(failed.exception())
    await service.aclose()


if __name__ == "__main__":
    asyncio.run(run())
