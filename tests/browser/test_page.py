"""The page at ``/`` in a real browser, against the running demo."""

import re
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, expect

from tests.browser.visit import (
    DONE,
    ERROR,
    OVERFLOWING,
    PHONE,
    PROMPT,
    Visit,
    choose_model,
    generate,
    open_page,
    picture_width,
    tab_to,
    visiting,
)

pytestmark = pytest.mark.browser

BRIGHTNESS = "() => getComputedStyle(document.body).backgroundColor.match(/\\d+/g).slice(0, 3).map(Number)"


@pytest.fixture
def visit(browser: Browser, demo_url: str) -> Iterator[Visit]:
    with visiting(browser, demo_url) as opened:
        yield opened


def test_a_picture_comes_with_what_was_changed_and_left_out(visit: Visit, demo_url: str) -> None:
    page = visit.page
    choose_model(page, "dall-e-3")
    page.get_by_text("Advanced").click()
    page.get_by_label("Steps").fill("9")
    page.get_by_label("Quality").select_option("hd")
    page.get_by_label("Style").select_option("vivid")
    page.get_by_label("Answer as").select_option("b64_json")
    generate(page)
    expect(page.locator(DONE)).to_be_visible()
    assert picture_width(page) > 0
    expect(page.get_by_role("img", name=PROMPT)).to_be_visible()
    differences = page.locator(".differences")
    expect(differences).to_contain_text("Steps 9 became 4")
    expect(differences).to_contain_text("Style vivid became cinematic")
    expect(differences).to_contain_text("Quality was left out")
    expect(page.locator("#stage dl")).to_contain_text(re.compile(r"Request idreq_[0-9a-f]{32}"))
    expect(page.locator("#announce")).to_contain_text("Picture ready")
    expect(page.locator("#gallery-list li")).to_have_count(1)
    assert visit.complaints == []
    assert [url for url in visit.fetched if not url.startswith((demo_url, "blob:", "data:"))] == []


def test_a_fallback_is_told(visit: Visit) -> None:
    page = visit.page
    choose_model(page, "dall-e-3")
    generate(page, "A lighthouse [fault:busy:1:30]")
    expect(page.locator(DONE)).to_be_visible()
    expect(page.locator(".differences")).to_contain_text("imagelabs answered instead of prodia, which was busy.")
    expect(page.locator("#stage")).not_to_contain_text("Made as asked")
    expect(page.locator("#announce")).to_contain_text("not quite as asked")
    expect(page.locator("#stage dl")).to_contain_text(re.compile(r"Seed\d+"))
    assert visit.complaints == []


def test_progress_is_shown_while_a_job_runs(visit: Visit) -> None:
    choose_model(visit.page, "imagelabs/sdxl-turbo")  # the dialect that tells its progress
    generate(visit.page, f"{PROMPT} [seconds:4]")
    expect(visit.page.get_by_role("progressbar")).to_be_visible()
    expect(visit.page.locator("#stage .percent")).to_have_text(re.compile(r"^\d+ %$"))
    expect(visit.page.get_by_role("img", name="Preview of the unfinished picture")).to_be_visible()
    expect(visit.page.locator(DONE)).to_be_visible()


def test_several_pictures_as_bytes(visit: Visit) -> None:
    page = visit.page
    page.get_by_label("Pictures", exact=True).select_option("3")
    page.get_by_text("Advanced").click()
    page.get_by_label("Answer as").select_option("b64_json")
    generate(page)
    expect(page.locator("#stage .picture")).to_have_count(3)
    expect(page.locator("#gallery-list li")).to_have_count(3)
    with page.expect_download() as download:
        page.get_by_role("link", name="Download picture 2").click()
    assert download.value.suggested_filename == "a-lighthouse-at-dusk-2.png"
    assert visit.complaints == []


def test_a_failure_says_what_happened_and_what_to_quote(visit: Visit) -> None:
    generate(visit.page, f"{PROMPT} [fault:failed]")
    stage = visit.page.locator(ERROR)
    expect(stage.locator(".failure-message")).not_to_be_empty()
    expect(stage.locator(".failure-advice")).not_to_be_empty()
    expect(stage).to_contain_text("image_generation_failed")
    expect(stage).to_contain_text(re.compile(r"req_[0-9a-f]{32}"))
    expect(stage.get_by_role("button", name="Try again")).to_have_count(0)  # x-should-retry: false
    expect(stage.get_by_role("button", name="Generate again")).to_be_visible()  # as the advice says
    expect(visit.page.get_by_role("button", name="Generate", exact=True)).to_be_enabled()


def test_an_empty_prompt_is_never_sent(visit: Visit) -> None:
    generate(visit.page, "  ")
    prompt = visit.page.get_by_label("Prompt", exact=True)
    expect(prompt).to_be_focused()
    expect(prompt).to_have_attribute("aria-invalid", "true")
    expect(prompt).to_have_accessible_description(re.compile("Say what the picture should show"))
    expect(visit.page.get_by_text("Say what the picture should show.")).not_to_have_count(0)
    assert visit.posted == []


@pytest.mark.parametrize("by", ["button", "Escape"])
def test_cancelling_abandons_the_job(visit: Visit, by: str) -> None:
    page = visit.page
    with page.expect_response(lambda response: response.request.method == "POST" and response.status == 202):
        generate(page, f"{PROMPT} by {by} [seconds:600]")
    with page.expect_response(lambda response: response.request.method == "DELETE") as abandoned:
        if by == "button":
            page.get_by_role("button", name="Cancel").click()
        else:
            page.keyboard.press(by)
    assert abandoned.value.status == 204
    expect(page.get_by_role("heading", name="Cancelled")).to_be_visible()
    expect(page.get_by_role("button", name="Generate", exact=True)).to_be_enabled()
    assert visit.complaints == []


def test_dark_and_light(browser: Browser, demo_url: str) -> None:
    context = browser.new_context(color_scheme="dark")
    page = open_page(context, demo_url).page
    assert max(page.evaluate(BRIGHTNESS)) < 60
    theme = page.get_by_role("button", name="Theme")
    theme.click()
    expect(theme).to_have_accessible_name("Theme: light")
    assert min(page.evaluate(BRIGHTNESS)) > 200
    page.reload()
    assert min(page.evaluate(BRIGHTNESS)) > 200
    theme.click()
    page.emulate_media(color_scheme="light")
    assert max(page.evaluate(BRIGHTNESS)) < 60
    context.close()


def test_nothing_overflows_at_400_pixels(browser: Browser, demo_url: str) -> None:
    context = browser.new_context(**{**PHONE, "viewport": {"width": 400, "height": 800}})
    page = open_page(context, demo_url).page
    assert page.evaluate(OVERFLOWING) == 0
    page.get_by_text("Advanced").click()
    page.get_by_label("Style").select_option("vivid")
    generate(page, "W" * 300)
    expect(page.locator(DONE)).to_be_visible()
    for tab in page.get_by_role("tab").all():
        tab.click()
        assert page.evaluate(OVERFLOWING) == 0, tab.inner_text()
    page.locator("#gallery-list .thumb").first.click()
    assert page.evaluate("document.getElementById('viewer').scrollWidth <= 400")
    page.keyboard.press("Escape")
    generate(page, f"{'W' * 300} [fault:failed]")
    expect(page.locator(ERROR)).to_be_visible()
    assert page.evaluate(OVERFLOWING) == 0
    context.close()


def test_everything_works_without_a_mouse(visit: Visit) -> None:
    page = visit.page
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    expect(page.get_by_label("Prompt", exact=True)).to_be_focused()
    page.keyboard.type(PROMPT)
    tab_to(page, "#generate")
    page.keyboard.press("Enter")
    expect(page.locator(DONE)).to_be_focused()
    expect(page.locator("#gallery-list li")).to_have_count(1)
    tab_to(page, "#gallery-list .thumb")
    page.keyboard.press("Enter")
    expect(page.get_by_role("dialog")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_be_hidden()
    expect(page.locator("#gallery-list .thumb")).to_be_focused()
    tab_to(page, "[role=tab]")
    page.keyboard.press("ArrowRight")
    expect(page.get_by_role("tab", name="Python")).to_be_focused()
    expect(page.get_by_role("tabpanel", name="Python")).to_be_visible()
    assert visit.complaints == []


def test_the_gallery_survives_a_reload_and_can_be_emptied(visit: Visit) -> None:
    page = visit.page
    thumbs = page.locator("#gallery-list .thumb")
    for count in (1, 2):
        generate(page, f"{PROMPT}, number {count}")
        expect(thumbs).to_have_count(count)
    page.reload()
    expect(thumbs).to_have_count(2)
    thumbs.first.click()
    dialog = page.get_by_role("dialog")
    expect(dialog).to_contain_text("number 2")
    page.wait_for_function("document.querySelector('#viewer img').naturalWidth > 400")
    with page.expect_download() as download:
        dialog.get_by_role("link", name="Download").click()
    assert download.value.suggested_filename == "a-lighthouse-at-dusk-number-2-1.png"
    dialog.get_by_role("button", name="Delete").click()
    expect(thumbs).to_have_count(1)
    clear = page.locator("#gallery-clear")
    clear.click()
    expect(clear).to_have_text("Really delete 1?")
    clear.click()
    expect(thumbs).to_have_count(0)
    page.reload()
    expect(page.locator("#gallery-hint")).to_contain_text("None so far")
    assert visit.complaints == []


def test_the_code_follows_the_form(visit: Visit, demo_url: str) -> None:
    page = visit.page
    page.get_by_label("Prompt", exact=True).fill('The artist\'s "studio"')
    page.get_by_label("Pictures", exact=True).select_option("2")
    page.get_by_text("Advanced").click()
    page.get_by_label("Seed").fill("7")
    curl = page.get_by_role("tabpanel", name="curl")
    expect(curl).to_contain_text(f"curl -sS {demo_url}/v1/images/generations")
    expect(curl).to_contain_text("""artist'\\''s \\"studio\\\"""")
    page.get_by_role("tab", name="Python").click()
    python = page.get_by_role("tabpanel", name="Python").locator("code")
    compile(python.inner_text(), "snippet", "exec")
    expect(python).to_contain_text('extra_body={"seed": 7}')
    page.get_by_role("tab", name="JavaScript").click()
    expect(page.get_by_role("tabpanel", name="JavaScript")).to_contain_text("  n: 2,\n  seed: 7,")
    page.get_by_role("tab", name="SillyTavern").click()
    expect(page.get_by_role("tabpanel", name="SillyTavern")).to_contain_text(re.compile(f"{demo_url}(?!/v1)"))


def test_copying_says_so(visit: Visit, demo_url: str) -> None:
    page = visit.page
    page.context.grant_permissions(["clipboard-read", "clipboard-write"], origin=demo_url)
    page.get_by_text("URL and key").click()
    page.get_by_role("button", name="Copy the base URL").click()
    expect(page.get_by_text("Copied to the clipboard")).to_be_attached()
    assert page.evaluate("navigator.clipboard.readText()") == f"{demo_url}/v1"


def test_a_typed_key_stays_in_the_tab(visit: Visit) -> None:
    page = visit.page
    page.get_by_text("URL and key").click()
    with page.expect_request("**/v1/models") as asked:
        page.get_by_label("API key").fill("sk-typed-in")
        page.keyboard.press("Tab")
    assert asked.value.headers["authorization"] == "Bearer sk-typed-in"
    page.get_by_role("button", name="Show").click()
    expect(page.get_by_label("API key")).to_have_attribute("type", "text")
    assert "sk-typed-in" not in page.evaluate(
        "JSON.stringify(localStorage) + document.getElementById('call').textContent"
    )
    page.reload()
    expect(page.get_by_label("API key")).to_have_value("sk-typed-in")
    other = page.context.new_page()
    other.goto(page.url)
    expect(other.get_by_label("API key")).to_have_value("")
