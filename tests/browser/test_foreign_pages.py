"""A page of another origin in the owner's browser must not spend the owner's money at a service without keys."""

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, sync_playwright

from tests.browser.conftest import CHROMIUM, FLAGS

pytestmark = pytest.mark.browser

FORM = """<form method=post enctype=text/plain action="{demo}/v1/images/generations">
<input name='{{"prompt":"bought by a foreign form","x":"' value='"}}'><button>go</button></form>"""


@pytest.fixture(scope="module")
def fooled_browser() -> Iterator[Browser]:
    """A Chromium for which evil.test is this machine, as after DNS rebinding."""
    if CHROMIUM is None:
        pytest.skip("no chromium, chromium-browser or google-chrome on the PATH")
    with sync_playwright() as playwright:
        flags = [*FLAGS, "--host-resolver-rules=MAP evil.test 127.0.0.1"]
        started = playwright.chromium.launch(executable_path=str(Path(CHROMIUM)), args=flags)
        yield started
        started.close()


@pytest.fixture(scope="module")
def foreign_port(demo_url: str) -> Iterator[int]:
    """The port of a web server with a page that wants pictures."""

    class Page(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = FORM.format(demo=demo_url).encode()
            self.send_response(200)
            self.send_header("content-type", "text/html")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 (its parent's name)
            pass

    server = HTTPServer(("127.0.0.1", 0), Page)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server.server_port
    server.shutdown()
    server.server_close()


FETCH = """async ([url, type]) => {
  try {
    const answer = await fetch(url, {method: "POST", headers: {"content-type": type}, body: '{"prompt":"a"}'});
    return [answer.status, (await answer.json()).error?.code ?? null];
  } catch (error) { return [0, error.name]; }
}"""


def test_a_foreign_page_is_refused_without_and_with_preflight(
    fooled_browser: Browser, foreign_port: int, demo_url: str
) -> None:
    page = fooled_browser.new_page()
    page.goto(f"http://evil.test:{foreign_port}/")
    url = f"{demo_url}/v1/images/generations"
    assert page.evaluate(FETCH, [url, "text/plain"]) == [403, "origin_not_allowed"]
    assert page.evaluate(FETCH, [url, "application/json"]) == [0, "TypeError"]
    page.close()


def test_a_foreign_form_is_refused(fooled_browser: Browser, foreign_port: int) -> None:
    page = fooled_browser.new_page()
    page.goto(f"http://evil.test:{foreign_port}/")
    with page.expect_navigation() as navigation:
        page.get_by_role("button").click()
    assert navigation.value.status == 403
    assert "origin_not_allowed" in page.content()
    page.close()


def test_a_rebound_name_is_refused(fooled_browser: Browser, demo_url: str) -> None:
    page = fooled_browser.new_page()
    answer = page.goto(f"http://evil.test:{urlsplit(demo_url).port}/v1/models")
    assert answer is not None
    assert answer.status == 403
    assert "allowed_hosts" in page.content()
    page.close()


def test_a_page_of_this_machine_may_call(fooled_browser: Browser, foreign_port: int, demo_url: str) -> None:
    page = fooled_browser.new_page()
    page.goto(f"http://127.0.0.1:{foreign_port}/")
    url = f"{demo_url}/v1/images/generations"
    assert page.evaluate(FETCH, [url, "application/json"]) == [200, None]
    page.close()
