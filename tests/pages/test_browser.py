"""The pages in a real browser without network: drawn, silent, readable at every width, and deaf to hostile names."""

from pathlib import Path

import pytest

from opendino.pages.record import read_record
from opendino.pages.report import write_report
from tests.browser import assert_drawn_and_inert, browser, open_page, wait_until  # noqa: F401  (two are fixtures)
from tests.pages.fake_run import HOSTILE, HOSTILE_SCRIPT, make_demo, make_run

pytestmark = [pytest.mark.browser, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    return make_run(tmp_path_factory.mktemp("runs") / f"run {HOSTILE[:20]}".replace("/", "_"), steps=200)


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
