"""A page in Debian's Chromium without network: fixtures, and what every page must pass. Skipped aloud without it."""

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

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
