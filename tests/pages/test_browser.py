"""The pages in a real browser without network: drawn, silent, readable at every width, and deaf to hostile names."""

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from opendino.pages.record import read_record
from opendino.pages.report import write_report
from tests.pages.fake_run import HOSTILE, HOSTILE_SCRIPT, make_demo, make_run

CHROMIUM = Path("/usr/bin/chromium")
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
PATIENCE_MS = 180_000
"""A page takes about two seconds on a quiet core and a minute on one that others use."""

pytestmark = [pytest.mark.browser, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def browser():
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: pages not tried")
    if not CHROMIUM.exists():
        pytest.skip(f"{CHROMIUM} is missing (apt install chromium): pages not tried in a browser")
    with playwright.sync_playwright() as driver:
        running = driver.chromium.launch(executable_path=str(CHROMIUM), args=FLAGS, timeout=PATIENCE_MS)
        yield running
        running.close()


@dataclass
class Opened:
    """A page, and everything it said or asked for."""

    page: object
    complaints: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)


@pytest.fixture
def open_page(browser) -> Iterator:
    contexts = []

    def opened(path: Path, width: int = 1280, scheme: str = "light", height: int = 9000) -> Opened:
        context = browser.new_context(viewport={"width": width, "height": height}, color_scheme=scheme, offline=True)
        contexts.append(context)
        context.set_default_timeout(PATIENCE_MS)
        result = Opened(context.new_page())
        result.page.on("console", lambda message: result.complaints.append(message.text))
        result.page.on("pageerror", lambda error: result.complaints.append(str(error)))
        result.page.on("request", lambda request: result.requests.append(request.url))
        result.page.on("dialog", lambda dialog: result.complaints.append(dialog.message))
        result.page.goto(path.as_uri())
        return result

    yield opened
    for context in contexts:
        context.close()


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    return make_run(tmp_path_factory.mktemp("runs") / f"run {HOSTILE[:20]}".replace("/", "_"), steps=200)


def wait_until(page, expression: str) -> None:
    """Playwright's own waiting evaluates strings inside the page, which the page's content policy forbids."""
    end = time.monotonic() + PATIENCE_MS / 1000
    while not page.evaluate(expression):
        assert time.monotonic() < end, f"never became true: {expression}"
        page.wait_for_timeout(50)


def assert_drawn_and_inert(opened: Opened, path: Path) -> None:
    page = opened.page
    wait_until(
        page,
        "document.querySelectorAll('.drawing').length > 0 && "
        "[...document.querySelectorAll('.drawing')].every((place) => place.querySelector('svg .trace'))",
    )
    assert opened.complaints == []
    assert [url.split("?")[0] for url in opened.requests] == [path.as_uri()]
    assert page.evaluate("window.hacked") is None
    assert page.locator("img[src=x]").count() == 0
    assert page.evaluate("[...document.images].every((image) => image.naturalWidth > 0)")
    for width in (400, 700, 1600):
        page.set_viewport_size({"width": width, "height": 600})
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), f"too wide at {width} px"


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (400, "dark")])
def test_report_is_drawn_silent_and_inert(run, open_page, width, scheme):
    path = write_report(run, running=False)
    opened = open_page(path, width, scheme, height=14_000)
    assert_drawn_and_inert(opened, path)
    opened.page.evaluate("document.querySelectorAll('details').forEach((fold) => (fold.open = true))")
    shown = opened.page.inner_text("body")
    assert HOSTILE in shown and HOSTILE_SCRIPT in shown
    assert "hacked" not in opened.page.title().replace(run.name, "")
    ground = opened.page.evaluate("getComputedStyle(document.body).backgroundColor")
    lightness = sum(int(part) for part in ground.removeprefix("rgb(").rstrip(")").split(","))
    assert (lightness > 600) == (scheme == "light")
    text_color = opened.page.evaluate("getComputedStyle(document.querySelector('.drawing .xtick text')).fill")
    assert text_color == ("rgb(92, 99, 109)" if scheme == "light" else "rgb(155, 163, 174)")


def test_a_running_report_keeps_the_place_and_open_lists(run, open_page):
    path = write_report(run, running=True)
    page = open_page(path, height=700).page
    page.evaluate("document.querySelector('details').open = true")
    page.evaluate("scrollTo(0, 1500)")
    wait_until(page, "scrollY === 1500")
    page.reload()
    wait_until(page, "scrollY === 1500")
    assert page.evaluate("document.querySelector('details').open")
    assert page.locator("#stale").is_hidden()


def test_a_page_that_nobody_rewrites_says_so(run, open_page):
    path = write_report(run, running=True)
    old = path.with_name("old.html")
    page = path.read_text()
    written = page.split('data-written="')[1].split('"')[0]
    old.write_text(page.replace(f'data-written="{written}"', f'data-written="{float(written) - 1200}"'))
    assert "Not rewritten for 20 minutes" in open_page(old).page.inner_text("#stale")


def test_demo_page_is_drawn_silent_and_inert(run, open_page, tmp_path):
    path = make_demo(tmp_path, read_record(run).rows)
    opened = open_page(path, 420)
    assert_drawn_and_inert(opened, path)
    assert opened.page.locator(".found img").count() == 10 and opened.page.locator(".found img.right").count() == 4
    assert "39.8 %" in opened.page.inner_text("body") and "opendino pretrain" in opened.page.inner_text("body")
