"""The page of `opendino try` in a real browser without network: silent, and a click shows neighbours."""

import numpy as np
import pytest

from opendino.features.explore import look_over
from opendino.pages.embedding_map import Told, write_map_page
from tests.browser import browser, open_page  # noqa: F401  (fixtures)
from tests.pages.fake_run import HOSTILE, HOSTILE_SCRIPT

pytestmark = [pytest.mark.browser, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Three groups of ten: grey levels that tell the groups apart, vectors likewise."""
    generator = np.random.default_rng(0)
    centres = np.eye(3, 8, dtype=np.float32)
    vectors = np.concatenate([centre + generator.normal(0, 0.05, (10, 8)) for centre in centres]).astype(np.float32)
    names = [f"{row} {HOSTILE}" if row % 7 == 0 else f"{row}.jpg" for row in range(30)]
    names[3] = HOSTILE_SCRIPT
    pictures = [np.full((40, 60, 3), 20 + 8 * row, np.uint8) for row in range(30)]
    pictures[5] = None
    overview = look_over(vectors, ["same" if row in (1, 2) else str(row) for row in range(30)])
    labels = ["xyz"[row // 10] for row in range(30)]
    folder = tmp_path_factory.mktemp("try")
    told = Told(HOSTILE, "vit", "x", "whole", folder / "s", 3.0, 2, [(HOSTILE, "truncated")])
    return write_map_page(folder / "try.html", told, names, pictures, labels, overview, None), overview, names


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (400, "dark")])
def test_a_click_shows_the_neighbours_and_nothing_leaves_the_page(made, open_page, width, scheme):
    path, overview, names = made
    opened = open_page(path, width, scheme, height=2000)
    page = opened.page
    assert page.locator("#map .one").count() == 30
    for row in (17, 4):
        page.locator(f"#map .one[data-row='{row}']").dispatch_event("click")
        assert page.locator("#chosen").get_attribute("data-row") == str(row)
        assert names[row] in page.inner_text("#name")
        shown = [int(one.get_attribute("data-row")) for one in page.locator("#near .one").all()]
        assert shown == overview.neighbours[row].tolist()
        assert all(other // 10 == row // 10 for other in shown[:5])
    # A neighbour can be asked in its turn.
    page.locator("#near .one").first.click()
    assert page.locator("#chosen").get_attribute("data-row") == str(shown[0])
    page.wait_for_timeout(100)
    assert page.evaluate("[...document.images].every((image) => image.naturalWidth > 0)")
    assert opened.complaints == [] and opened.requests == [path.as_uri()]
    assert page.evaluate("window.hacked") is None and page.locator("img[src=x]").count() == 0
    # On a narrow screen the answer comes into view; no picture of the map is cut off.
    page.locator("#map .one[data-row='17']").dispatch_event("click")
    assert page.evaluate("document.getElementById('chosen').getBoundingClientRect().top < innerHeight")
    assert page.evaluate(
        "[...document.querySelectorAll('#map .one')].every((one) => one.offsetLeft >= 0 && "
        "one.offsetLeft + 34 <= one.parentElement.clientWidth && one.offsetTop + 34 <= one.parentElement.clientHeight)"
    )
    for side in (400, 700, 1600):
        page.set_viewport_size({"width": side, "height": 600})
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), f"too wide at {side} px"


def test_the_page_names_doubles_and_what_was_left_out(made):
    path, overview, _ = made
    assert overview.doubles == ((1, 2),)
    text = path.read_text()
    assert "a picture's nearest is in its folder; 31 % by chance" in text and "100 %" in text
    assert "1 group of files equal" in text and "2 more pictures" in text and "truncated" in text
