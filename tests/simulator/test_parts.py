"""The parts that need no socket: words, pictures, the life of a job, its durations."""

import io
import statistics
from dataclasses import replace
from typing import Any

import pytest
from PIL import Image, ImageChops
from starlette.applications import Starlette

from proxy.providers.registry import KINDS
from proxy.simulator import base_urls, create_simulator, demo_keys
from proxy.simulator.pictures import encode, lying_png, padded_png
from proxy.simulator.prodia_types import SCHEMAS
from proxy.simulator.scene import Drawing, draw, measure
from proxy.simulator.schema import problem
from proxy.simulator.simulation import Job, Simulation
from proxy.simulator.words import Fault, Words, read_words, strip_words
from tests.simulator.client import FakeTime

DRAWING = Drawing(320, 240, "a pear on a table", "model", 7)


def simulation(time: FakeTime, speed: float = 1.0) -> Simulation:
    return Simulation(time.clock(), speed, {})


def start(made: Simulation, words: Words | None = None, keep_s: float = 300) -> Job:
    return made.start("prodia", words or Words(), DRAWING, queued_s=1, generating_s=4, keep_s=keep_s)


def test_words_are_read_and_stripped() -> None:
    prompt = "a [fault:gateway:2:524] red [tag:x] [seconds:2.5] fox [queued:1] [bytes:4000] [other:1] [b]"
    words = read_words(prompt, "[fault:drop]")
    assert words == Words((Fault("gateway", "2:524"), Fault("drop")), 2.5, 1.0, "x", 4000)
    assert (words.faults[0].number(0, 1), words.faults[0].status(502)) == (2, 524)
    assert strip_words(prompt) == "a red fox [other:1] [b]"


@pytest.mark.parametrize("wrong", ["[seconds:soon]", "[seconds:-1]", "[seconds:nan]", "[bytes:1e9]", "[queued:]"])
def test_words_that_are_no_numbers_are_ignored(wrong: str) -> None:
    assert read_words(wrong) == Words()


def test_a_job_is_what_the_clock_says() -> None:
    time = FakeTime()
    job = start(simulation(time), Words(seconds=10, queued=2))
    seen = [(job.state(time.now + s), job.progress(time.now + s)) for s in (0, 1.9, 2, 6, 10, 99)]
    assert seen == [
        ("queued", 0),
        ("queued", 0),
        ("generating", 0),
        ("generating", 0.5),
        ("finished", 1),
        ("finished", 1),
    ]


def test_a_job_is_forgotten_after_its_time() -> None:
    time = FakeTime()
    made = simulation(time)
    job = start(made, keep_s=300)
    time.now += 300
    assert made.find(job.id, "prodia") is job
    assert made.find(job.id, "imagelabs") is None
    time.now += 1
    assert made.find(job.id, "prodia") is None
    start(made)
    assert len(made._jobs) == 1


def test_durations_scatter_around_the_typical_and_shrink_with_speed() -> None:
    for speed in (1.0, 10.0):
        made = simulation(FakeTime(), speed)
        lengths = [start(made).duration_s * speed for _ in range(400)]
        assert 4.7 < statistics.median(lengths) < 5.3
        assert 0.5 < statistics.stdev(lengths) < 2
    exact = start(simulation(FakeTime(), 10), Words(seconds=3))
    assert exact.duration_s == pytest.approx(3)


def test_counts_keep_groups_apart() -> None:
    made = simulation(FakeTime())
    made.count("submits", "a")
    made.count("submits", "b")
    made.count("polls", "")
    assert made.counts("a") == {"submits": 1, "polls": 0, "fetches": 0, "started": 0}
    assert made.counts() == {"submits": 2, "polls": 1, "fetches": 0, "started": 0}


def test_what_is_oldest_is_forgotten_before_memory_runs_out(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("_MOST_TAGS", "_MOST_PROMPTS", "_MOST_JOBS"):
        monkeypatch.setattr(f"proxy.simulator.simulation.{name}", 3)
    made = simulation(FakeTime())
    jobs = [start(made) for _ in range(5)]
    assert [made.find(job.id, "prodia") is job for job in jobs] == [False, False, True, True, True]
    arrivals = [made.arrive(f"{number} [fault:drop] [tag:{number}]")[1] for number in (1, 2, 3, 4, 1, 4)]
    assert arrivals == [1, 1, 1, 1, 1, 2]
    assert (made.counts("2")["submits"], made.counts("4")["submits"], made.counts()["submits"]) == (0, 2, 6)


@pytest.mark.parametrize("image_format", ["png", "jpeg", "webp"])
@pytest.mark.parametrize("size", [(64, 64), (512, 768), (1536, 1024), (4096, 64)])
def test_pictures_have_exactly_the_size_asked_for(image_format: str, size: tuple[int, int]) -> None:
    data = encode(replace(DRAWING, width=size[0], height=size[1]), image_format)
    assert measure(data) == size
    assert Image.open(io.BytesIO(data)).format == image_format.upper()


@pytest.mark.parametrize("change", [{"seed": 8}, {"prompt": "an apple"}, {"model": "other"}])
def test_pictures_follow_seed_prompt_and_model(change: dict[str, Any]) -> None:
    first = encode(DRAWING, "png")
    encode.cache_clear()
    assert encode(DRAWING, "png") == first
    drawn, other = (draw(drawing).resize((16, 16)) for drawing in (DRAWING, replace(DRAWING, **change)))
    box = ImageChops.difference(drawn, other).getbbox()
    assert box is not None
    assert box[1] < drawn.height // 4, "not the caption alone differs"


@pytest.mark.parametrize("size", [(320, 240), (240, 320), (640, 200), (200, 640), (1000, 900)])
def test_an_edit_shows_one_caption_only(size: tuple[int, int]) -> None:
    """An edit of two pictures that differ in nothing but their caption comes out the same: nothing of it is left."""
    first = draw(DRAWING)
    other = first.copy()
    other.paste("white", (0, 181, 320, 240))
    assert first.getpixel((160, 182)) != other.getpixel((160, 182))
    edits = []
    for given in (first, other):
        file = io.BytesIO()
        given.save(file, "PNG")
        edits.append(draw(Drawing(*size, "an edit", "model", 7, image=file.getvalue())))
    box = ImageChops.difference(*edits).getbbox()
    assert box is None


def png(picture: Image.Image) -> bytes:
    file = io.BytesIO()
    picture.save(file, "PNG")
    return file.getvalue()


def test_an_edit_within_a_mask_shows_one_caption_only() -> None:
    """Above the caption of a picture that was made here, the words of the edit are not written a second time."""
    mask = Image.new("RGBA", (320, 240), "black")
    mask.paste((0, 0, 0, 0), (20, 20, 300, 170))
    edit = Drawing(320, 240, "an edit", "model", 7, image=png(draw(DRAWING)), mask=png(mask))
    made = draw(edit)
    box = (20, 135, 300, 170)  # the lowest quarter of the mask, where a caption would be
    plain = draw(replace(edit, image=png(Image.new("RGB", (320, 240), "white"))))
    assert (12, 14, 24) in {pixel for _, pixel in plain.crop(box).getcolors(99_999) or []}
    assert (12, 14, 24) not in {pixel for _, pixel in made.crop(box).getcolors(99_999) or []}


@pytest.mark.parametrize("prompt", ["", "x" * 5000, "word " * 900, "日本語のプロンプト", "tab\tand\nline"])
def test_any_prompt_can_be_drawn(prompt: str) -> None:
    assert measure(encode(replace(DRAWING, prompt=prompt), "png")) == (320, 240)


def test_padded_pictures_weigh_what_was_asked_and_are_valid() -> None:
    assert len(padded_png(640, 480, 4_000_000)) == 4_000_000
    assert measure(padded_png(640, 480, 4_000_000)) == (640, 480)
    assert measure(padded_png(640, 480, 1)) == (640, 480)


def test_the_lying_picture_lies() -> None:
    picture = Image.open(io.BytesIO(padded_png(8, 8, 1)))
    assert picture.size == (8, 8)
    assert lying_png()[16:24] == (30_000).to_bytes(4, "big") * 2
    assert len(lying_png()) < 1000


@pytest.mark.parametrize(
    ("kind", "config", "said"),
    [
        ("inference.seedream.txt2img.v1", {"prompt": "ab"}, "at '/prompt': minLength: got 2, want 3"),
        ("inference.recraft.txt2img.v1", {"prompt": "x" * 1001}, "at '/prompt': maxLength: got 1,001, want 1,000"),
        ("inference.flux-2.pro.img2img.v1", {"prompt": "x", "images": []}, "at '/images': minItems: got 0, want 1"),
        (
            "inference.flux-2.pro.img2img.v1",
            {"prompt": "x", "images": ["a"] * 9},
            "at '/images': maxItems: got 9, want 8",
        ),
        (
            "inference.flux-2.pro.img2img.v1",
            {"prompt": "x", "images": ["a"], "width": 65},
            "at '/width': multipleOf: got 65, want 16",
        ),
        ("inference.flux-2.pro.img2img.v1", {"prompt": "x", "images": "a"}, "at '/images': got string, want array"),
        ("inference.flux-2.pro.img2img.v1", {"prompt": "x", "images": [1]}, "at '/images': got array, want array"),
        ("inference.nano-banana.txt2img.v2", {"prompt": "x", "include_messages": 1}, "got integer, want boolean"),
        ("inference.nano-banana.txt2img.v2", {"prompt": "x", "seed": 1}, "additional properties 'seed' not allowed"),
        ("inference.seedream.txt2img.v1", {"prompt": "abc", "seed": 1.5}, "at '/seed': got number, want integer"),
        ("inference.recraft.v4.txt2img.v1", {}, "missing property 'prompt'"),
    ],
)
def test_schemas_name_what_is_wrong(kind: str, config: dict[str, object], said: str) -> None:
    assert said in (problem(SCHEMAS[kind], config) or "")


def test_the_address_helper_and_the_constructor() -> None:
    urls = base_urls("http://127.0.0.1:9/")
    assert urls["prodia"] == "http://127.0.0.1:9/v2"
    assert set(urls) == set(KINDS)
    assert set(demo_keys()) == {kind for kind, own in KINDS.items() if own.key_env}
    assert isinstance(create_simulator(), Starlette)
    with pytest.raises(ValueError, match="speed"):
        create_simulator(speed=0)
