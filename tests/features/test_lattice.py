"""Tiles: the whole picture covered, on the patch grid; merged maps equal to a slow sum, constant where all agree."""

import math
import random

import pytest
import torch

from opendino.errors import UsageError
from opendino.features.lattice import Tiling, merge, starts, weights


def test_starts_cover_a_side_and_their_number_is_that_of_the_formula():
    draw = random.Random(0)
    for _ in range(2000):
        tile = draw.randint(1, 40)
        length, step = draw.randint(1, 300), draw.randint(1, tile)
        found = starts(length, tile, step)
        covered = {place for start in found for place in range(start, min(start + tile, length))}
        assert covered == set(range(length)) and found == sorted(set(found)) and found[0] == 0
        assert found[-1] == max(0, length - tile)
        assert len(found) == (1 if length <= tile else math.ceil((length - tile) / step) + 1)


@pytest.mark.parametrize(("tile", "overlap", "count"), [(224, 0.5, 34 * 19), (512, 0.25, 10 * 6), (224, 0, 18 * 10)])
def test_numbers_of_tiles_of_a_4k_frame(tile, overlap, count):
    """spec of tiling, 3840 x 2160 px."""
    tiling = Tiling.from_pixels(tile, overlap, 16)
    assert len(starts(240, tiling.tile, tiling.step)) * len(starts(135, tiling.tile, tiling.step)) == count


def tiles_of(picture, tiling, change=lambda cut: cut):
    height, width, _ = picture.shape
    for y in starts(height, tiling.tile, tiling.step):
        columns = starts(width, tiling.tile, tiling.step)
        yield y, [(x, change(picture[y : y + tiling.tile, x : x + tiling.tile])) for x in columns]


@pytest.mark.parametrize(
    ("height", "width", "tile", "step"), [(13, 19, 8, 6), (8, 30, 8, 1), (5, 20, 8, 4), (40, 9, 9, 9)]
)
def test_tiles_that_agree_merge_to_the_picture(height, width, tile, step):
    picture = torch.randn(height, width, 4, generator=torch.Generator().manual_seed(0))
    merged = torch.cat(list(merge(tiles_of(picture, Tiling(tile, step)), height, width)))
    torch.testing.assert_close(merged, picture, rtol=1e-5, atol=1e-6)


def test_tiles_that_differ_merge_to_the_weighted_mean_of_a_slow_loop():
    picture, tiling, draw = torch.zeros(13, 19, 2), Tiling(8, 3), torch.Generator().manual_seed(0)
    rows = list(tiles_of(picture, tiling, lambda cut: torch.randn(cut.shape, generator=draw)))
    total, mass = torch.zeros(13, 19, 2), torch.zeros(13, 19, 1)
    for y, row in rows:
        for x, patches in row:
            for i in range(8):
                for j in range(8):
                    factor = float(weights(8)[i] * weights(8)[j])
                    total[y + i, x + j] += factor * patches[i, j]
                    mass[y + i, x + j] += factor
    bands = list(merge(rows, 13, 19))
    assert max(len(band) for band in bands) <= tiling.tile, "more than one row of tiles waited in memory"
    torch.testing.assert_close(torch.cat(bands), total / mass, rtol=1e-5, atol=1e-5)


def test_weights_are_heavy_in_the_middle_and_never_nothing():
    factors = weights(32)
    assert factors.argmax() in (15, 16) and factors.min() >= 0.05 and torch.allclose(factors, factors.flip(0))


def test_senseless_tiles_are_refused():
    for tile, overlap in ((8, 0.5), (64, 1.0), (64, -0.1)):
        with pytest.raises(UsageError):
            Tiling.from_pixels(tile, overlap, 16)


def peaks(merged, period, count):
    """Strength at the period of tiles and its multiples, beside the median of the frequencies around."""
    signal = merged.mean(0)[period : period * (count + 1)]
    strength = torch.fft.rfft(signal - signal.mean(0), dim=0).abs().pow(2).mean(1).sqrt()
    around = [
        torch.cat([strength[at - 5 : at], strength[at + 1 : at + 6]]).median() for at in count * torch.arange(1, 5)
    ]
    return torch.stack([strength[count * (turn + 1)] / noise for turn, noise in enumerate(around)])


def test_merging_leaves_no_period_of_the_tiles(monkeypatch):
    """inspection.md 1.2: tiles see their borders wrongly; in the merged map of a texture this must not show."""
    count, tiling = 14, Tiling(32, 24)
    width = tiling.tile + tiling.step * (count + 1)
    texture = torch.randn(32, width, 16, generator=torch.Generator().manual_seed(0))
    texture += torch.sin(torch.arange(width) * 2 * math.pi / 5)[:, None]
    places = torch.arange(tiling.tile)
    # As large at the border as the texture itself, falling by e a patch.
    border = torch.exp(-torch.minimum(places, tiling.tile - 1 - places).float())[:, None]
    rows = [(y, [(x, cut + border) for x, cut in tiles]) for y, tiles in tiles_of(texture, tiling)]
    assert peaks(torch.cat(list(merge(rows, 32, width))), tiling.step, count).max() < 2
    # Tiles of equal weight would fail.
    monkeypatch.setattr("opendino.features.lattice.weights", torch.ones)
    assert peaks(torch.cat(list(merge(rows, 32, width))), tiling.step, count).max() > 2
