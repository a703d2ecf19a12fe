"""The usage page: who may see what, keys from their making to their end, and the same care for everybody."""

import csv
import json
import re
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect

from tests.browser.conftest import served
from tests.browser.test_access import SMALL, check
from tests.browser.visit import OVERFLOWING, PHONE, PROMPT, tab_to

pytestmark = pytest.mark.browser

ADMIN = "admin-key-of-the-page"
LAPTOP = "sk-of-my-laptop"
MODEL = "prodia/inference.flux-fast.schnell.txt2img.v2"
HOSTILE = "=<img src=x onerror=document.title=1>"
PRICE, MODES = "$0.0025", ["light", "dark", "phone"]


def called(url: str, path: str, secret: str, **body: Any) -> dict[str, Any]:
    """Return the JSON that a POST is answered with, whatever the status."""
    headers = {"Authorization": f"Bearer {secret}", "Content-Type": "application/json"}
    request = urllib.request.Request(url + path, json.dumps(body).encode(), headers)  # noqa: S310 (loopback)
    try:
        with urllib.request.urlopen(request) as answer:  # noqa: S310
            found: dict[str, Any] = json.load(answer)
    except urllib.error.HTTPError as refused:
        found = json.load(refused)
    return found


def picture(url: str, secret: str, prompt: str = PROMPT, n: int = 1) -> dict[str, Any]:
    return called(url, "/v1/images/generations", secret, model=MODEL, prompt=prompt, n=n)


@dataclass(slots=True)
class House:
    """A service with keys of a family, which has bought some pictures: of one job nobody knows what became."""

    url: str
    ann: str


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    folder = tmp_path_factory.mktemp("cache")
    (folder / "config.toml").write_text('[limits]\nbudget = ["9/month"]\n[limits.owners.family]\nbudget = ["3/week"]')
    file, given = str(folder / "config.toml"), f"laptop={LAPTOP}"
    with served(folder, "--config", file, IMAGES_PROXY_ADMIN_KEY=ADMIN, IMAGES_PROXY_KEYS=given) as url:
        limits = {"budget": ["1/month", "0.02/day"], "pictures": ["8/day"], "per_minute": 60, "expires": "90d"}
        ann = called(url, "/key/generate", ADMIN, name="ann", owner="family", models=["prodia/*"], **limits)["key"]
        called(url, "/key/generate", ADMIN, name=HOSTILE, count_by="user", per_user_budget=["1/month"])
        called(url, "/key/generate", ADMIN, name="old app")
        called(url, "/key/block", ADMIN, key="old app")
        assert len(picture(url, ann, n=2)["data"]) == 2
        assert picture(url, ann, f"{PROMPT} [fault:drop]")["error"]["code"] == "submit_outcome_unknown"
        assert len(picture(url, LAPTOP)["data"]) == 1
        yield House(url, ann)


@contextmanager
def looking(browser: Browser, url: str, key: str = "", mode: str = "light") -> Iterator[Page]:
    """Open the page with a key typed in, in a context of its own; nothing may go wrong in its scripts."""
    phone = {**PHONE, "color_scheme": "dark"}
    desktop = {"viewport": {"width": 1280, "height": 900}, "color_scheme": "dark" if mode == "dark" else "light"}
    context: BrowserContext = browser.new_context(**(phone if mode == "phone" else desktop))
    page = context.new_page()
    broken: list[str] = []
    fetched: list[str] = []
    page.on("pageerror", lambda error: broken.append(str(error)))
    # Refusals by status are part of asking who one is; whatever the policy refuses is not.
    page.on("console", lambda said: broken.append(said.text) if "Content Security" in said.text else None)
    page.on("request", lambda request: fetched.append(request.url))
    page.goto(f"{url}/usage")
    try:
        if key:
            enter(page, key)
        yield page
        assert broken == []
        assert [address for address in fetched if not address.startswith((url, "blob:"))] == []
        assert context.cookies() == []
    finally:
        context.close()


def enter(page: Page, key: str) -> None:
    """Type a key in."""
    field = page.get_by_label("API key or admin key")
    expect(page.locator("#service")).not_to_have_text("Asking the service…")
    if not field.is_visible():
        page.locator("#entry summary").click()
    field.fill(key)
    field.press("Enter")


def spent(page: Page, when: str = "Today") -> str:
    """Return what the card of a period says was spent."""
    return page.get_by_role("region", name=when).locator(".sum.spent dd").inner_text()


def card(page: Page, name: str) -> Any:
    return page.locator("#keys-list > li").filter(has=page.get_by_role("heading", name=name))


# --- who sees what ----------------------------------------------------------------------------------------------------


def test_without_a_key_nothing_is_shown(browser: Browser, house: House) -> None:
    with looking(browser, house.url) as page:
        expect(page.locator("#service")).to_have_text("This service asks for an API key.")
        expect(page.get_by_label("API key or admin key")).to_be_visible()
        expect(page.locator("#report")).to_be_hidden()
        expect(page.locator("body")).not_to_contain_text("ann")


def test_a_wrong_key_after_a_right_one_leaves_nothing_on_the_page(browser: Browser, house: House) -> None:
    with looking(browser, house.url, house.ann) as page:
        expect(page.locator("#report")).to_be_visible()
        enter(page, "sk-wrong")
        expect(page.locator("#service[data-state=bad]")).to_contain_text("key")
        expect(page.locator("#report")).to_be_hidden()
        enter(page, "not to be sent")
        expect(page.locator("#service[data-state=bad]")).to_contain_text("can’t be sent")


def test_a_plain_key_sees_its_own_usage_and_no_other(browser: Browser, house: House) -> None:
    with looking(browser, house.url, house.ann) as page:
        expect(page.locator("#service")).to_have_text("Key “ann”: its own usage.")
        expect(page.locator("#report-title")).to_be_focused()
        assert re.sub(r"\s+", " ", spent(page)) == "$0.005 2 pictures"
        expect(page.locator(".limit-line")).to_have_text(
            [
                "The whole service: $9.00 a month$8.99 left",
                "All keys of family: $3.00 a week$2.9925 left",
                "$0.02 a day$0.0125 left",
                "8 pictures a day5 pictures left",
                "$1.00 a month$0.9925 left",
            ]
        )
        expect(page.get_by_role("img", name="8 pictures a day: 2 pictures spent, 1 picture unknown")).to_be_visible()
        expect(page.locator("#unknown-list li")).to_have_count(1)
        expect(page.locator("#jobs-table tbody tr")).to_have_count(3)
        for name in ("It was paid", "New key", "Change", "Disable"):
            expect(page.get_by_role("button", name=name)).to_have_count(0)
        expect(page.locator("main")).not_to_contain_text("laptop")
        expect(page.locator("#plot-by")).to_be_hidden()


def test_the_admin_sees_everybody_and_no_prompt(browser: Browser, house: House) -> None:
    with looking(browser, house.url, ADMIN) as page:
        expect(page.locator("#service")).to_have_text("Admin key: everybody’s usage.")
        expect(card(page, "ann")).to_contain_text("$0.005 for 2 pictures this month · $0.0025 unknown")
        expect(card(page, "ann").locator(".limit")).to_have_count(3)
        shared = page.locator("#keys-list > li").first.locator(".limit-line")
        expect(shared).to_have_text(
            ["The whole service: $9.00 a month$8.99 left", "All keys of family: $3.00 a week$2.9925 left"]
        )
        expect(card(page, "laptop")).to_contain_text("$0.0025 for 1 picture this month")
        expect(card(page, "old app")).to_contain_text("Disabled")
        # Names are text, whatever they look like.
        expect(page.get_by_role("heading", name=HOSTILE)).to_be_visible()
        expect(page).to_have_title("Usage · images-proxy")
        row = page.locator("#models-table tbody tr")
        expect(row).to_have_count(1)
        expect(row.locator(".number")).to_have_text(["3", "$0.0075", PRICE, PRICE])
        expect(page.locator("#plot svg")).to_have_accessible_name(re.compile(r"^\$0\.0075 in 30 days by model: "))
        page.get_by_text("The same as a table").click()
        expect(page.locator("#plot-table tbody tr")).to_have_count(1)
        page.locator("#plot-by").select_option("key")
        expect(page.locator("#plot svg")).to_have_accessible_name(re.compile("ann \\$0.005, laptop \\$0.0025"))
        expect(page.locator("#plot .series-1").first).to_be_visible()
        page.locator("#plot-unit").select_option("pictures")
        expect(page.locator("#plot svg")).to_have_accessible_name(
            re.compile(r"^3 pictures in 30 days .*ann 2, laptop 1")
        )
        page.locator("#plot-days").select_option("7")
        expect(page.locator("#plot svg")).to_have_accessible_name(re.compile("in 7 days"))
        expect(page.locator("html")).not_to_contain_text(PROMPT)


def test_a_service_without_keys_shows_its_usage_and_asks_for_the_admin_key_only_for_more(
    browser: Browser, demo_url: str
) -> None:
    with looking(browser, demo_url) as page:
        expect(page.locator("#service")).to_contain_text("asks for no key")
        expect(page.locator("#service")).to_contain_text("The admin key shows all")
        expect(page.locator("#administration")).to_be_hidden()
        assert spent(page).startswith("$0.00")
        expect(page.locator("#jobs-table")).to_have_text("No picture was asked for so far.")
        picture(demo_url, "")
        page.get_by_role("button", name="Refresh").click()
        expect(page.locator("#jobs-table tbody tr")).to_have_count(1)


def test_without_an_admin_key_the_page_says_how_to_set_one(browser: Browser, tmp_path: Path) -> None:
    with (
        served(tmp_path, demo=False, IMAGES_PROXY_KEYS="sk-of-the-page") as url,
        looking(browser, url, "sk-of-the-page") as page,
    ):
        expect(page.locator("#administration")).to_contain_text("IMAGES_PROXY_ADMIN_KEY")
        expect(page.get_by_role("button", name="New key")).to_be_hidden()
        check(page, "administration is off")


def test_the_key_stays_in_the_tab_and_can_be_forgotten(browser: Browser, house: House) -> None:
    with looking(browser, house.url, house.ann) as page:
        expect(page.locator("#report")).to_be_visible()
        assert house.ann not in page.evaluate("JSON.stringify(localStorage) + document.documentElement.outerHTML")
        page.reload()
        expect(page.locator("#service")).to_have_text("Key “ann”: its own usage.")
        other = page.context.new_page()
        other.goto(page.url)
        expect(other.locator("#service")).to_have_text("This service asks for an API key.")
        # The playground buys with a key of its own: the admin's would be refused there.
        page.goto(house.url)
        expect(page.get_by_label("API key")).to_have_value("")
        page.get_by_role("link", name="Usage and keys").click()
        page.locator("#entry summary").click()
        page.get_by_role("button", name="Forget the key").click()
        expect(page.locator("#service")).to_have_text("This service asks for an API key.")
        expect(page.locator("#report")).to_be_hidden()
        assert house.ann not in page.evaluate("JSON.stringify(sessionStorage)")


# --- what is done there -----------------------------------------------------------------------------------------------


def test_a_key_from_its_making_to_its_end_by_keyboard_alone(browser: Browser, tmp_path: Path) -> None:
    with served(tmp_path, IMAGES_PROXY_ADMIN_KEY=ADMIN) as url, looking(browser, url, ADMIN) as page:
        page.context.grant_permissions(["clipboard-read", "clipboard-write"], origin=url)
        expect(page.locator("#keys-hint")).to_contain_text("None made so far")
        press(page, "#key-new")
        page.keyboard.press("Enter")  # in the empty field for the name
        expect(page.get_by_label("Name")).to_have_accessible_description(re.compile("Give the key a name"))
        page.keyboard.type("tom")
        tab_to(page, "#editor-budget")
        page.keyboard.type("five")
        page.keyboard.press("Enter")
        expect(page.get_by_label("Dollars", exact=True)).to_have_accessible_description(
            re.compile("is no limit such as")
        )
        expect(page.get_by_label("Dollars", exact=True)).to_be_focused()
        page.keyboard.press("Control+A")
        page.keyboard.type("1/month, 0.0025/day")
        page.keyboard.press("Enter")
        expect(page.get_by_role("button", name="Copy", exact=True)).to_be_focused()
        page.keyboard.press("Enter")
        expect(page.get_by_text("Copied to the clipboard")).to_be_attached()
        secret = page.evaluate("navigator.clipboard.readText()")
        check(page, "a secret")
        page.keyboard.press("Escape")
        expect(page.get_by_role("dialog")).to_be_hidden()
        assert secret not in page.evaluate("document.documentElement.outerHTML + JSON.stringify(sessionStorage)")

        assert len(picture(url, secret)["data"]) == 1
        assert picture(url, secret, "another")["error"]["type"] == "insufficient_quota"
        press(page, "#refresh")
        expect(card(page, "tom").locator(".limit[data-out=true]")).to_contain_text("$0.00 left")

        press(page, "[aria-label='Change tom']")
        expect(page.get_by_label("Name")).to_be_focused()
        expect(page.get_by_label("Dollars", exact=True)).to_have_value("0.0025/day, 1/month")
        tab_to(page, "#editor-budget")
        page.keyboard.press("Control+A")
        page.keyboard.type("1/month")
        page.keyboard.press("Enter")
        expect(card(page, "tom").locator(".limit")).to_have_count(1)
        expect(page.get_by_role("button", name="Change tom")).to_be_focused()
        assert "data" in picture(url, secret, "a third")

        press(page, "[aria-label='Disable tom']")
        expect(page.get_by_role("button", name="Enable tom")).to_be_focused()
        assert picture(url, secret)["error"]["code"] == "invalid_api_key"
        page.keyboard.press("Enter")
        expect(page.get_by_role("button", name="Disable tom")).to_be_focused()

        press(page, "[aria-label='Change tom']")
        page.get_by_label("With a new secret").select_option("0s")
        for _ in range(2):
            press(page, ".editor-more .joined button")
        expect(page.get_by_role("heading", name="New secret of tom")).to_be_visible()
        assert picture(url, secret)["error"]["code"] == "invalid_api_key"
        page.keyboard.press("Escape")

        press(page, "[aria-label='Change tom']")
        press(page, "#editor summary:has(+ .history)")
        expect(page.locator(".history li")).to_have_count(5)
        expect(page.locator(".history")).to_contain_text("admin (127.0.0.1)")
        for _ in range(2):
            press(page, ".editor-more > button")
        expect(card(page, "tom").get_by_role("button")).to_have_count(0)
        expect(card(page, "tom")).to_contain_text("2 pictures this month")


def press(page: Page, selector: str) -> None:
    """Go to an element with Tab and press Enter."""
    tab_to(page, selector)
    page.keyboard.press("Enter")


@pytest.mark.parametrize(("words", "total"), [("It was paid", "$0.0025"), ("It was free", "$0.00")])
def test_a_person_settles_an_unknown_outcome(browser: Browser, tmp_path: Path, words: str, total: str) -> None:
    with served(tmp_path, IMAGES_PROXY_ADMIN_KEY=ADMIN, IMAGES_PROXY_KEYS=LAPTOP) as url:
        picture(url, LAPTOP, f"{PROMPT} [fault:drop]")
        with looking(browser, url, ADMIN) as page:
            expect(page.locator("#unknown-list li")).to_have_count(1)
            expect(page.locator(".sum.unknown[data-some=true]")).to_have_count(2)
            page.get_by_role("button", name=words).click()
            expect(page.locator("#unknown")).to_be_hidden()
            expect(page.locator(".sum.unknown[data-some=true]")).to_have_count(0)
            assert spent(page).startswith(total)
            expect(page.locator("#report-title")).to_be_focused()


def test_figures_stay_when_the_service_is_gone_for_a_moment_and_go_with_another_key(
    browser: Browser, tmp_path: Path
) -> None:
    with served(tmp_path, IMAGES_PROXY_ADMIN_KEY=ADMIN) as url, looking(browser, url, ADMIN) as page:
        expect(page.locator("#report")).to_be_visible()
        page.context.set_offline(True)
        page.get_by_role("button", name="Refresh").click()
        expect(page.locator("#service")).to_have_text("No answer came from the service.")
        expect(page.locator("#report")).to_be_visible()
        enter(page, "another-key")
        expect(page.locator("#report")).to_be_hidden()
        page.context.set_offline(False)


def test_what_is_downloaded_holds_no_formula(browser: Browser, tmp_path: Path) -> None:
    with served(tmp_path, IMAGES_PROXY_ADMIN_KEY=ADMIN) as url:
        secret = called(url, "/key/generate", ADMIN, name='=cmd|" /C"!A0, x')["key"]
        picture(url, secret)
        with looking(browser, url, ADMIN) as page:
            for name, button in (("jobs", "Download jobs as CSV"), ("usage", "Download days as CSV")):
                page.locator("#plot-by").select_option("key")
                expect(page.locator("#plot svg")).to_have_accessible_name(re.compile("cmd"))
                with page.expect_download() as download:
                    page.get_by_role("button", name=button).click()
                assert re.fullmatch(rf"{name}-\d{{4}}-\d\d-\d\d\.csv", download.value.suggested_filename)
                with Path(download.value.path()).open(encoding="utf-8", newline="") as file:
                    rows = [row for row in csv.DictReader(file) if "cmd" in row["key"]]
                assert [row["key"] for row in rows] == ['\'=cmd|" /C"!A0, x']
                assert rows[0].get("spent", rows[0].get("amount")) == "0.0025"


def test_small_series_of_the_plot_become_one(browser: Browser, demo_url: str) -> None:
    with looking(browser, demo_url) as page:
        found = page.evaluate(
            """async () => {
              const { seriesOf } = await import('/page/plot.js');
              const rows = Array.from({ length: 9 }, (_, at) => (
                { day: '2026-11-0' + (1 + at % 2), name: 'm' + at, spent: 9 - at }));
              rows.push({ day: '2026-10-31', name: 'm0', spent: 100 });
              return seriesOf(rows, ['2026-11-01', '2026-11-02'], (row) => row.name, (row) => row.spent);
            }"""
        )
    assert [one["name"] for one in found] == ["m0", "m1", "m2", "m3", "m4", "4 others"]
    assert found[0]["values"] == [9, 0]
    assert found[-1] == {"name": "4 others", "values": [4, 6], "total": 10}


# --- for everybody ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", MODES)
def test_axe_finds_nothing(browser: Browser, house: House, mode: str) -> None:
    with looking(browser, house.url, mode=mode) as page:
        expect(page.locator("#service")).to_contain_text("asks for an API key")
        check(page, "no key")
        enter(page, "sk-wrong")
        expect(page.locator("#service[data-state=bad]")).not_to_contain_text("asks for")
        check(page, "a wrong key")
        enter(page, house.ann)
        expect(page.locator("#report")).to_be_visible()
        check(page, "a plain key")
        enter(page, ADMIN)
        expect(page.get_by_role("button", name="It was paid")).to_be_visible()
        page.get_by_text("The same as a table").click()
        page.locator("#plot-by").select_option("key")
        expect(page.locator("#plot svg")).to_have_accessible_name(re.compile("laptop"))
        check(page, "the admin key")
        page.get_by_role("button", name="New key").click()
        page.get_by_text("End users behind").click()
        check(page, "a new key")
        page.get_by_role("button", name="Make the key").click()
        expect(page.locator(".field-error")).to_be_visible()
        check(page, "a mistake in a new key")
        page.keyboard.press("Escape")
        page.get_by_role("button", name="Change ann").click()
        page.get_by_text("What was done to it").click()
        expect(page.locator(".history li")).not_to_have_count(0)
        check(page, "a key to be changed")


@pytest.mark.parametrize("mode", ["light", "phone"])
def test_axe_finds_nothing_where_nothing_was_used(browser: Browser, demo_url: str, mode: str) -> None:
    with looking(browser, demo_url, mode=mode) as page:
        expect(page.locator("#report")).to_be_visible()
        check(page, "an empty ledger")


def test_on_a_phone_nothing_overflows_and_everything_is_large_enough_for_a_finger(
    browser: Browser, house: House
) -> None:
    with looking(browser, house.url, ADMIN, "phone") as page:
        expect(page.get_by_role("button", name="Change ann")).to_be_visible()
        page.get_by_text("The same as a table").tap()
        assert page.evaluate(SMALL) == []
        assert page.evaluate(OVERFLOWING) == 0
        page.get_by_role("button", name="Change ann").tap()
        assert page.evaluate(SMALL) == []
        assert page.evaluate("document.getElementById('editor').scrollWidth <= window.innerWidth")
