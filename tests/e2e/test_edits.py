"""Edits and variations: what callers bring is told by its bytes, held to limits, and brought to a route that can."""

import asyncio
import gc
import struct
import tempfile
import zlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, ImageDraw, ImageStat

from tests.e2e.parts import EDITS, Field, data_url, decoded, picture, post_form
from tests.faults.wire import eventually
from tests.service import Answer, Service, running

pytestmark = pytest.mark.anyio

INPAINTERS = ["prodia/inference.sdxl.inpainting.v1", "prodia-v1/sd_xl_base_1.0.safetensors [be9edd61]"]
CAN = "gpt-image-1"
CANNOT = "prodia/inference.flux-fast.schnell.txt2img.v2"
VARIATIONS = "/v1/images/variations"
CHECKED: list[Field] = [("prompt", "a red hat"), ("model", CAN), ("response_format", "b64_json")]


@pytest.fixture(scope="module")
async def service() -> AsyncIterator[Service]:
    async with running(speed=400) as service:
        yield service


@pytest.fixture(scope="module")
async def narrow() -> AsyncIterator[Service]:
    server = {"max_upload": 20_000, "max_body": 4096}
    async with running(speed=400, server=server, timeouts={"result": 1}) as service:
        yield service


def saved(image: Image.Image) -> bytes:
    with tempfile.SpooledTemporaryFile() as file:
        image.save(file, format="PNG")
        file.seek(0)
        return file.read()


def hole(mode: str) -> bytes:
    """Return a mask whose left half is to be altered: transparent, or white."""
    size = (512, 512)
    left = (0, 0, 255, 511)
    if mode == "transparent":
        mask = Image.new("RGBA", size, (0, 0, 0, 255))
        ImageDraw.Draw(mask).rectangle(left, fill=(0, 0, 0, 0))
    else:
        mask = Image.new(mode, size, "black")
        ImageDraw.Draw(mask).rectangle(left, fill="white")
    return saved(mask)


def bomb(width: int, height: int) -> bytes:
    """Return the beginning of a PNG that claims to be huge."""
    head = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + head + struct.pack(">I", zlib.crc32(head)) + bytes(64)


def refused(answer: Answer, status: int, param: str | None, code: str | None = None) -> str:
    """Return the message of a refusal."""
    assert (answer.status, answer.json["error"]["param"]) == (status, param), answer.body[:300]
    assert code in (None, answer.code)
    message: str = answer.json["error"]["message"]
    return message


@pytest.mark.parametrize("model", INPAINTERS)
@pytest.mark.parametrize("mode", ["transparent", "L", "RGB", "RGBA"])
async def test_a_mask_says_what_may_change(service: Service, model: str, mode: str) -> None:
    fields: list[Field] = [("prompt", "a garden"), ("model", model), ("response_format", "b64_json")]
    answer = await post_form(service, [*fields, ("image", picture(colour="#3060c0")), ("mask", hole(mode))])
    assert answer.status == 200, answer.body[:300]
    made = decoded(answer.json["data"][0]["b64_json"]).convert("RGB")
    width, height = made.size
    kept = ImageStat.Stat(made.crop((width * 3 // 4, height // 4, width - 4, height // 2)))
    assert all(abs(mean - want) < 2 for mean, want in zip(kept.mean, (0x30, 0x60, 0xC0), strict=True))
    assert sum(kept.var) < 2
    altered = ImageStat.Stat(made.crop((4, 4, width // 4, height // 2)))
    assert sum(altered.var) > 10


async def test_a_mask_that_does_not_fit(service: Service) -> None:
    image: Field = ("image", picture())
    assert "size" in refused(await post_form(service, [*CHECKED, image, ("mask", picture(64, 64))]), 400, "mask")
    for broken in (b"nothing", picture()[:100]):
        refused(await post_form(service, [*CHECKED, image, ("mask", broken)]), 400, "mask", "invalid_image_file")


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
async def test_the_bytes_tell_what_it_is(service: Service, kind: str) -> None:
    fields: list[Field] = [*CHECKED, ("image", picture(kind=kind))]
    for declared in ("application/octet-stream", "image/gif", "text/html"):
        answer = await post_form(service, fields, content_type=declared)
        assert decoded(answer.json["data"][0]["b64_json"]).format == "PNG"


async def test_a_jpeg_with_a_long_head(service: Service) -> None:
    jpeg = picture(kind="JPEG")
    segment = b"\xff\xe2" + struct.pack(">H", 65_000) + bytes(64_998)
    answer = await post_form(service, [*CHECKED, ("image", jpeg[:2] + segment * 5 + jpeg[2:])])
    assert answer.status == 200, answer.body[:300]


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"GIF89a" + bytes(100),
        b"<html></html>",
        b"\x89PNG\r\n\x1a\n",
        picture()[:20],
        bomb(30_000, 30_000),
        bomb(0, 5),
    ],
)
async def test_what_is_no_picture(service: Service, data: bytes) -> None:
    refused(await post_form(service, [*CHECKED, ("image", data)]), 400, "image", "invalid_image_file")
    given = {"prompt": "x", "model": CAN, "images": [{"image_url": data_url(data)}]}
    refused(await service.post(EDITS, given), 400, "images", "invalid_image_file")


async def test_how_many_and_under_which_names(service: Service) -> None:
    small = picture(64, 64)
    many: list[Field] = [("image[]", small) for _ in range(17)]
    assert "16" in refused(await post_form(service, [*CHECKED, *many]), 400, "image")
    assert "16" in refused(await post_form(service, [*CHECKED, *many, ("mask", small)]), 400, "image")
    urls = [{"image_url": data_url(small)}] * 17
    refused(await service.post(EDITS, {"prompt": "x", "model": CAN, "images": urls}), 400, "images")
    assert "'image'" in refused(await post_form(service, [*CHECKED, ("images", small)]), 400, "images")
    refused(await post_form(service, CHECKED), 400, "image", "missing_required_parameter")
    refused(await post_form(service, [("model", CAN), ("image", small)]), 400, "prompt", "missing_required_parameter")
    assert (await post_form(service, [*CHECKED, *many[:8]])).status == 200
    assert "at most 8" in refused(await post_form(service, [*CHECKED, *many[:9]]), 400, "image")


async def test_limits_of_bytes(narrow: Service) -> None:
    big = picture() + bytes(20_000)
    refused(await post_form(narrow, [*CHECKED, ("image", big)]), 413, "image", "request_too_large")
    refused(await post_form(narrow, [*CHECKED, ("image", picture()), ("mask", big)]), 413, "mask", "request_too_large")
    refused(await post_form(narrow, [("prompt", "x" * 140_000), ("image", picture())]), 413, "prompt")
    given = [{"image_url": data_url(big)}]
    refused(await narrow.post(EDITS, {"prompt": "x", "model": CAN, "images": given}), 413, "images")
    refused(await narrow.post(EDITS, {"prompt": "x", "model": CAN, "images": given * 4}), 413, None)
    fields = "".join(f'--b\r\nContent-Disposition: form-data; name="f{n}"\r\n\r\n1\r\n' for n in range(80))
    async with narrow.http.post(
        narrow.url + EDITS, data=fields + "--b--\r\n", headers={"content-type": "multipart/form-data; boundary=b"}
    ) as response:
        refused(await Answer.read(response), 400, "image")


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        (b"--b\r\n", "multipart/form-data; boundary=b"),
        (b"--b\r\nContent-Disposition: form-data; name=image\r\n\r\nxx", "multipart/form-data; boundary=b"),
        (b"nonsense", "multipart/form-data; boundary=b"),
        (b"--b--\r\n", "multipart/form-data"),
        (b"--b\r\n" + b"X: y\r\n" * 400 + b"\r\n\r\n--b--\r\n", "multipart/form-data; boundary=b"),
    ],
)
async def test_broken_forms(service: Service, body: bytes, content_type: str) -> None:
    headers = {"content-type": content_type}
    async with service.http.post(service.url + EDITS, data=body, headers=headers) as response:
        answer = await Answer.read(response)
    assert (answer.status, answer.code) == (400, "invalid_multipart")


async def test_the_json_form(service: Service) -> None:
    values: dict[str, Any] = {"prompt": "a red hat", "model": CAN, "images": [{"image_url": data_url(picture())}]}
    decoded((await service.post(EDITS, values)).json["data"][0]["b64_json"])
    masked = await service.post(EDITS, {**values, "mask": {"image_url": data_url(hole("transparent"))}})
    assert ".inpainting." in masked.headers["x-images-model"]
    for name in ("image", "image[]"):
        message = refused(await service.post(EDITS, {"prompt": "x", "model": CAN, name: "…"}), 400, name)
        assert "'images'" in message
    for entry in ({"file_id": "file-abc"}, {"image_url": "https://example.org/a.png"}, {"image_url": 5}, 7, None):
        refused(await service.post(EDITS, {**values, "images": [entry]}), 400, "images")
    nothing: list[Any] = [[], {}, "x", None]
    for wrong in nothing:
        refused(await service.post(EDITS, {**values, "images": wrong}), 400, "images", "missing_required_parameter")
    refused(
        await service.post(EDITS, {**values, "images": [{"image_url": "data:image/png;base64,%%%"}]}), 400, "images"
    )


async def test_routes_that_cannot_are_skipped(service: Service) -> None:
    answer = await post_form(service, [*CHECKED, ("image", picture())])
    assert answer.headers["x-images-model"] == "inference.flux-2.klein.4b.img2img.v1"
    masked = await post_form(service, [*CHECKED, ("image", picture()), ("mask", hole("L"))])
    assert masked.headers["x-images-model"] == "inference.sdxl.inpainting.v1"
    routes = ["prodia/inference.flux-fast.schnell.txt2img.v2", "imagelabs/sdxl-turbo"]
    async with running(models={"dall-e-3": {"routes": routes}}) as narrow:
        fields: list[Field] = [("prompt", "a red hat"), ("model", "dall-e-3"), ("image", picture())]
        assert (await post_form(narrow, fields)).headers["x-images-provider"] == "imagelabs"


async def test_a_model_that_cannot_at_all(service: Service) -> None:
    fields: list[Field] = [("prompt", "a red hat [tag:cannot]"), ("model", CANNOT), ("image", picture())]
    message = refused(await post_form(service, fields), 400, "model", "invalid_value")
    assert "'gpt-image-1'" in message
    assert "*" not in message
    assert "'gpt-image-1'" in refused(await post_form(service, [*fields, ("mask", hole("L"))]), 400, "model")
    refused(await post_form(service, fields, VARIATIONS), 400, "model")
    editor = await service.generate("no picture", model="prodia/inference.flux-2.klein.4b.img2img.v1")
    refused(editor, 400, "model")
    assert (await service.counts("cannot"))["submits"] == 0


async def test_a_chunked_upload(service: Service) -> None:
    """Node's SDK streams a file without a length."""
    head = b"".join(
        f'--b\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'.encode()
        for name, value in (("prompt", "a red hat"), ("model", CAN))
    )
    head += b'--b\r\nContent-Disposition: form-data; name="image"; filename="a"\r\n'
    body = head + b"Content-Type: application/octet-stream\r\n\r\n" + picture() + b"\r\n--b--\r\n"

    async def pieces() -> AsyncIterator[bytes]:
        for start in range(0, len(body), 7):
            yield body[start : start + 7]

    headers = {"content-type": "multipart/form-data; boundary=b"}
    async with service.http.post(service.url + EDITS, data=pieces(), headers=headers) as response:
        assert "content-length" not in response.request_info.headers
        answer = await Answer.read(response)
    assert answer.status == 200, answer.body[:300]


@pytest.mark.parametrize("model", [[], [("model", "dall-e-2")], [("model", "")]])
async def test_variations_need_only_a_picture(service: Service, model: list[Field]) -> None:
    answer = await post_form(service, [("image", picture()), *model], VARIATIONS)
    assert list(answer.json["data"][0]) == ["url"]
    refused(await post_form(service, [("model", "dall-e-2")], VARIATIONS), 400, "image")


@pytest.mark.parametrize(
    ("fields", "form"),
    [
        ([], "b64_json"),
        ([("model", "")], "b64_json"),
        ([("response_format", "url")], "url"),
        ([("model", "dall-e-2")], "url"),
    ],
)
@pytest.mark.parametrize("mask", [False, True])
async def test_an_edit_without_a_model_is_answered_as_by_a_gpt_model(
    service: Service, fields: list[Field], form: str, mask: bool
) -> None:
    files: list[Field] = [("image", picture()), *([("mask", hole("L"))] if mask else [])]
    answer = await post_form(service, [("prompt", "a red hat"), *fields, *files])
    assert list(answer.json["data"][0]) == [form]


async def test_a_model_in_the_path_is_a_model(service: Service) -> None:
    path = "/openai/deployments/dall-e-3/images/edits?api-version=2024-02-01"
    answer = await post_form(service, [("prompt", "a red hat"), ("image", picture())], path)
    assert list(answer.json["data"][0]) == ["url"]


def left_behind(folder: Path) -> list[str]:
    """Return the files in a folder, and those without a name there that are still open or mapped."""
    gc.collect()
    maps = (line for line in Path("/proc/self/maps").read_text().splitlines() if "(deleted)" in line)
    links = (str(link.resolve()) for link in Path("/proc/self/fd").iterdir() if link.is_symlink())
    return [place for place in (*maps, *links, *map(str, folder.iterdir())) if str(folder) in place]


async def test_uploads_leave_nothing_behind(narrow: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    mask: Field = ("mask", hole("L"))
    forms: list[list[Field]] = [
        [*CHECKED, ("image", picture())],
        [*CHECKED, ("image", picture()), mask],
        [*CHECKED, ("image", picture()), ("image", b"no picture")],
        [*CHECKED, ("image", picture()), ("mask", picture() + bytes(20_000))],
        [("prompt", "x"), ("model", "nonesuch"), ("image", picture())],
    ]
    running = asyncio.create_task(
        post_form(narrow, [("prompt", "x [seconds:0.4]"), *CHECKED[1:], ("image", picture())])
    )
    held: list[str] = []
    while not held and not running.done():
        held = left_behind(tmp_path)
        await asyncio.sleep(0.01)
    await running
    for fields in forms:
        await post_form(narrow, fields)
    broken = b'--b\r\nContent-Disposition: form-data; name="image"; filename="a"\r\n\r\n' + picture()
    headers = {"content-type": "multipart/form-data; boundary=b"}
    async with narrow.http.post(narrow.url + EDITS, data=broken, headers=headers) as response:
        assert response.status == 400
    assert held, "not even a running job's upload was seen, so neither would a lost one be"
    while list(narrow.engine.generations):
        narrow.engine.generations.sweep()
        await asyncio.sleep(0.01)
    assert left_behind(tmp_path) == []


@pytest.mark.parametrize("fault", ["drop", "500", "invalid", "busy", "failed", "not-a-picture"])
@pytest.mark.parametrize("stream", [False, True])
async def test_a_remembered_failure_holds_no_upload(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str, *, stream: bool
) -> None:
    async with running(speed=400) as service:
        monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
        fields = [("prompt", f"x [fault:{fault}] [seconds:0]"), *CHECKED[1:], ("image", picture())]
        answer = await post_form(service, [*fields, ("stream", "true")] if stream else fields)
        assert answer.status >= 400
        assert len(list(service.engine.generations)) == 1
        await eventually(lambda: not left_behind(tmp_path))  # a thread of its own closes them
