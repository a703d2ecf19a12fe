"""Open WebUI's router for pictures. Run as ``python -m tests.clients.open_webui OPEN KEYED FOLDER``.

Its source runs as it was published, in a FastAPI application. What it imports of the rest of Open WebUI, which takes
gigabytes to install, is replaced here: the settings, the person signed in, the store of files.
"""

import asyncio
import base64
import importlib.util
import io
import sys
import types
import uuid
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import aiohttp
import httpx  # type: ignore[import-not-found]  # it and the next are in this client's environment
from fastapi import FastAPI  # type: ignore[import-not-found]
from PIL import Image

from tests.clients.checks import KEY, Client, picture

LABS = "imagelabs/sdxl-turbo"
_OPEN, _KEYED, _FOLDER = sys.argv[1:4]


class Settings:
    """Open WebUI's stored settings, in memory, by its own keys."""

    values: dict[str, Any] = {}  # noqa: RUF012 (as one object for all, which its callers expect)

    @classmethod
    async def get_many(cls, *names: str) -> dict[str, Any]:
        """Return these settings, empty where nothing is set."""
        return {name: cls.values.get(name, "") for name in names}

    @classmethod
    async def upsert(cls, changed: dict[str, Any]) -> None:
        """Change settings."""
        cls.values.update(changed)


class Messages:
    """Open WebUI's texts of errors."""

    ACCESS_PROHIBITED = "access prohibited"

    @staticmethod
    def DEFAULT(error: object = "", context: str = "") -> str:  # noqa: N802 (its name there)
        """Return an error's text."""
        return f"{context}{error}"


class Surroundings:
    """What the router imports; ``uploaded`` holds the pictures that it stored."""

    def __init__(self) -> None:
        self.uploaded: list[bytes] = []
        self.session: aiohttp.ClientSession | None = None

    async def get_session(self) -> aiohttp.ClientSession:
        """Return the session for all calls."""
        self.session = self.session or aiohttp.ClientSession()
        return self.session

    async def upload(self, _request: Any, *, file: Any, **_more: Any) -> SimpleNamespace:
        """Store a picture."""
        self.uploaded.append(file.file.read())
        return SimpleNamespace(id=str(uuid.uuid4()), meta=None, filename=file.filename)

    def install(self) -> None:
        """Put everything where the router imports it from."""

        async def nothing(*_arguments: Any, **_more: Any) -> None:
            pass

        def person() -> SimpleNamespace:
            return SimpleNamespace(id="1", role="admin", name="Anna", email="anna@example.org")

        forms = ("ComfyUICreateImageForm", "ComfyUIEditImageForm", "ComfyUIWorkflow")
        comfy = (*forms, "comfyui_create_image", "comfyui_edit_image", "comfyui_upload_image")
        modules: dict[str, dict[str, Any]] = {
            "config": {
                "CACHE_DIR": Path(_FOLDER),
                "ENABLE_OPENAI_IMAGE_EDIT_NORMALIZATION": False,
                # Its defaults.
                "IMAGE_AUTO_SIZE_MODELS_REGEX_PATTERN": "^gpt-image",
                "IMAGE_URL_RESPONSE_MODELS_REGEX_PATTERN": "^gpt-image",
            },
            "constants": {"ERROR_MESSAGES": Messages},
            "env": {
                "AIOHTTP_CLIENT_ALLOW_REDIRECTS": False,
                "AIOHTTP_CLIENT_SESSION_SSL": True,
                "ENABLE_FORWARD_USER_INFO_HEADERS": False,
            },
            "events": {"EVENTS": SimpleNamespace(IMAGE_GENERATED=1, IMAGE_EDITED=2), "publish_event": nothing},
            "internal.db": {"get_async_session": nothing},
            "models.chats": {"Chats": SimpleNamespace()},
            "models.config": {"Config": Settings},
            "retrieval.web.utils": {"get_ssrf_safe_session": nothing, "validate_url": nothing},
            "routers.files": {"get_file_content_by_id": nothing, "upload_file_handler": self.upload},
            "utils.access_control": {"has_permission": nothing},
            "utils.auth": {"get_admin_user": person, "get_verified_user": person},
            "utils.headers": {"include_user_info_headers": nothing},
            "utils.images.comfyui": dict.fromkeys(comfy, SimpleNamespace),
            "utils.json_codec": {"JSONCodec": SimpleNamespace()},
            "utils.session_pool": {"get_session": self.get_session},
        }
        for name, members in modules.items():
            parts = f"open_webui.{name}".split(".")
            for depth in range(1, len(parts) + 1):
                sys.modules.setdefault(".".join(parts[:depth]), types.ModuleType(".".join(parts[:depth])))
            vars(sys.modules[f"open_webui.{name}"]).update(members)


class WebUI:
    """The router in an application, and what a browser asks of it."""

    def __init__(self, origin: str, auth: str | None) -> None:
        self.around = Surroundings()
        self.around.install()
        source = metadata.distribution("open-webui").locate_file("open_webui/routers/images.py")
        spec = importlib.util.spec_from_file_location("open_webui.routers.images", str(source))
        assert spec is not None
        assert spec.loader is not None
        self.images: Any = importlib.util.module_from_spec(spec)
        sys.modules[spec.name] = self.images  # where FastAPI looks for the classes that its signatures name
        spec.loader.exec_module(self.images)
        app = FastAPI()
        app.include_router(self.images.router)
        app.add_api_route("/files/{id}/content", lambda id: id, name="get_file_content_by_id")  # noqa: A006
        self.http = httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://webui", timeout=60)
        Settings.values = {
            "image_generation.enable": True,
            "image_generation.engine": "automatic1111",
            "image_generation.automatic1111.base_url": origin,
            "image_generation.automatic1111.api_auth": auth,
            "image_generation.size": "512x512",
            "image_generation.steps": 4,
            "images.edit.enable": True,
            "images.edit.engine": "openai",
            "images.edit.model": "gpt-image-1",
            "images.edit.openai.api_base_url": f"{origin}/v1",
            "images.edit.openai.api_key": KEY,
        }

    async def post(self, path: str, **values: Any) -> Any:
        """Post JSON; the answer must be 200."""
        answer = await self.http.post(path, json=values)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def stored(self) -> Image.Image:
        """Return the picture that was stored last."""
        image = Image.open(io.BytesIO(self.around.uploaded[-1]))
        image.load()
        return image

    async def close(self) -> None:
        """Close what was opened."""
        await self.http.aclose()
        if self.around.session:
            await self.around.session.close()


async def run(us: Client, origin: str, auth: str | None, kind: str) -> None:
    """Run the checks against one demo."""
    webui = WebUI(origin, auth)
    with us.check(f"{kind}: verify, models, one chosen"):
        assert await webui.post("/verify", engine="automatic1111", url=origin, key=auth) is not None
        models = (await webui.http.get("/models")).json()
        assert {"dall-e-3", LABS} <= {model["id"] for model in models}
        assert await webui.images.set_image_model(None, LABS) == LABS
        assert await webui.images.get_image_model(None) == LABS
    with us.check(f"{kind}: generate, by the chosen model and by another, n=2"):
        (made,) = await webui.post("/generations", prompt="a lighthouse", negative_prompt="fog")
        assert made["content_type"] is None
        assert webui.stored().size == (512, 512)
        assert len(await webui.post("/generations", prompt="two boats", model="dall-e-3", n=2, size="768x512")) == 2
        assert webui.stored().size == (768, 512)
        assert await webui.images.get_image_model(None) == "dall-e-3"
    with us.check(f"{kind}: edit, by the engine openai: automatic1111 has none there"):
        url = f"data:image/png;base64,{base64.b64encode(picture()).decode()}"
        assert await webui.post("/edit", image=url, prompt="a red hat")
        assert webui.stored().format == "PNG"
    await webui.close()


async def main() -> None:
    """Run the checks with and without a key."""
    us = Client("Open WebUI's automatic1111 engine", metadata.version("open-webui"), _OPEN, _KEYED)
    await run(us, _OPEN, None, "without a key")
    await run(us, _KEYED, f"anyone:{KEY}", "with a key")


if __name__ == "__main__":
    asyncio.run(main())
