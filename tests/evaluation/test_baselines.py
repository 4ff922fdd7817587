"""Baselines against slow loops, and the one-line error without scikit-image."""

import sys

import numpy as np
import pytest
import torch

from opendino.errors import ShapeError, UsageError
from opendino.evaluation import baselines
from opendino.evaluation.baselines import BASELINES, baseline_features, colour_histogram, hog, pixels, read_pictures
from tests.features.sources import ArraySource, noise

PICTURES = np.stack(noise(4, 32, 32))


def test_histogram_counts_pixels_in_cells():
    row = colour_histogram(PICTURES)[0]
    counts = np.zeros((8, 8, 8))
    for red, green, blue in PICTURES[0].reshape(-1, 3):
        counts[red // 32, green // 32, blue // 32] += 1
    np.testing.assert_allclose(row.numpy(), np.sqrt(counts.ravel() / 1024), rtol=1e-6)
    assert row.norm() == pytest.approx(1, rel=1e-5)


def test_pixels_of_flat_quarters_are_their_colours():
    picture = np.zeros((1, 64, 64, 3), np.uint8)
    picture[:, :32, 32:] = [255, 51, 0]
    grid = pixels(picture).view(16, 16, 3)
    torch.testing.assert_close(grid[2, 12], torch.tensor([1.0, 0.2, 0.0]))
    assert grid[12].abs().sum() == 0


def test_hog_sees_direction_and_not_colour():
    pytest.importorskip("skimage")
    y, x = np.mgrid[:64, :64]
    vertical, horizontal = (np.uint8(127 + 100 * np.sin(wave / 2)) for wave in (x, y))
    grey = np.stack([np.repeat(p[..., None], 3, 2) for p in (vertical, horizontal)])
    rows = hog(grey)
    assert rows.shape == (2, 1764)
    assert torch.cosine_similarity(rows[0], rows[1], dim=0) < 0.2
    torch.testing.assert_close(hog(grey // 2)[0], rows[0], atol=0.05, rtol=0)


def test_shared_hog_gives_the_rows_of_the_table():
    pytest.importorskip("skimage")
    shared = baseline_features(PICTURES)
    assert list(shared) == list(BASELINES)
    for name, function in BASELINES.items():
        torch.testing.assert_close(shared[name], function(PICTURES))


def test_missing_scikit_image_is_one_line_with_the_command(monkeypatch):
    monkeypatch.setitem(sys.modules, "skimage", None)
    monkeypatch.setitem(sys.modules, "skimage.feature", None)
    with pytest.raises(UsageError, match=r"pip install \"opendino\[demo\]\""):
        baselines.hog(PICTURES)
    assert colour_histogram(PICTURES).shape == (4, 512)


def test_read_pictures_squeezes_to_the_side():
    source = ArraySource([*noise(2, 20, 30), *noise(1, 16, 16, seed=9)])
    pictures = read_pictures(source, 16)
    assert pictures.shape == (3, 16, 16, 3) and pictures.dtype == np.uint8
    np.testing.assert_array_equal(pictures[2], source.pictures[2])


@pytest.mark.parametrize("wrong", [PICTURES.astype(float), PICTURES[0], PICTURES[:0]])
def test_wrong_pictures_are_refused(wrong):
    with pytest.raises(ShapeError):
        pixels(wrong)
