"""The page of a survey: drawn from a real folder with hostile names, in a browser without network."""

from pathlib import Path

import numpy as np
import pytest

from opendino.cli.check import check
from tests.browser import browser, open_page  # noqa: F401  (fixtures)
from tests.data.drawing import encoded, photo
from tests.pages.fake_run import HOSTILE

NAME = HOSTILE.replace("/", "_")


@pytest.fixture(scope="module")
def page(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("check")
    for name in ("a", NAME[:-4]):
        (root / "pictures" / name).mkdir(parents=True)
        for number in range(8):
            (root / "pictures" / name / f"{number} {NAME}").write_bytes(encoded(photo(number), "PNG"))
    (root / "pictures/a/white.png").write_bytes(encoded(np.full((40, 40), 255, np.uint8), "PNG"))
    (root / f"pictures/a/cut {NAME}").write_bytes(encoded(photo(9), "JPEG")[:500])
    return check(root / "pictures", out=root / "out").page


def test_the_page_names_what_was_found_and_escapes_it(page) -> None:
    text = page.read_text()
    assert "<img src=x" not in text and "&lt;img src=x" in text
    for words in ("Cannot be read", "one colour: white", "Equal files", "In several classes", "data:image/png;base64"):
        assert words in text
    assert "http://" not in text.split("<script>")[0] and "https://" not in text.split("<script>")[0]


@pytest.mark.browser
@pytest.mark.timeout(600)
@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (400, "dark")])
def test_the_page_is_silent_and_inert_in_a_browser(page, open_page, width, scheme) -> None:
    opened = open_page(page, width, scheme)
    opened.page.wait_for_function("[...document.images].every((image) => image.naturalWidth > 0)")
    assert opened.complaints == [] and [url.split("?")[0] for url in opened.requests] == [page.as_uri()]
    assert opened.page.evaluate("window.hacked") is None and opened.page.locator("img[src=x]").count() == 0
    assert opened.page.locator(".shots img").count() >= 8 + 1 + 2
    for narrow in (400, 700, 1600):
        opened.page.set_viewport_size({"width": narrow, "height": 600})
        assert opened.page.evaluate("document.documentElement.scrollWidth <= innerWidth"), narrow
