"""The loader: the same batches for any number of workers and any restart, and no bad file that ends a run."""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import signal
from collections import Counter
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
import torch

from opendino.data import loader, watch
from opendino.data.augment import augment
from opendino.data.config import CropConfig, DataConfig
from opendino.data.crops import cut
from opendino.data.draws import ColorDraws, draw
from opendino.data.images import Image
from opendino.data.loader import MAX_SUBSTITUTES, Crops, Loader
from opendino.data.masks import block_masks
from opendino.data.order import Order
from opendino.data.sources import Source, open_source, subset
from opendino.errors import DataError
from tests.data.drawing import write_photos

CROPS = CropConfig(global_px=16, local_px=8, num_locals=3)
CONFIG = DataConfig(path="pictures", batch_size=4, seed=11, crops=CROPS)


@pytest.fixture
def source(tmp_path: Path) -> Source:
    write_photos(tmp_path / "pictures", 10)
    return open_source(tmp_path / "pictures")


def batches(source: Source, start: int = 0, end: int = 5, **changes: object) -> list[Crops]:
    return list(Loader(source, replace(CONFIG, **changes), 4, "cpu").batches(start, end))


def assert_equal(first: list[Crops], second: list[Crops]) -> None:
    assert len(first) == len(second)
    for one, other in zip(first, second, strict=True):
        for field in fields(Crops):
            mine, yours = getattr(one, field.name), getattr(other, field.name)
            assert torch.equal(mine, yours) if isinstance(mine, torch.Tensor) else mine == yours, field.name


def test_shapes_and_layout(source: Source) -> None:
    """View-major, and each crop is what draws, cut and augment give for its position."""
    batch = batches(source, 2, 3)[0]
    assert batch.global_crops.shape == (8, 3, 16, 16) and batch.global_crops.dtype == torch.float32
    assert batch.local_crops.shape == (12, 3, 8, 8) and batch.gram_crops is None
    assert batch.positions.tolist() == [8, 9, 10, 11] and batch.positions.dtype == torch.int64
    assert np.array_equal(batch.masks.numpy(), block_masks(11, 0, 2, 8, (4, 4), CONFIG.masks))
    order = Order(10, 11)
    for row, position in enumerate(range(8, 12)):
        assert batch.ids[row] == source.id(order(position))
        array = source.read(order(position)).array
        draws = draw(11, 0, position, CROPS, CONFIG.color, *array.shape[:2])
        for view, crop in enumerate(cut(array, draws)):
            alone = augment(crop[None], ColorDraws.stack([draws], slice(view, view + 1)), CONFIG.mean, CONFIG.std)[0]
            group, place = (batch.global_crops, view) if view < 2 else (batch.local_crops, view - 2)
            assert torch.equal(group[place * 4 + row], alone)


@pytest.mark.parametrize("workers", [1, 4])
def test_workers_change_nothing(source: Source, workers: int) -> None:
    assert_equal(batches(source, workers=workers), batches(source))


def test_restarts_change_nothing(source: Source) -> None:
    whole = batches(source, 0, 6)
    assert_equal([*batches(source, 0, 2), *batches(source, 2, 6)], whole)
    loader = Loader(source, CONFIG, 4, "cpu")
    assert_equal([*loader.batches(4, 6), *loader.batches(0, 1)], [*whole[4:6], whole[0]])


def test_every_epoch_shows_every_picture_once(source: Source) -> None:
    shown = [id for batch in batches(source, 0, 10) for id in batch.ids]
    assert all(Counter(shown[start : start + 10]) == Counter(shown[:10]) for start in (0, 10, 20, 30))
    assert len(set(shown)) == 10


def test_another_stage_draws_other_crops_of_the_same_pictures(source: Source) -> None:
    first, second = (next(Loader(source, CONFIG, 4, "cpu", stage=stage).batches(0, 1)) for stage in (0, 1))
    assert first.ids == second.ids
    assert not torch.equal(first.global_crops, second.global_crops)
    assert not torch.equal(first.masks, second.masks)


def test_without_locals_and_without_masks(source: Source) -> None:
    config = replace(CONFIG, crops=replace(CROPS, num_locals=0))
    batch = next(Loader(source, config, None, "cpu").batches(0, 1))
    assert batch.local_crops is None and batch.masks is None


def test_gram_crops_are_normalised_and_nothing_else(source: Source) -> None:
    config = replace(CONFIG, crops=replace(CROPS, gram_px=24))
    batch = next(Loader(source, config, 4, "cpu").batches(1, 2))
    assert batch.gram_crops.shape == (8, 3, 24, 24) and batch.global_crops.shape == (8, 3, 16, 16)
    for row, position in enumerate(range(4, 8)):
        array = source.read(Order(10, 11)(position)).array
        draws = draw(11, 0, position, CROPS, CONFIG.color, *array.shape[:2])
        for view, crop in enumerate(cut(array, draws, gram_px=24)[-2:]):
            pixels = (crop / 255 - torch.tensor(CONFIG.mean)[:, None, None]) / torch.tensor(CONFIG.std)[:, None, None]
            torch.testing.assert_close(batch.gram_crops[view * 4 + row], pixels)


@pytest.mark.parametrize("workers", [0, 2])
def test_each_step_has_one_of_the_sizes_whoever_cuts_it(source: Source, workers: int) -> None:
    config = replace(CONFIG, crops=replace(CROPS, mix="16/8/24:.5 24/12/32:.5"), workers=workers)
    whole = list(Loader(source, config, 4, "cpu").batches(0, 8))
    seen = [(b.global_crops.shape[-1], b.local_crops.shape[-1], b.gram_crops.shape[-1]) for b in whole]
    assert set(seen) == {(16, 8, 24), (24, 12, 32)}
    assert [batch.masks.shape[-1] for batch in whole] == [size // 4 for size, _, _ in seen]
    assert_equal(list(Loader(source, replace(config, workers=0), 4, "cpu").batches(5, 8)), whole[5:])


class Counting:
    """A source that counts how often it reads."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self.reads = 0

    def __getattr__(self, name: str) -> object:
        return getattr(self._source, name)

    def __len__(self) -> int:
        return len(self._source)

    def read(self, index: int) -> object:
        self.reads += 1
        return self._source.read(index)


def test_the_cache_changes_only_the_reads(source: Source) -> None:
    plain, full, small = Counting(source), Counting(source), Counting(source)
    expected = batches(plain, 0, 10)
    assert_equal(batches(full, 0, 10, cache_mb=1), expected)
    assert (plain.reads, full.reads) == (40, 10)
    loader = Loader(small, replace(CONFIG, cache_mb=1), 4, "cpu")
    loader._steps._cache_bytes = 4 * 48 * 64 * 3 + 100
    assert_equal(list(loader.batches(0, 10)), expected)
    assert small.reads == 4 + 4 * 6


@pytest.fixture
def damaged(tmp_path: Path) -> Source:
    paths = write_photos(tmp_path / "pictures", 10)
    for number in (3, 4, 9):
        paths[number].write_bytes(paths[number].read_bytes()[:400])
    return open_source(tmp_path / "pictures")


def test_bad_pictures_are_replaced_and_listed_once_an_epoch(damaged: Source) -> None:
    results = batches(damaged, 0, 5, max_bad=0.5)
    bad = Counter(skipped.id for batch in results for skipped in batch.bad)
    assert bad == {"photo-03.png": 2, "photo-04.png": 2, "photo-09.png": 2}
    assert all(skipped.reason.startswith("truncated: ") for batch in results for skipped in batch.bad)
    shown = Counter(id for batch in results for id in batch.ids)
    # 3 and 4 give way to 5; 9 to 0, the next after the last.
    assert shown == {f"photo-{number:02d}.png": 2 * {5: 3, 0: 2}.get(number, 1) for number in (0, 1, 2, 5, 6, 7, 8)}


def test_a_killed_worker_is_replaced_once_and_nothing_changes(source: Source) -> None:
    def kill_a_worker() -> None:
        os.kill(multiprocessing.active_children()[0].pid or 0, signal.SIGKILL)

    stream = Loader(source, replace(CONFIG, workers=2), 4, "cpu").batches(0, 12)
    found = []
    for number, crops in enumerate(stream):
        found.append(crops)
        if number == 2:
            kill_a_worker()
    assert_equal(found, batches(source, 0, 12))
    stream = Loader(source, replace(CONFIG, workers=2), 4, "cpu").batches(0, 40)
    with pytest.raises(DataError, match="killed twice"):
        for number, _ in enumerate(stream):
            if number in (2, 12):
                kill_a_worker()


class Endless:
    """A source whose picture 6 keeps its decoder busy, in C code, for minutes."""

    def __init__(self, source: Source) -> None:
        self._source = source

    def __getattr__(self, name: str) -> object:
        return getattr(self._source, name)

    def __len__(self) -> int:
        return len(self._source)

    def read(self, index: int) -> Image:
        if index == 6:
            hashlib.pbkdf2_hmac("sha256", b"", b"", 10**9)
        return self._source.read(index)


def test_a_decoder_without_end_costs_its_picture(
    source: Source, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(loader, "Watch", lambda: watch.Watch(patience_s=0))
    found = list(Loader(Endless(source), replace(CONFIG, workers=2), 4, "cpu").batches(0, 5))
    bad = {skipped.id: skipped.reason.partition(":")[0] for crops in found for skipped in crops.bad}
    assert bad == {"photo-06.png": "too-slow"}
    (tmp_path / "pictures/photo-06.png").write_bytes(b"text")
    for one, other in zip(found, batches(source, 0, 5), strict=True):
        assert one.ids == other.ids and torch.equal(one.global_crops, other.global_crops)


@pytest.mark.parametrize("workers", [1, 3])
def test_replacements_do_not_depend_on_workers_or_restarts(damaged: Source, workers: int) -> None:
    whole = batches(damaged, 0, 5, max_bad=0.5)
    parts = [*batches(damaged, 0, 3, max_bad=0.5, workers=workers), *batches(damaged, 3, 5, max_bad=0.5, cache_mb=1)]
    assert_equal(parts, whole)


@pytest.mark.parametrize("workers", [0, 2])
def test_too_many_bad_pictures_stop_the_run(damaged: Source, workers: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loader, "FEW_BAD", 1)
    with pytest.raises(DataError, match=r"pictures: 2 of 10 pictures cannot be read: photo-0\d.png \(.*; ph"):
        batches(damaged, 0, 5, max_bad=0.1, workers=workers)
    with pytest.raises(DataError, match=r"--data\.max-bad"):
        batches(damaged, 0, 5, max_bad=0.2)
    assert len(batches(damaged, 0, 5, max_bad=0.3)) == 5


def test_one_bad_picture_never_stops_a_run(tmp_path: Path) -> None:
    paths = write_photos(tmp_path, 3)
    paths[1].write_bytes(b"")
    source = open_source(tmp_path)
    paths[0].write_bytes(b"text")
    assert len(source) == 2
    results = batches(source, 0, 3, max_bad=0.0)
    assert {id for batch in results for id in batch.ids} == {"photo-02.png"}


@pytest.mark.parametrize("workers", [0, 1])
def test_no_readable_picture_is_an_error(tmp_path: Path, workers: int) -> None:
    paths = write_photos(tmp_path, 2)
    source = open_source(tmp_path)
    for path in paths:
        path.write_bytes(b"text")
    with pytest.raises(DataError, match="2 pictures in a row cannot be read, the first is photo-0"):
        batches(source, 0, 2, max_bad=1.0, workers=workers)


def test_the_search_for_a_replacement_ends(tmp_path: Path) -> None:
    path = write_photos(tmp_path, 1)[0]
    source = Counting(subset(open_source(tmp_path), [0] * 1000))
    path.unlink()
    with pytest.raises(DataError, match=f"{MAX_SUBSTITUTES + 1} pictures in a row"):
        batches(source, 0, 1)
    assert source.reads == MAX_SUBSTITUTES + 1


def test_a_batch_may_be_larger_than_the_source(source: Source) -> None:
    batch = batches(subset(source, [0, 1, 2]), 0, 1, batch_size=8)[0]
    assert Counter(batch.ids[:3]) == Counter(batch.ids[3:6]) and len(batch.ids) == 8


def test_a_finished_loader_leaves_no_step_behind(source: Source) -> None:
    assert batches(source, 3, 3) == []


@pytest.mark.parametrize("workers", [0, 1])
def test_the_global_random_numbers_are_left_alone(source: Source, workers: int) -> None:
    """Else a resumed run, which starts the loader anew, would go on with other dropout than the unbroken one."""
    before = torch.get_rng_state()
    batches(source, workers=workers)
    assert torch.equal(torch.get_rng_state(), before)
