"""What people come to the page for, each from its beginning to its end."""

import io
import json
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image
from playwright.sync_api import Browser, Page, Route, expect

from tests.browser.visit import (
    DONE,
    ERROR,
    PHONE,
    PROMPT,
    RUNNING,
    Visit,
    add_picture,
    buys,
    choose_model,
    generate,
    paint,
    picture_file,
    picture_width,
    shown_picture,
    visiting,
)

pytestmark = pytest.mark.browser

CHECKPOINT = "prodia-v1/dreamshaper_8.safetensors [9d40847d]"


KEPT_MASK = """() => new Promise((resolve) => {
  const opening = indexedDB.open('images-proxy');
  opening.onsuccess = () => {
    const reading = opening.result.transaction('drafts').objectStore('drafts').getAll();
    reading.onsuccess = () => { opening.result.close(); resolve(reading.result.some((draft) => draft.mask)); };
  };
})"""


@pytest.fixture
def visit(browser: Browser, demo_url: str) -> Iterator[Visit]:
    with visiting(browser, demo_url) as opened:
        yield opened


def parts(page: Page) -> dict[str, list[bytes]]:
    """The parts of the form that was sent last, by their names; ``remember_forms`` comes before."""
    read = """async () => {
      const found = {};
      for (const [name, value] of window.forms.at(-1)) {
        const bytes = new Uint8Array(await new Blob([value]).arrayBuffer());
        (found[name] ??= []).push([...bytes]);
      }
      return found;
    }"""
    return {name: [bytes(value) for value in values] for name, values in page.evaluate(read).items()}


def remember_forms(page: Page) -> None:
    """Have the browser keep what it uploads: its developer tools don't tell it."""
    page.evaluate(
        """() => {
          const send = window.fetch;
          window.forms = [];
          window.fetch = (path, options) => {
            if (options?.body instanceof FormData) window.forms.push(options.body);
            return send(path, options);
          };
        }"""
    )


# --- a reload loses nothing -------------------------------------------------------------------------------------------


def test_a_reload_in_mid_job_finds_the_picture_and_the_form_again(visit: Visit) -> None:
    page = visit.page
    page.get_by_text("Advanced").click()
    page.get_by_label("Seed").fill("77")
    with page.expect_response(lambda response: response.request.method == "POST" and response.status == 202):
        generate(page, f"{PROMPT} [seconds:3]")
    page.reload()
    expect(page.locator(RUNNING)).to_be_visible()
    expect(page.get_by_label("Prompt", exact=True)).to_have_value(f"{PROMPT} [seconds:3]")
    expect(page.get_by_label("Seed")).to_have_value("77")
    expect(page.locator(DONE)).to_be_visible()
    assert picture_width(page) > 0
    expect(page.locator("#gallery-list li")).to_have_count(1)
    assert len(visit.posted) == 1, "the picture was asked for a second time"
    page.reload()
    expect(page.locator("#gallery-list li")).to_have_count(1)
    expect(page.locator("#stage[data-state=empty]")).to_be_visible()
    assert visit.complaints == []


def test_a_reload_before_the_answer_came_repeats_the_call_by_its_name(visit: Visit) -> None:
    page = visit.page

    swallowed: list[int] = []

    def swallow(route: Route) -> None:
        if swallowed or not buys(route.request):
            route.continue_()
            return
        swallowed.append(route.fetch().status)  # it arrived, and the page never hears of it

    page.route("**/v1/images/generations", swallow)
    with page.expect_request(lambda request: buys(request) and request.url.endswith("/generations")) as first:
        generate(page, f"{PROMPT} [seconds:2]")
    while not swallowed:
        page.wait_for_timeout(50)
    assert swallowed == [202]
    with page.expect_request(buys) as second:
        page.reload()
    assert second.value.headers["idempotency-key"] == first.value.headers["idempotency-key"]
    expect(page.locator(DONE)).to_contain_text("nothing was paid twice")


def test_a_break_of_the_network_is_waited_out(visit: Visit) -> None:
    page = visit.page
    with page.expect_response(lambda response: response.request.method == "POST" and response.status == 202):
        generate(page, f"{PROMPT} [seconds:2]")
    page.context.set_offline(True)
    page.wait_for_timeout(2500)
    expect(page.locator(RUNNING)).to_be_visible()
    page.context.set_offline(False)
    expect(page.locator(DONE)).to_be_visible()
    assert len(visit.posted) == 1


def test_a_picture_that_the_service_forgot_is_not_bought_again_by_itself(visit: Visit) -> None:
    page = visit.page
    with page.expect_response(lambda response: response.request.method == "POST" and response.status == 202) as handed:
        generate(page, f"{PROMPT} [seconds:600]")
    page.request.delete(f"{page.url.rstrip('/')}{handed.value.headers['location']}")
    expect(page.locator(ERROR)).to_contain_text("isn’t there any more")
    assert len(visit.posted) == 1
    page.get_by_role("button", name="Generate again").click()
    expect(page.locator(RUNNING)).to_be_visible()
    page.keyboard.press("Escape")


# --- edits ------------------------------------------------------------------------------------------------------------


def test_an_edit_within_a_painted_mask(visit: Visit) -> None:
    page = visit.page
    add_picture(page)
    page.get_by_role("button", name="Paint a mask").click()
    paint(page, (0.3, 0.2), (0.7, 0.2))
    page.get_by_role("button", name="Use the mask").click()
    expect(page.get_by_role("button", name="Edit mask")).to_be_focused()
    remember_forms(page)
    with page.expect_request(lambda request: buys(request) and request.url.endswith("/edits")):
        generate(page, "a green pond")
    found = parts(page)
    assert found["image"] == [picture_file()]
    mask = Image.open(io.BytesIO(found["mask"][0]))
    assert mask.size == (320, 240)
    alpha = mask.getchannel("A")
    assert (alpha.getpixel((160, 48)), alpha.getpixel((160, 200))) == (0, 255)
    expect(page.locator(DONE)).to_be_visible()
    made = shown_picture(page)
    width, height = made.size
    assert made.getpixel((width // 2, height * 5 // 6)) == pytest.approx((255, 0, 0), abs=12)
    assert made.getpixel((width // 2, height // 5)) != pytest.approx((255, 0, 0), abs=12)
    assert visit.complaints == []


def test_strokes_are_taken_back_erased_and_turned_round(visit: Visit) -> None:
    page = visit.page
    add_picture(page)

    def painted(x: float, y: float) -> bool:
        """Whether the mask is painted there."""
        read = (
            "([x, y]) => { const mask = document.getElementById('mask-canvas');"
            " return mask.getContext('2d').getImageData(x * mask.width, y * mask.height, 1, 1).data[3] > 127; }"
        )
        return bool(page.evaluate(read, [x, y]))

    page.get_by_role("button", name="Paint a mask").click()
    paint(page, (0.3, 0.5), (0.7, 0.5))
    paint(page, (0.3, 0.2), (0.7, 0.2))
    assert painted(0.5, 0.2)
    page.get_by_role("button", name="Undo").click()
    assert (painted(0.5, 0.5), painted(0.5, 0.2)) == (True, False)
    page.get_by_role("button", name="Erase").click()
    page.get_by_label("Brush").fill("20")
    paint(page, (0.5, 0.4), (0.5, 0.6))
    assert (painted(0.5, 0.5), painted(0.32, 0.5)) == (False, True)
    page.get_by_role("button", name="Invert").click()
    assert (painted(0.5, 0.5), painted(0.32, 0.5), painted(0.05, 0.05)) == (True, False, True)
    page.get_by_role("button", name="Clear").click()
    expect(page.get_by_role("button", name="Undo")).to_be_disabled()
    page.get_by_role("button", name="Use the mask").click()
    expect(page.get_by_role("button", name="Paint a mask")).to_be_visible()  # an empty mask is none


def test_a_mask_by_touch_and_by_keyboard(browser: Browser, demo_url: str) -> None:
    with visiting(browser, demo_url, **PHONE) as visit:
        page = visit.page
        add_picture(page)
        page.get_by_role("button", name="Paint a mask").tap()
        page.locator("#mask-canvas").tap(position={"x": 40, "y": 40})
        undo = page.get_by_role("button", name="Undo")
        expect(undo).to_be_enabled()
        undo.tap()
        expect(undo).to_be_disabled()
        page.locator("#mask-canvas").focus()
        page.keyboard.press("ArrowLeft")
        page.keyboard.press("Space")
        page.keyboard.press("Shift+ArrowDown")
        page.get_by_role("button", name="Use the mask").tap()
        expect(page.get_by_role("button", name="Edit mask")).to_be_visible()
        remember_forms(page)
        with page.expect_request(lambda request: buys(request) and request.url.endswith("/edits")):
            generate(page, "a pond")
        assert Image.open(io.BytesIO(parts(page)["mask"][0])).getchannel("A").getextrema() == (0, 255)
        expect(page.locator(DONE)).to_be_visible()


def test_several_pictures_dropped_survive_a_reload(visit: Visit) -> None:
    page = visit.page
    drop = """async () => {
      const files = await Promise.all(['red', 'blue'].map(async (colour) => {
        const canvas = Object.assign(document.createElement('canvas'), { width: 64, height: 64 });
        const pen = canvas.getContext('2d');
        pen.fillStyle = colour;
        pen.fillRect(0, 0, 64, 64);
        const blob = await new Promise((resolve) => canvas.toBlob(resolve));
        return new File([blob], `${colour}.png`, { type: 'image/png' });
      }));
      const dataTransfer = new DataTransfer();
      files.forEach((file) => dataTransfer.items.add(file));
      const form = document.getElementById('form');
      for (const name of ['dragenter', 'dragover', 'drop']) {
        form.dispatchEvent(new DragEvent(name, { dataTransfer, bubbles: true, cancelable: true }));
      }
    }"""
    page.evaluate(drop)
    thumbs = page.locator("#inputs-list li")
    expect(thumbs).to_have_count(2)
    page.get_by_role("button", name="Paint a mask").click()
    paint(page, (0.3, 0.2), (0.7, 0.2))
    page.get_by_role("button", name="Use the mask").click()
    page.wait_for_function(KEPT_MASK)
    page.reload()
    expect(thumbs).to_have_count(2)
    expect(page.get_by_role("button", name="Edit mask")).to_be_visible()
    expect(page.locator("#before")).to_contain_text("takes one picture")  # of those that can use a mask
    page.get_by_role("button", name="Remove picture 1").click()
    expect(page.get_by_role("button", name="Paint a mask")).to_be_visible()  # the mask was the first picture's
    expect(page.locator("#before")).to_be_hidden()
    add_picture(page)
    remember_forms(page)
    with page.expect_request(lambda request: buys(request) and request.url.endswith("/edits")):
        generate(page, "both in one")
    assert len(parts(page)["image[]"]) == 2
    expect(page.locator(DONE)).to_be_visible()
    assert visit.complaints == []


def test_a_camera_picture_is_turned_and_sent_without_its_place(visit: Visit) -> None:
    page = visit.page
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter: https://www.cipa.jp/std/documents/e/DC-008-Translation-2019-E.pdf
    exif[0x9286] = "taken at home"
    add_picture(page, picture_file("red", (320, 200), "JPEG", exif=exif), "photo.jpg", "image/jpeg")
    remember_forms(page)
    with page.expect_request(lambda request: buys(request) and request.url.endswith("/edits")):
        generate(page, "a pond")
    (data,) = parts(page)["image"]
    assert b"Exif" not in data
    assert Image.open(io.BytesIO(data)).size == (200, 320)


def test_what_is_no_picture_is_refused_by_name(visit: Visit) -> None:
    page = visit.page
    page.locator("#pictures").set_input_files({"name": "notes.txt", "mimeType": "text/plain", "buffer": b"no picture"})
    expect(page.get_by_role("alert")).to_have_text("notes.txt is no picture that this browser can read.")


def test_edit_this_one_and_variation_on_a_result_and_in_the_gallery(visit: Visit) -> None:
    page = visit.page
    generate(page)
    expect(page.locator(DONE)).to_be_visible()
    page.locator("#stage").get_by_role("button", name="Edit this one").click()
    expect(page.locator("#inputs-list li")).to_have_count(1)
    expect(page.get_by_label("Prompt", exact=True)).to_be_focused()
    with page.expect_request(lambda request: buys(request) and request.url.endswith("/edits")):
        generate(page, "the same at night")
    expect(page.locator(DONE)).to_be_visible()
    remember_forms(page)
    with page.expect_request(lambda request: buys(request) and request.url.endswith("/variations")):
        page.locator("#stage").get_by_role("button", name="Variation").click()
    assert set(parts(page)) == {"model", "n", "image"}
    expect(page.locator("#gallery-list li")).to_have_count(3)
    page.get_by_role("button", name="Open: A variation").click()
    with page.expect_request(lambda request: buys(request) and request.url.endswith("/variations")):
        page.get_by_role("dialog").get_by_role("button", name="Variation").click()
    expect(page.locator("#gallery-list li")).to_have_count(4)
    assert visit.complaints == []


# --- choosing a model -------------------------------------------------------------------------------------------------


def test_a_model_is_found_by_name_provider_or_ability(visit: Visit) -> None:
    page = visit.page
    field = page.get_by_label("Model", exact=True)
    field.click()
    options = page.locator("#model-list [role=option]")
    expect(options.first).to_contain_text("DALL·E 3")
    expect(options.first).to_contain_text("$0.0025")
    expect(options.first).to_contain_text("edits, masks")
    field.fill("nano banana")
    expect(options).to_have_count(1)
    expect(options).to_contain_text("$0.039")
    field.fill("prodia-v1 masks dreamshaper")
    field.press("ArrowDown")
    field.press("ArrowUp")
    field.press("Enter")
    expect(page.locator("#model-hint")).to_contain_text("prodia-v1/dreamshaper")
    field.fill("nothing of the kind")
    expect(options).to_contain_text("None.")
    field.press("Escape")
    expect(field).to_have_value(re.compile("Dreamshaper"))
    expect(page.get_by_role("listbox")).to_be_hidden()


def test_the_form_shows_what_the_model_takes_and_says_what_would_be_changed(visit: Visit) -> None:
    page = visit.page
    choose_model(page, CHECKPOINT)
    page.get_by_text("Advanced").click()
    page.get_by_label("Negative prompt").fill("blurry")
    page.get_by_label("Steps").fill("20")
    page.get_by_label("Sampler").select_option("Euler a")
    page.get_by_label("Size").select_option("768x512")
    before = page.locator("#before")
    expect(before).to_be_hidden()
    expect(page.locator("#estimate")).to_contain_text("free, about")
    choose_model(page, "dall-e-3")
    for name in ("Negative prompt", "Sampler", "Guidance"):
        expect(page.get_by_label(name)).to_be_hidden()
    expect(before).to_contain_text("Left out: negative prompt and sampler")
    expect(before).to_contain_text("Changed: steps 20 → 4")
    expect(before).to_contain_text("If imagelabs has to answer: without steps")
    page.get_by_label("Pictures", exact=True).select_option("4")
    expect(page.locator("#estimate")).to_contain_text("$0.01 for 4 pictures")
    choose_model(page, "prodia/inference.nano-banana.txt2img.v2")
    expect(before).to_contain_text("Changed: size 768 × 512 → 1254 × 836")
    page.get_by_label("Pictures", exact=True).select_option("1")
    with page.expect_request(buys) as sent:
        generate(page)
    assert set(json.loads(sent.value.post_data or "")) == {"model", "prompt", "size", "n"}
    choose_model(page, CHECKPOINT)  # what it takes is there again
    expect(page.get_by_label("Negative prompt")).to_have_value("blurry")
    expect(page.get_by_label("Size")).to_have_value("768x512")


def test_a_model_that_cannot_edit_is_said_before_it_is_asked(visit: Visit) -> None:
    page = visit.page
    choose_model(page, "prodia/inference.nano-banana.txt2img.v2")
    add_picture(page)
    expect(page.locator("#before")).to_contain_text("can’t edit pictures")
    generate(page)
    expect(page.get_by_label("Model", exact=True)).to_be_focused()
    assert visit.posted == []
    choose_model(page, "prodia/inference.nano-banana.img2img.v2")
    generate(page)
    expect(page.locator(DONE)).to_be_visible()


def test_how_far_an_edit_goes_from_its_picture(visit: Visit) -> None:
    page = visit.page
    choose_model(page, CHECKPOINT)
    page.get_by_text("Advanced").click()
    expect(page.get_by_label("Strength")).to_be_hidden()
    add_picture(page)
    page.get_by_label("Strength").fill("0.4")
    remember_forms(page)
    generate(page)
    expect(page.locator(DONE)).to_be_visible()
    assert parts(page)["strength"] == [b"0.4"]


# --- results and gallery ----------------------------------------------------------------------------------------------


def settings_of(page: Page) -> dict[str, str]:
    read = "(names) => Object.fromEntries(names.map((name) => [name, document.getElementById(name).value]))"
    names = ["prompt", "model", "size", "n", "negative_prompt", "steps", "cfg", "seed", "sampler", "style", "quality"]
    values: dict[str, str] = page.evaluate(read, names)
    return values


def test_prompt_and_all_settings_come_back_exactly(visit: Visit) -> None:
    page = visit.page
    choose_model(page, CHECKPOINT)
    page.get_by_text("Advanced").click()
    for name, text in (("Negative prompt", "blurry"), ("Steps", "20"), ("Guidance", "6.5"), ("Seed", "41")):
        page.get_by_label(name).fill(text)
    page.get_by_label("Style").select_option("neon-punk")
    page.get_by_label("Sampler").select_option("DDIM")
    page.get_by_label("Size").select_option("512x768")
    page.get_by_label("Pictures", exact=True).select_option("2")
    generate(page, "First\nof two")
    expect(page.locator(DONE)).to_be_visible()
    expect(page.locator("#real-size")).to_have_text("512 × 768")
    first = settings_of(page)
    page.reload()
    choose_model(page, "dall-e-3")
    page.get_by_label("Prompt", exact=True).fill("Something else")
    page.locator("#gallery-list .thumb").first.click()
    dialog = page.get_by_role("dialog")
    expect(dialog).to_contain_text("neon-punk")
    expect(dialog).to_contain_text("6.5")
    dialog.get_by_role("button", name="Use again").click()
    expect(dialog).to_be_hidden()
    assert settings_of(page) == first
    page.locator("#gallery-list .thumb").first.click()
    dialog.get_by_role("button", name="Same seed").click()
    assert settings_of(page) == {**first, "seed": "42", "n": "1"}  # the newest is the second of the two


def test_what_a_picture_cost_is_told_with_who_says_so(visit: Visit) -> None:
    page = visit.page

    def priced(route: Route) -> None:
        answer = route.fetch()
        route.fulfill(
            response=answer, headers={**answer.headers, "x-images-cost": "0.005", "x-images-cost-source": "provider"}
        )

    page.route("**/v1/images/generations/*", priced)
    page.get_by_label("Pictures", exact=True).select_option("2")
    generate(page)
    expect(page.locator("#stage dl")).to_contain_text("Cost$0.005, told by the provider")
    page.get_by_role("button", name="Enlarge picture 1").click()
    expect(page.get_by_role("dialog")).to_contain_text("Cost$0.0025, told by the provider")


def test_pictures_are_enlarged_and_compared(visit: Visit) -> None:
    page = visit.page
    page.get_by_label("Pictures", exact=True).select_option("3")
    generate(page)
    page.get_by_role("button", name="Enlarge picture 2").click()
    dialog = page.get_by_role("dialog")
    expect(dialog.get_by_role("heading", name="Picture 2 of 3")).to_be_visible()
    page.keyboard.press("ArrowRight")
    expect(dialog.get_by_role("heading", name="Picture 3 of 3")).to_be_visible()
    expect(dialog.get_by_role("button", name="Next picture")).to_be_disabled()
    page.keyboard.press("Escape")
    page.get_by_role("button", name="Compare side by side").click()
    expect(dialog.get_by_role("img")).to_have_count(3)
    page.keyboard.press("Escape")
    expect(page.locator("#gallery-list li")).to_have_count(3)
    page.get_by_role("button", name="Compare", exact=True).click()
    for thumb in page.get_by_role("button", name="Compare: ").all()[:2]:
        thumb.click()
    page.get_by_role("button", name="Compare 2").click()
    expect(dialog.get_by_role("img")).to_have_count(2)
    expect(dialog).to_contain_text("Seed")
    expect(dialog.get_by_text(PROMPT, exact=True)).to_have_count(1)  # it is the same of both
    page.keyboard.press("Escape")
    page.get_by_role("button", name="Compare", exact=True).click()
    expect(page.get_by_role("button", name="Compare", exact=True)).to_be_disabled()
    expect(page.get_by_role("button", name="Clear all")).to_be_hidden()
    for thumb in page.get_by_role("button", name="Compare: ").all():
        thumb.click()
    page.get_by_role("button", name="Cancel comparing").click()
    expect(dialog).to_be_hidden()
    expect(page.get_by_role("button", name="Compare", exact=True)).to_be_focused()
    expect(page.get_by_role("button", name="Clear all")).to_be_visible()


def test_on_a_phone_two_pictures_fit_beside_each_other(browser: Browser, demo_url: str) -> None:
    with visiting(browser, demo_url, **PHONE) as visit:
        page = visit.page
        page.get_by_label("Pictures", exact=True).select_option("2")
        generate(page)
        page.get_by_role("button", name="Compare side by side").tap()
        dialog = page.get_by_role("dialog")
        left, right = (image.bounding_box() for image in dialog.get_by_role("img").all())
        assert left is not None
        assert right is not None
        assert left["x"] + left["width"] < right["x"]
        assert left["y"] == right["y"]
        whole = dialog.bounding_box()
        assert whole is not None
        assert (whole["x"], whole["width"]) == (0, PHONE["viewport"]["width"])


def test_the_cards_stay_equally_tall_whatever_they_show(visit: Visit) -> None:
    page = visit.page
    same = "() => ['form', 'stage'].map((id) => document.getElementById(id).offsetHeight)"
    form, stage = page.evaluate(same)
    assert form == stage
    generate(page, f"{PROMPT} [fault:failed]")
    expect(page.locator(ERROR)).to_be_visible()
    form, stage = page.evaluate(same)
    assert form == stage


def test_the_gallery_is_searched_exported_and_a_deletion_taken_back(visit: Visit, tmp_path: Path) -> None:
    page = visit.page
    for number, prompt in enumerate(("A lighthouse", "A fox at night", "Ünïcode café"), start=1):
        generate(page, prompt)
        expect(page.locator("#gallery-list li")).to_have_count(number)
    search = page.get_by_label("Search in the gallery")
    search.fill("fox dall-e")
    expect(page.locator("#gallery-list li")).to_have_count(1)
    search.fill("no such thing")
    expect(page.get_by_text("No picture here has these words.")).to_be_visible()
    search.fill("")
    page.locator("#gallery-list li").first.hover()
    page.get_by_role("button", name="Delete: Ünïcode café").click()
    expect(page.locator("#gallery-list li")).to_have_count(2)
    page.get_by_role("button", name="Undo the deletion").click()
    expect(page.locator("#gallery-list li")).to_have_count(3)
    with page.expect_download() as download:
        page.get_by_role("button", name="Export as ZIP").click()
    assert download.value.suggested_filename == "images-proxy.zip"
    download.value.save_as(tmp_path / "all.zip")
    with zipfile.ZipFile(tmp_path / "all.zip") as archive:
        assert archive.testzip() is None
        told = json.loads(archive.read("pictures.json"))
        assert [one["prompt"] for one in told] == ["Ünïcode café", "A fox at night", "A lighthouse"]
        assert told[1]["request"]["model"] == "dall-e-3"
        assert told[0]["file"] == "ünïcode-café-1.png"
        for one in told:
            assert Image.open(io.BytesIO(archive.read(one["file"]))).size == (1024, 1024)


# --- what the service is, and its key ---------------------------------------------------------------------------------


def test_the_page_says_that_it_is_a_demo_and_which_providers_it_uses(visit: Visit) -> None:
    page = visit.page
    expect(page.locator("#service")).to_contain_text("Demo: simulated pictures, nothing is bought.")
    page.get_by_text("Providers: 4 of 4").click()
    expect(page.locator("#providers-list")).to_contain_text("imagelabs is used.")
    expect(page.get_by_text("Faults to try in the demo")).to_be_visible()


def test_providers_that_are_not_used_are_told_with_what_to_do(visit: Visit) -> None:
    page = visit.page

    def without_token(route: Route) -> None:
        """Answer as the service does without a token; tests/e2e/test_models.py has that answer from the service."""
        told = route.fetch().json()
        del told["demo"]
        reasons = {"why_not": "PRODIA_TOKEN is not set", "how_to_use": "set PRODIA_TOKEN in the environment"}
        told["providers"][0] = {"name": "prodia", "used": False, **reasons}
        route.fulfill(json=told)

    page.route("**/v1/models", without_token)
    page.reload()
    page.get_by_text("Providers: 3 of 4").click()
    expect(page.locator("#providers-list")).to_contain_text(
        "prodia is not used: PRODIA_TOKEN is not set. To use it, set PRODIA_TOKEN in the environment."
    )
    expect(page.locator("#service")).to_have_text(re.compile(r"models ready, made by prodia-v1, prodia-legacy and im"))
    expect(page.get_by_text("Faults to try in the demo")).to_be_hidden()


def test_a_missing_key_is_asked_for_where_it_is_missing(browser: Browser, keyed_url: str) -> None:
    context = browser.new_context(**PHONE)
    page = context.new_page()
    page.goto(keyed_url)
    expect(page.locator("#service")).to_have_text("This service asks for an API key.")
    field = page.get_by_label("API key")
    expect(field).to_be_in_viewport()
    expect(field).to_have_accessible_description(re.compile("Whoever runs this service has one for you"))
    expect(page.get_by_role("button", name="Generate", exact=True)).to_be_disabled()
    expect(page.get_by_role("link", name="Models as JSON")).to_be_hidden()  # it would lead to a 401
    field.fill("sk-wrong")
    field.press("Enter")
    expect(page.locator("#service")).to_have_text("That key isn’t right.")
    field.fill("sk-of-the-page")
    field.press("Enter")
    expect(page.locator("#service")).to_contain_text("models ready")
    choose_model(page, "imagelabs/sdxl-turbo")
    generate(page, f"{PROMPT} [seconds:4]")
    expect(page.get_by_role("img", name="Preview of the unfinished picture")).to_be_visible()  # fetched with the key
    expect(page.locator(DONE)).to_be_visible()
    record = "JSON.stringify([localStorage, sessionStorage.running, document.getElementById('call').textContent])"
    assert "sk-of-the-page" not in page.evaluate(record)
    context.close()
