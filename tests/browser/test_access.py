"""The page for everybody: no finding of axe in any state, everything by keyboard and by finger, on a phone."""

from collections.abc import Iterator
from functools import cache
from importlib.resources import files
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.browser.visit import (
    DONE,
    ERROR,
    OVERFLOWING,
    PHONE,
    PROMPT,
    RUNNING,
    Visit,
    add_picture,
    choose_model,
    generate,
    paint,
    tab_to,
    visiting,
)

pytestmark = pytest.mark.browser

# Links in a line of text may be smaller: https://www.w3.org/WAI/WCAG22/Understanding/target-size-enhanced.html
SMALL = """() => [...document.querySelectorAll('a, button, input, select, textarea, summary, [role=option]')]
  .filter((node) => node.checkVisibility({ visibilityProperty: true, opacityProperty: true })
                    && !node.matches('.unseen, .skip, p a, [disabled]'))
  .map((node) => [node.outerHTML.slice(0, 90), node.getBoundingClientRect()])
  .filter(([, { width, height }]) => width > 0 && (height < 43.5 || width < 43.5))
  .map(([text, { width, height }]) => `${Math.round(width)} x ${Math.round(height)}: ${text}`)"""


@cache
def axe() -> str:
    """https://github.com/dequelabs/axe-core, as its makers publish it."""
    return files("axe_playwright_python").joinpath("axe.min.js").read_text(encoding="utf-8")


def check(page: Page, state: str) -> None:
    """Let axe look at the page as it is: no rule of it may be broken."""
    if not page.evaluate("typeof window.axe === 'object'"):
        page.evaluate(axe())
    # Half-way from one colour to another nothing can be judged.
    page.evaluate(
        "for (const one of document.getAnimations()) if (one.effect.getTiming().iterations === 1) one.finish()"
    )
    found = page.evaluate("axe.run(document, { resultTypes: ['violations'] })")
    told = [f"{one['id']}: {node['html'][:160]}" for one in found["violations"] for node in one["nodes"]]
    assert told == [], state


@pytest.fixture(params=["light", "dark", "phone"])
def visit(request: pytest.FixtureRequest, browser: Browser, demo_url: str) -> Iterator[Visit]:
    options = {**PHONE, "color_scheme": "dark"} if request.param == "phone" else {"color_scheme": request.param}
    with visiting(browser, demo_url, **options) as opened:
        yield opened


def test_axe_finds_nothing_in_the_form(visit: Visit) -> None:
    page = visit.page
    check(page, "nothing done yet")
    page.get_by_text("URL and key").click()
    page.get_by_text("Providers: 4 of 4").click()
    page.get_by_text("Faults to try").click()
    choose_model(page, "prodia-v1/dreamshaper_8")
    page.get_by_text("Advanced").click()
    page.get_by_label("Negative prompt").fill("blurry")
    check(page, "all unfolded")
    page.get_by_label("Model", exact=True).click()
    check(page, "a list of models")
    page.keyboard.type("nothing like that")
    check(page, "no model found")
    page.keyboard.press("Escape")
    choose_model(page, "dall-e-3")
    expect(page.locator("#before")).to_be_visible()
    page.get_by_role("button", name="Generate", exact=True).click()
    expect(page.locator("#prompt-error")).to_be_visible()
    check(page, "an empty prompt")
    add_picture(page)
    page.get_by_role("button", name="Paint a mask").click()
    paint(page, (0.3, 0.2), (0.7, 0.2))
    check(page, "painting a mask")
    page.get_by_role("button", name="Use the mask").click()
    check(page, "a picture with a mask")


def test_axe_finds_nothing_in_the_results(visit: Visit) -> None:
    page = visit.page
    generate(page, f"{PROMPT} [seconds:600]")
    expect(page.locator(RUNNING)).to_be_visible()
    check(page, "running")
    page.keyboard.press("Escape")
    check(page, "cancelled")
    page.get_by_label("Pictures", exact=True).select_option("2")
    generate(page, f"{PROMPT} [fault:busy:1:30]")
    expect(page.locator(DONE)).to_be_visible()
    expect(page.locator("#gallery-list li")).to_have_count(2)
    check(page, "two pictures, after a fallback")
    page.get_by_role("button", name="Enlarge picture 1").click()
    check(page, "enlarged")
    page.keyboard.press("Escape")
    page.get_by_role("button", name="Compare side by side").click()
    check(page, "side by side")
    page.keyboard.press("Escape")
    page.get_by_role("button", name="Compare", exact=True).click()
    page.get_by_role("button", name="Compare: ").first.click()
    check(page, "choosing what to compare")
    page.get_by_role("button", name="Cancel comparing").click()
    page.get_by_label("Search in the gallery").fill("nothing like that")
    check(page, "nothing found in the gallery")
    page.get_by_label("Search in the gallery").fill("")
    page.locator("#stage").get_by_role("button", name="Edit this one").first.click()
    check(page, "something said in passing")
    page.get_by_role("button", name="Remove picture 1").click()
    generate(page, f"{PROMPT} [fault:failed]")
    expect(page.locator(ERROR)).to_be_visible()
    check(page, "failed")


@pytest.mark.parametrize("options", [{}, PHONE], ids=["desktop", "phone"])
def test_axe_finds_nothing_where_a_key_is_missing(browser: Browser, keyed_url: str, options: dict[str, Any]) -> None:
    context = browser.new_context(**options)
    page = context.new_page()
    page.goto(keyed_url)
    expect(page.locator("#service")).to_contain_text("API key")
    check(page, "no key")
    context.close()


def test_on_a_phone_generate_is_seen_and_everything_is_large_enough_for_a_finger(
    browser: Browser, demo_url: str
) -> None:
    with visiting(browser, demo_url, **PHONE) as visit:
        page = visit.page
        button = page.get_by_role("button", name="Generate", exact=True)
        expect(button).to_be_in_viewport(ratio=1)
        expect(page.get_by_label("Prompt", exact=True)).to_be_in_viewport(ratio=1)
        page.get_by_text("Advanced").tap()
        expect(button).to_be_in_viewport(ratio=1)
        assert page.evaluate(SMALL) == []
        page.get_by_label("Pictures", exact=True).select_option("2")
        generate(page)
        expect(page.locator("#gallery-list li")).to_have_count(2)
        assert page.evaluate(SMALL) == []
        assert page.evaluate(OVERFLOWING) == 0
        page.locator("#gallery-list .thumb").first.tap()
        dialog = page.get_by_role("dialog")
        assert page.evaluate(SMALL) == []
        dialog.get_by_role("button", name="Delete").tap()
        expect(page.locator("#gallery-list li")).to_have_count(1)
        assert page.evaluate(SMALL) == []
        page.locator("#stage").get_by_role("button", name="Edit this one").first.tap()
        page.get_by_role("button", name="Paint a mask").tap()
        assert page.evaluate(SMALL) == []
        assert page.evaluate("document.getElementById('mask').scrollHeight <= window.innerHeight + 1")
        page.get_by_role("button", name="Cancel").tap()
        page.get_by_label("Model", exact=True).tap()
        assert page.evaluate(SMALL) == []
        assert page.evaluate(OVERFLOWING) == 0


def test_an_edit_without_a_mouse(browser: Browser, demo_url: str) -> None:
    with visiting(browser, demo_url) as visit:
        page = visit.page
        page.keyboard.press("Tab")
        page.keyboard.press("Enter")
        page.keyboard.type(PROMPT)
        page.keyboard.press("Control+Enter")
        expect(page.locator(DONE)).to_be_focused()
        expect(page.locator("#gallery-list li")).to_have_count(1)
        tab_to(page, "#stage .enlarge")
        page.keyboard.press("Enter")
        expect(page.get_by_role("dialog")).to_be_visible()
        page.keyboard.press("Escape")
        expect(page.locator("#stage .enlarge")).to_be_focused()
        tab_to(page, "figcaption button")
        page.keyboard.press("Enter")
        expect(page.get_by_label("Prompt", exact=True)).to_be_focused()
        tab_to(page, "#inputs-list button")
        page.keyboard.press("Enter")
        expect(page.locator("#mask-canvas")).to_be_focused()
        page.keyboard.press("Space")
        page.keyboard.press("Shift+ArrowRight")
        tab_to(page, "#mask-invert")
        page.keyboard.press("Enter")
        tab_to(page, "#mask-done")
        page.keyboard.press("Enter")
        expect(page.get_by_role("button", name="Edit mask")).to_be_focused()
        tab_to(page, "#model")
        page.keyboard.press("ArrowDown")
        page.keyboard.press("ArrowDown")
        page.keyboard.press("Enter")
        expect(page.locator("#model-hint")).to_contain_text("dall-e-2")
        tab_to(page, "#generate")
        page.keyboard.press("Enter")
        expect(page.locator(DONE)).to_be_visible()
        expect(page.locator("#gallery-list li")).to_have_count(2)
        assert visit.complaints == []


def test_less_motion_where_it_is_wished(browser: Browser, demo_url: str) -> None:
    with visiting(browser, demo_url, reduced_motion="reduce") as visit:
        page = visit.page
        generate(page, f"{PROMPT} [seconds:600]")
        expect(page.locator(RUNNING)).to_be_visible()
        assert page.evaluate("document.getAnimations().length") == 0
        page.keyboard.press("Escape")
