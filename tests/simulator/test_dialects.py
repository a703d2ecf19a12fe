"""The polled dialects' right answers, their refusals and their keys."""

import base64
import io

import pytest
from PIL import Image

from tests.simulator.client import PAGE, V1_KEY, Client, picture_file

pytestmark = pytest.mark.anyio


def window_mask(size: tuple[int, int], box: tuple[int, int, int, int], *, clear: bool) -> bytes:
    mask = Image.new("RGBA", size, (0, 0, 0, 255))
    mask.paste((0, 0, 0, 0) if clear else (255, 255, 255, 255), box)
    file = io.BytesIO()
    mask.save(file, "PNG")
    return file.getvalue()


@pytest.mark.parametrize("kind", ["prodia-async", "prodia-v1", "prodia-legacy", "imagelabs"])
async def test_a_polled_job_goes_its_way_and_is_counted(client: Client, kind: str) -> None:
    story = await client.follow(kind, "")
    assert story.submit.status == (201 if kind == "prodia-async" else 200)
    assert len(story.polls) == 4
    assert story.picture.picture.size == (512, 512)
    assert story.counts == {"submits": 1, "polls": len(story.polls), "fetches": 1, "started": 1}


async def test_a_job_passes_through_all_states(client: Client) -> None:
    async def states(kind: str) -> list[str]:
        return [poll.json["status"] for poll in (await client.follow(kind, "[queued:1.5]")).polls]

    for kind in ("prodia-v1", "prodia-legacy"):
        assert await states(kind) == ["queued", "queued", "generating", "succeeded"]
    assert await states("imagelabs") == ["Queued", "Queued", "In Progress", "Done"]


async def test_inpainting_changes_only_what_the_mask_marks(client: Client) -> None:
    given = picture_file("#ff0000", (512, 512))
    for clear in (True, False):
        mask = window_mask((512, 512), (100, 100, 300, 300), clear=clear)
        body = {
            "prompt": "a pond [seconds:0]",
            "imageData": base64.b64encode(given).decode(),
            "maskData": base64.b64encode(mask).decode(),
        }
        job = (await client.v1("/sd/inpainting", body)).json["job"]
        result = (await client.call("GET", (await client.v1(f"/job/{job}")).json["imageUrl"])).picture
        assert result.getpixel((50, 50)) == result.getpixel((400, 400)) == (255, 0, 0)
        assert result.getpixel((120, 120)) != (255, 0, 0)


@pytest.mark.parametrize("kind", ["prodia-v1", "imagelabs"])
async def test_image_to_image_shows_its_input(client: Client, kind: str) -> None:
    half = Image.new("RGB", (200, 200), "black")
    half.paste("white", (100, 0, 200, 200))
    file = io.BytesIO()
    half.save(file, "JPEG")
    data = base64.b64encode(file.getvalue()).decode()
    prompt = "night [seconds:0]"
    if kind == "prodia-v1":
        job = (await client.v1("/sdxl/transform", {"prompt": prompt, "imageData": data})).json["job"]
        address = (await client.v1(f"/job/{job}")).json["imageUrl"]
    else:
        body = {"prompt": prompt, "seed": "1", "reference_image": f"data:image/jpeg;base64,{data}"}
        task = (await client.imagelabs("/txt2img", body)).json
        address = (await client.imagelabs("/progress", task)).json["final_image_url"]
    picture = (await client.call("GET", address)).picture.convert("L")
    dark, light = picture.getpixel((picture.width // 4, 20)), picture.getpixel((picture.width * 3 // 4, 20))
    assert isinstance(dark, int)
    assert isinstance(light, int)
    assert light - dark > 100


@pytest.mark.parametrize(
    "wrong",
    [
        {"steps": 99},
        {"cfg_scale": 0},
        {"sampler": "euler"},
        {"model": "none"},
        {"width": 515},
        {"prompt": None},
        {"aspect_ratio": "wide"},
    ],
)
async def test_v1_refuses_bad_values_in_plain_text(client: Client, wrong: dict[str, object]) -> None:
    answer = await client.v1("/sd/generate", {"prompt": "a pear"} | wrong)
    assert (answer.status, answer.type, answer.body) == (400, "text/plain", b"Invalid Generation Parameters")


async def test_v1_wants_inputs_that_are_pictures(client: Client) -> None:
    for extra in ({}, {"imageData": "!"}, {"imageData": "aGFsbG8="}, {"imageData": "aGFsbG8=", "imageUrl": "x"}):
        assert (await client.v1("/sd/transform", {"prompt": "a pear", **extra})).status == 400


async def test_v1_wants_its_key_and_lists_its_models(client: Client) -> None:
    for path in ("/sd/models", "/sdxl/models", "/sd/samplers", "/sdxl/samplers"):
        names = (await client.v1(path)).json
        assert all(isinstance(name, str) for name in names)
        assert (await client.v1(path, key="wrong")).status == 401
    assert (await client.v1("/sd/generate", {"prompt": "x"}, key="wrong")).status == 401
    assert (await client.v1("/sd3/models")).status == 404
    assert (await client.v1("/sd3/generate", {"prompt": "x"})).status == 404
    assert (await client.v1("/job/unknown")).status == 404


@pytest.mark.parametrize(
    ("query", "size"),
    [
        ({}, (512, 512)),
        ({"aspect_ratio": "portrait"}, (512, 768)),
        ({"aspect_ratio": "landscape", "upscale": "True"}, (1536, 1024)),
        ({"aspect_ratio": "round", "sampler": "none", "model": "none", "steps": "many"}, (512, 512)),
    ],
)
async def test_legacy_falls_back_and_echoes_what_it_ran(
    client: Client, query: dict[str, str], size: tuple[int, int]
) -> None:
    submit = await client.legacy("/generate", new="true", prompt="a pear [seconds:0]", seed="77", **query)
    params = submit.json["params"]
    assert (params["width"], params["height"], params["seed"], params["steps"]) == (*size, 77, 20)
    assert params["sampler_name"] == "DPM++ 2M Karras"
    assert params["options"]["sd_model_checkpoint"] == "absolutereality_v181.safetensors [3d9d4d2b]"
    picture = (await client.call("GET", f"{client.origin}/pictures/{submit.json['job']}.png")).picture
    assert picture.size == size


async def test_legacy_lists_models_by_display_name(client: Client) -> None:
    models = (await client.legacy("/models")).json
    assert models["dreamshaper_8"] == "dreamshaper_8.safetensors [9d40847d]"


async def test_imagelabs_wants_the_headers_of_its_page(client: Client) -> None:
    for missing in PAGE:
        headers = {name: value for name, value in PAGE.items() if name != missing}
        for path in ("/txt2img", "/progress"):
            answer = await client.imagelabs(path, {"prompt": "x"}, headers)
            assert (answer.status, answer.type) == (403, "text/html")
            assert b"Just a moment..." in answer.body


@pytest.mark.parametrize(
    "wrong",
    [
        {"seed": 5},
        {"subseed": 5},
        {"width": 8},
        {"height": "512"},
        {"prompt": ""},
        {"reference_image": "!"},
        {"reference_strength": 101},
    ],
)
async def test_imagelabs_refuses_in_json(client: Client, wrong: dict[str, object]) -> None:
    answer = await client.imagelabs("/txt2img", {"prompt": "a pear"} | wrong)
    assert (answer.status, answer.type) == (400, "application/json")
    assert f"'/{next(iter(wrong))}'" in answer.json["error"]


async def test_imagelabs_says_in_json_that_it_knows_no_such_task(client: Client) -> None:
    answer = await client.imagelabs("/progress", {"task_id": "unknown"})
    assert (answer.status, answer.json) == (404, {"error": "unknown task"})


async def test_imagelabs_shows_previews_and_honours_the_size(client: Client) -> None:
    body = {"prompt": "a pear [seconds:4] [queued:0]", "seed": "9", "width": 640, "height": 384}
    task = (await client.imagelabs("/txt2img", body)).json
    client.time.now += 1
    first = (await client.imagelabs("/progress", task)).json
    assert (first["status"], first["final_image_url"]) == ("In Progress", None)
    assert first["progress"] == pytest.approx(0.25, abs=1e-3)
    assert (await client.call("GET", first["current_image_url"])).picture.size == (256, 154)
    early = first["current_image_url"].replace("-preview", "")
    assert (await client.call("GET", early)).status == 404
    client.time.now += 3.5
    last = (await client.imagelabs("/progress", task)).json
    assert (last["status"], last["progress"], last["current_image_url"]) == ("Done", 1.0, None)
    assert (await client.call("GET", last["final_image_url"])).picture.size == (640, 384)


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"[" * 100_000])
async def test_a_body_that_is_no_object_is_refused(client: Client, body: bytes) -> None:
    for url, headers in (
        (f"{client.urls['prodia-v1']}/sd/generate", {"x-prodia-key": V1_KEY}),
        (f"{client.urls['imagelabs']}/txt2img", PAGE),
    ):
        assert (await client.call("POST", url, headers=headers, data=body)).status == 400


async def test_only_pictures_without_a_key_lie_at_the_public_host(client: Client) -> None:
    keyed = (await client.schnell("a pear [seconds:0]", "/job/async")).json["id"]
    open_to_all = (await client.legacy("/generate", prompt="a pear [seconds:0]")).json["job"]
    for job, status in ((keyed, 404), (open_to_all, 200)):
        assert (await client.call("GET", f"{client.origin}/pictures/{job}.png")).status == status


async def test_pictures_can_be_asked_about_and_fetched(client: Client) -> None:
    job = (await client.legacy("/generate", prompt="a pear [seconds:0] [tag:asked]")).json["job"]
    address = f"{client.origin}/pictures/{job}.png"
    assert (await client.call("GET", f"{client.origin}/pictures/unknown.png")).status == 404
    head = await client.call("HEAD", address)
    assert (head.status, head.type, head.body) == (200, "image/png", b"")
    assert (await client.counts("asked"))["fetches"] == 0
    assert (await client.call("GET", address)).picture.size == (512, 512)
    assert (await client.counts("asked"))["fetches"] == 1
    assert (await client.counts("never"))["submits"] == 0
