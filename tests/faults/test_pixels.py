"""Pictures of too many pixels are refused from their header; the largest that are accepted cost little memory."""

import json
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import pytest
from PIL import Image
from starlette.responses import JSONResponse

from proxy.simulator.pictures import padded_png
from tests.e2e.parts import data_url, picture, post_form
from tests.providers.raw_server import answer, raw_server, saying
from tests.service import Service, running

from .scripted import JOB, Upstream, before
from .wire import LABS, LEGACY, SCHNELL, assert_failed

pytestmark = pytest.mark.anyio
INPAINTER = "prodia/inference.sdxl.inpainting.v1"
HUGE = padded_png(7000, 7000, 0)
INVALID = "invalid_request_error"
ROOT = Path(__file__).parents[2]


def _undecodable(width: int, height: int) -> bytes:
    """Return a PNG that is whole by its structure, and whose pixels are none."""
    header = struct.pack(">IIBBBBB", width, height, 8, 6, 0, 0, 0)
    data = b"\x89PNG\r\n\x1a\n"
    for chunk in (b"IHDR" + header, b"IDATpixels", b"IEND"):
        data += struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk))
    return data


async def test_uploads_of_too_many_pixels_are_refused_by_the_name_they_came_under(service: Service, tag: str) -> None:
    prompt = f"a fox [tag:{tag}]"
    form = await post_form(service, [("image", HUGE), ("prompt", prompt), ("model", LABS)])
    listed = await service.post(
        "/v1/images/edits", {"prompt": prompt, "model": LABS, "images": [{"image_url": data_url(HUGE)}]}
    )
    parts = [{"type": "text", "text": prompt}, {"type": "image_url", "image_url": {"url": data_url(HUGE)}}]
    said = await service.post("/v1/chat/completions", {"model": LABS, "messages": [{"role": "user", "content": parts}]})
    for refused, param in ((form, "image"), (listed, "images"), (said, "messages")):
        assert_failed(refused, 400, INVALID, "invalid_image_file")
        assert refused.json["error"]["param"] == param
    assert (await service.counts(tag))["submits"] == 0


async def test_the_limit_is_the_configurations() -> None:
    async with running(images={"max_pixels": 64 * 64}) as service:
        for side, status in ((64, 200), (65, 400)):
            edited = await post_form(
                service, [("image", picture(side, 64)), ("prompt", "a [seconds:0]"), ("model", LABS)]
            )
            assert edited.status == status


async def test_a_mask_is_decoded_for_a_model_that_can_use_it_and_for_no_other(service: Service) -> None:
    fields: list[tuple[str, str | bytes]] = [
        ("image", picture(64, 64)),
        ("mask", _undecodable(64, 64)),
        ("prompt", "a fox"),
    ]
    unknown = await post_form(service, [*fields, ("model", "no-such-model")])
    assert_failed(unknown, 404, INVALID, "model_not_found")
    unable = await post_form(service, [*fields, ("model", SCHNELL)])
    assert (unable.status, unable.json["error"]["param"]) == (400, "model")
    able = await post_form(service, [*fields, ("model", INPAINTER)])
    assert_failed(able, 400, INVALID, "invalid_image_file")
    assert able.json["error"]["param"] == "mask"


async def test_an_upload_that_is_cut_off_is_refused(service: Service) -> None:
    whole = picture(64, 64)
    cut = await post_form(service, [("image", whole[:-20]), ("prompt", "a fox"), ("model", LABS)])
    assert_failed(cut, 400, INVALID, "invalid_image_file")


async def test_a_result_of_too_many_pixels_is_handed_on_but_not_converted() -> None:
    async with raw_server(saying(answer(HUGE, "image/png"))) as host:
        done = JSONResponse({"job": JOB, "status": "succeeded", "imageUrl": f"{host.url}/a.png"})
        upstream = Upstream(polls=[done])
        async with before(upstream) as service:
            failed = await service.generate("a", model=LEGACY, output_format="webp")
            assert_failed(failed, 502, "image_generation_server_error", "provider_bad_result")
            assert (await service.generate("a", model=LEGACY, response_format="b64_json")).status == 200
            assert upstream.calls().count("/generate") == 2


_WORK = r"""
import json, re, sys
from pathlib import Path
from proxy.pictures.codec import decode_and_encode, luminance
source, wanted = Path(sys.argv[1]), sys.argv[2]
with source.open("rb") as file:
    made = luminance(file.read()) if wanted == "mask" else decode_and_encode(file, wanted, 80)
# Not getrusage's figure: that one begins with the memory of the process that started this one.
peak_kib = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())[1]
print(json.dumps([len(made), int(peak_kib)]))
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads the peak of memory in /proc")
@pytest.mark.parametrize("wanted", ["webp", "mask"])
def test_the_largest_picture_is_read_within_300_megabytes(tmp_path: Path, wanted: str) -> None:
    noise = Image.effect_noise((512, 512), 80)
    canvas = Image.new("RGBA" if wanted == "mask" else "RGB", (4096, 4096))
    for place in range(16):
        canvas.paste(noise.convert(canvas.mode), (place % 4 * 1024, place // 4 * 1024))
    if wanted == "mask":
        canvas.putalpha(canvas.getchannel("R"))
    source = tmp_path / "largest.png"
    canvas.save(source, compress_level=1)
    done = subprocess.run([sys.executable, "-c", _WORK, str(source), wanted], cwd=ROOT, capture_output=True, check=True)
    size, peak_kib = json.loads(done.stdout)
    assert size > 1000
    assert peak_kib <= 300 * 1024
