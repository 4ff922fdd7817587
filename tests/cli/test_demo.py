"""`opendino demo`, cut short: what it writes, that its numbers are those on the page, and own photographs."""

import json

import numpy as np
import pytest
from PIL import Image

from opendino import load
from opendino.cli import main
from opendino.evaluation import tiles
from tests.browser import assert_drawn_and_inert, browser, open_page  # noqa: F401  (two are fixtures)

pytest.importorskip("skimage")
KEYS = {"knn_trained", "knn_random", "knn_pixels", "knn_colour", "knn_hog"}


@pytest.fixture(scope="module", autouse=True)
def _few_tiles():
    # A seventh of the tiles and a hundredth of the training: enough to see every part move, not to learn.
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tiles, "TRAIN_TILES", 12)
        patch.setattr(tiles, "QUERY_TILES", 6)
        yield


@pytest.fixture(scope="module")
def folder(_few_tiles, tmp_path_factory):
    out = tmp_path_factory.mktemp("demo")
    assert main(["demo", "--out", str(out), "--steps", "12"]) == 0
    return out


def test_results_hold_what_was_promised(folder):
    results = json.loads((folder / "results.json").read_text())
    assert results.keys() >= KEYS | {"ci95", "seconds", "seed", "gain"}
    for key in KEYS:
        low, high = results["ci95"][key]
        assert 0 <= low <= results[key] <= high <= 100
    assert results["knn_hog"] > results["ci95"]["knn_pixels"][1]  # does not depend on training


def test_model_page_and_figure_are_there(folder):
    model = load(folder / "run-0")
    assert model.dim > 0 and model.card["name"] == "conv_mini"
    with Image.open(folder / "pca.png") as figure:
        assert figure.width > 300 and figure.height > 200
    assert "opendino pretrain" in (folder / "demo.html").read_text()


@pytest.mark.browser
@pytest.mark.timeout(600)
def test_the_page_is_drawn_silent_and_inert(folder, open_page):
    assert_drawn_and_inert(open_page(folder / "demo.html"), folder / "demo.html")


def test_own_photographs(tmp_path):
    photos = tmp_path / "photos"
    photos.mkdir()
    for index in range(3):
        rng = np.random.default_rng(index)
        pixels = np.kron(rng.integers(0, 255, (20, 30, 3)), np.ones((16, 16, 1))).astype(np.uint8)
        Image.fromarray(pixels).save(photos / f"photo{index}.png")
    out = tmp_path / "out"
    assert main(["demo", "--images", str(photos), "--out", str(out), "--steps", "2", "--json"]) == 0
    assert json.loads((out / "results.json").read_text()).keys() >= KEYS
