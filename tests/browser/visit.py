"""An open page in a real browser, and what a person does with it."""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from PIL import Image
from playwright.sync_api import Browser, BrowserContext, Page, Request, expect

PROMPT = "A lighthouse at dusk"
DONE = "#stage[data-state=done]"
ERROR = "#stage[data-state=error]"
RUNNING = "#stage[data-state=running]"
PHONE: dict[str, Any] = {"viewport": {"width": 390, "height": 844}, "is_mobile": True, "has_touch": True}
OVERFLOWING = "() => document.documentElement.scrollWidth - document.documentElement.clientWidth"


def buys(request: Request) -> bool:
    """Whether the request asks for a picture, as opposed to a dry run."""
    return "idempotency-key" in request.headers


@dataclass(slots=True)
class Visit:
    """An open page, and what its browser complained about, fetched, or ``posted`` to buy a picture meanwhile."""

    page: Page
    complaints: list[str] = field(default_factory=list)
    fetched: list[str] = field(default_factory=list)
    posted: list[str] = field(default_factory=list)


def open_page(context: BrowserContext, url: str) -> Visit:
    """Open the page in a new tab and wait until it knows the models."""
    page = context.new_page()
    visit = Visit(page)
    page.on("console", lambda message: visit.complaints.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: visit.complaints.append(str(error)))
    page.on("request", lambda request: visit.fetched.append(request.url))
    page.on("request", lambda request: visit.posted.append(request.url) if buys(request) else None)
    page.goto(url)
    expect(page.locator("#service")).to_contain_text("models ready")
    return visit


@contextmanager
def visiting(browser: Browser, url: str, **options: Any) -> Iterator[Visit]:
    """Visit in a context of its own, on a desktop unless ``options`` say otherwise."""
    context = browser.new_context(**{"viewport": {"width": 1280, "height": 900}, "color_scheme": "light", **options})
    try:
        yield open_page(context, url)
    finally:
        context.close()


def generate(page: Page, prompt: str = PROMPT) -> None:
    """Fill in the prompt and press Generate."""
    page.get_by_label("Prompt", exact=True).fill(prompt)
    page.get_by_role("button", name="Generate", exact=True).click()


def choose_model(page: Page, name: str) -> None:
    """Search for a model by its id and choose the first that is found."""
    expect(page.locator("#service")).to_contain_text("models ready")
    page.get_by_label("Model", exact=True).fill(name)
    page.get_by_label("Model", exact=True).press("Enter")
    expect(page.locator("#model-hint")).to_contain_text(name)


def picture_width(page: Page) -> int:
    """The width in pixels of the first picture on the stage, once it is loaded."""
    picture = page.locator("#stage .picture").first
    expect(picture).not_to_have_js_property("naturalWidth", 0)
    return int(picture.evaluate("picture => picture.naturalWidth"))


def shown_picture(page: Page) -> Image.Image:
    """The first picture on the stage."""
    address = page.locator("#stage .picture").first.get_attribute("src")
    assert address is not None
    return Image.open(io.BytesIO(page.request.get(address).body())).convert("RGB")


def picture_file(colour: str = "red", size: tuple[int, int] = (320, 240), kind: str = "PNG", **how: Any) -> bytes:
    """A picture of one colour as a file."""
    file = io.BytesIO()
    Image.new("RGB", size, colour).save(file, kind, **how)
    return file.getvalue()


def add_picture(page: Page, data: bytes | None = None, name: str = "red.png", kind: str = "image/png") -> None:
    """Choose a picture to edit."""
    before = page.locator("#inputs-list li").count()
    page.locator("#pictures").set_input_files({"name": name, "mimeType": kind, "buffer": data or picture_file()})
    expect(page.locator("#inputs-list li")).to_have_count(before + 1)


def paint(page: Page, *points: tuple[float, float]) -> None:
    """Draw a stroke with the mouse; ``points`` in shares of the picture."""
    box = page.locator("#mask-canvas").bounding_box()
    assert box is not None
    for number, (x, y) in enumerate(points):
        page.mouse.move(box["x"] + x * box["width"], box["y"] + y * box["height"], steps=4)
        if number == 0:
            page.mouse.down()
    page.mouse.up()


def tab_to(page: Page, selector: str) -> None:
    """Press Tab until the element has the focus."""
    for _ in range(90):
        if page.evaluate("(wanted) => document.activeElement.matches(wanted)", selector):
            return
        page.keyboard.press("Tab")
    raise AssertionError(f"{selector} can't be reached with Tab")
