"""The tile task: apart, repeatable, as hard as stated, and readable as a folder."""

import dataclasses

import numpy as np
import pytest
import torch
from PIL import Image

from opendino.data.sources import open_source
from opendino.errors import DataError, UsageError
from opendino.evaluation import tiles
from opendino.evaluation.baselines import colour_histogram, hog, hog_pooled, pixels
from opendino.evaluation.knn import READOUTS, score_knn
from opendino.evaluation.tiles import build_tiles, write_tiles


@pytest.fixture(scope="module")
def task():
    pytest.importorskip("skimage")
    pytest.importorskip("sklearn")
    return build_tiles(0)


def best_knn(task, function):
    scores = score_knn(
        function(task.bank),
        torch.from_numpy(task.bank_labels),
        function(task.queries),
        torch.from_numpy(task.query_labels),
        ks=(5, 10, 20),
        readouts=READOUTS,
    )
    return max(score.percent for score in scores)


def photograph(width=500, height=320, left=(200, 30, 30), right=(30, 30, 200)):
    """Left of the middle of the gap one colour, right of it another: a tile that crosses shows both."""
    array = np.empty((height, width, 3), np.uint8)
    split = int((tiles.TRAIN_END + tiles.QUERY_START) / 2 * width)
    array[:, :split], array[:, split:] = left, right
    return array


@pytest.fixture
def folder(tmp_path):
    home = tmp_path / "photos"
    home.mkdir()
    for index in range(3):
        Image.fromarray(photograph(400 + 100 * index)).save(home / f"photo{index}.png")
    (home / "notes.txt").write_text("no picture")
    return home


def test_sizes_labels_and_ids(task):
    assert task.train.shape == (1800, 64, 64, 3) and task.train.dtype == np.uint8
    assert task.queries.shape == (600, 64, 64, 3) and task.queries.dtype == np.uint8
    assert len(task.names) == 20 and task.chance == 5
    assert np.bincount(task.bank_labels).tolist() == [90] * 20
    assert np.bincount(task.query_labels).tolist() == [30] * 20
    assert len(set(task.ids)) == 1800 and task.ids[90] == f"{task.names[1]}/000"


def test_same_seed_same_tiles_other_seed_other_tiles(task, monkeypatch):
    monkeypatch.setattr(tiles, "SKIMAGE", ("astronaut.png", "rocket.jpg"))
    some, other = build_tiles(0), build_tiles(1)
    # Also: leaving photographs out does not change the others.
    where = task.names.index("rocket")
    np.testing.assert_array_equal(some.train[-90:], task.train[90 * where : 90 * where + 90])
    np.testing.assert_array_equal(some.queries[-30:], task.queries[30 * where : 30 * where + 30])
    assert not np.array_equal(some.train, other.train)


def test_train_and_query_regions_stay_apart(folder, monkeypatch):
    monkeypatch.setattr(tiles, "_change_colour", lambda tile, generator: tile)
    own = build_tiles(3, folder)
    assert (own.train == [200, 30, 30]).all() and (own.queries == [30, 30, 200]).all()


def test_colour_change_makes_half_grey_and_shifts_channels_and_contrast():
    tile = np.random.default_rng(0).integers(60, 120, (64, 64, 3), np.uint8)
    generator = np.random.default_rng(1)
    changed = [tiles._change_colour(tile, generator).reshape(-1, 3).astype(float) for _ in range(400)]
    grey = [np.corrcoef(pixels.T)[0, 2] > 0.99 for pixels in changed]
    assert 0.42 < np.mean(grey) < 0.58
    means = np.array([pixels.mean(0) for pixels in changed]) / tile.mean()
    # Gains within .6 to 1.4; contrast about the mean of all channels moves a channel on by at most .3.
    assert means.min() > 0.35 and means.max() < 1.65 and means.std() > 0.2
    # Only the channel gains separate the channels of a grey tile: independent draws, so no grey tile stays neutral.
    assert np.ptp(means[np.array(grey)], axis=1).mean() > 0.2
    spreads = [pixels.std(0).mean() / pixels.mean() for pixels in changed]
    assert max(spreads) / min(spreads) > 1.8


def test_simple_baselines_score_what_was_measured(task):
    # Other draws of the same task gave 15.3 [12.5, 18.2] and 16.3 [13.5, 19.2]; chance is 5.
    assert 11 < best_knn(task, colour_histogram) < 20
    assert 12 < best_knn(task, pixels) < 21


@pytest.mark.slow
def test_hog_scores_what_was_measured(task):
    assert 36 < best_knn(task, hog) < 47
    assert 38 < best_knn(task, hog_pooled) < 49


def test_colour_alone_solves_it_when_colours_are_kept(task, monkeypatch):
    monkeypatch.setattr(tiles, "_change_colour", lambda tile, generator: tile)
    assert best_knn(build_tiles(0), colour_histogram) > 65


def test_written_tiles_open_as_class_folders(task, tmp_path):
    keep = np.r_[0:5, 90:95]
    small = dataclasses.replace(
        task,
        bank=task.bank[keep],
        bank_labels=task.bank_labels[keep],
        queries=task.queries[:40],
        query_labels=task.query_labels[:40],
    )
    write_tiles(small, tmp_path)
    write_tiles(small, tmp_path)
    bank, queries = open_source(tmp_path / "train"), open_source(tmp_path / "queries")
    assert len(bank) == 10 and len(queries) == 40 and bank.classes == queries.classes == task.names[:2]
    np.testing.assert_array_equal(bank.read(7).array, small.bank[7])
    assert [bank.label(i) for i in range(10)] == small.bank_labels.tolist()


def test_own_photographs(folder, tmp_path):
    own = build_tiles(0, folder)
    assert len(own.names) == 3 and all("photo" in name for name in own.names)
    write_tiles(own, tmp_path / "out")
    assert len(open_source(tmp_path / "out" / "train")) == 270


def test_too_few_or_too_small_photographs_are_refused(tmp_path):
    Image.fromarray(photograph()).save(tmp_path / "one.png")
    Image.fromarray(photograph(40, 40)).save(tmp_path / "small.png")
    with pytest.raises(DataError, match=r"1 usable photographs.*smaller than 64 px"):
        build_tiles(0, tmp_path)


def test_missing_packages_are_one_line_with_the_command(monkeypatch):
    monkeypatch.setattr(tiles, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"skimage is not installed; run: pip install"):
        build_tiles(0)
    monkeypatch.undo()
    monkeypatch.setattr(tiles, "SKIMAGE", ("gone.png",))
    with pytest.raises(UsageError, match=r"gone\.png"):
        build_tiles(0)
