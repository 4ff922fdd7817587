"""Draws: a function of (seed, stage, position), with torchvision's meaning of every parameter."""

from __future__ import annotations

from dataclasses import fields, replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torchvision.transforms import RandomResizedCrop

from opendino.data.config import ColorConfig, CropConfig
from opendino.data.draws import ColorDraws, Draws, crops_of_step, draw

CROPS, COLOR = CropConfig(), ColorConfig()


def flat(draws: Draws) -> SimpleNamespace:
    """Boxes and colours side by side."""
    return SimpleNamespace(boxes=draws.boxes, flips=draws.flips, sizes=draws.sizes, **vars(draws.color))


NAMES = ["boxes", "flips", "sizes", *(field.name for field in fields(ColorDraws))]


def many(
    count: int, crops: CropConfig = CROPS, color: ColorConfig = COLOR, size: tuple[int, int] = (375, 500)
) -> SimpleNamespace:
    samples = [flat(draw(3, 0, position, crops, color, *size)) for position in range(count)]
    return SimpleNamespace(**{name: np.stack([getattr(sample, name) for sample in samples]) for name in NAMES})


def test_the_same_key_gives_the_same_draws() -> None:
    first, second = (flat(draw(1, 2, 10**12, CROPS, COLOR, 64, 48)) for _ in range(2))
    for name in NAMES:
        assert np.array_equal(getattr(first, name), getattr(second, name)), name


@pytest.mark.parametrize("key", [(2, 2, 5), (1, 3, 5), (1, 2, 6), (2**63 - 1, 0, 0)])
def test_another_key_gives_other_draws(key: tuple[int, int, int]) -> None:
    base, other = draw(1, 2, 5, CROPS, COLOR, 640, 480), draw(*key, CROPS, COLOR, 640, 480)
    assert not np.array_equal(base.boxes, other.boxes)
    assert not np.array_equal(base.color.brightness, other.color.brightness)


def test_more_local_crops_leave_the_others_as_they_are() -> None:
    few, more = (flat(draw(0, 0, 9, CropConfig(num_locals=count), COLOR, 100, 100)) for count in (2, 8))
    for name in NAMES:
        assert np.array_equal(getattr(few, name), getattr(more, name)[:4]), name


def test_colour_settings_leave_boxes_as_they_are() -> None:
    plain = draw(0, 0, 9, CROPS, replace(COLOR, jitter_prob=0.0, blur_prob=(0.0, 0.0, 0.0)), 100, 100)
    full = draw(0, 0, 9, CROPS, COLOR, 100, 100)
    assert np.array_equal(plain.boxes, full.boxes) and np.array_equal(plain.flips, full.flips)


@pytest.mark.parametrize("size", [(375, 500), (40, 40), (9, 31), (8, 2000)])
def test_boxes_lie_inside_the_picture(size: tuple[int, int]) -> None:
    top, left, height, width = np.moveaxis(many(300, size=size).boxes, -1, 0)
    assert (top >= 0).all() and (left >= 0).all() and (height >= 1).all() and (width >= 1).all()
    assert (top + height <= size[0]).all() and (left + width <= size[1]).all()


def test_boxes_are_distributed_as_torchvisions() -> None:
    """Means and spreads of area, ratio and corner of 3,000 boxes agree within 5 standard errors."""
    count = 3000
    torch.manual_seed(0)
    picture = torch.zeros(3, 375, 500)
    theirs = np.array(
        [RandomResizedCrop.get_params(picture, list(CROPS.global_scale), list(CROPS.ratio)) for _ in range(count)],
        float,
    )
    ours = many(count).boxes[:, 0].astype(float)

    def measures(boxes: np.ndarray) -> np.ndarray:
        top, left, height, width = boxes.T
        return np.stack([height * width, np.log(width / height), top, left, top**2, left**2])

    mine, other = measures(ours), measures(theirs)
    errors = np.sqrt(mine.var(axis=1) / count + other.var(axis=1) / count)
    assert (np.abs(mine.mean(axis=1) - other.mean(axis=1)) < 5 * errors).all()


@pytest.mark.parametrize(("size", "box"), [((10, 1000), (0, 493, 10, 13)), ((1000, 12), (492, 0, 16, 12))])
def test_a_strip_gives_its_middle(size: tuple[int, int], box: tuple[int, ...]) -> None:
    """Worked by hand from torchvision's fallback: whole short side, long side cut to the limit of the ratio."""
    crops = CropConfig(global_scale=(0.9, 1.0), num_locals=0)
    assert (many(5, crops, size=size).boxes == box).all()


def test_rates_and_ranges() -> None:
    """Each coin falls at its rate (5 standard errors), each amount fills its range and nothing beyond."""
    count = 3000
    draws = many(count)

    def check(coins: np.ndarray, rate: float) -> None:
        share = coins.mean()
        assert abs(share - rate) <= 5 * np.sqrt(rate * (1 - rate) / coins.size)

    for view, blur, solarise in ((0, 0.0, 0.0), (1, 0.9, 0.2), (2, 0.5, 0.0), (9, 0.5, 0.0)):
        check(draws.blur_sigma[:, view] > 0, blur)
        check(draws.solarise[:, view], solarise)
    check(draws.flips, 0.5)
    check(draws.jitter, 0.8)
    check(draws.grey, 0.2)
    for values, low, high in (
        (draws.brightness, 0.6, 1.4),
        (draws.contrast, 0.6, 1.4),
        (draws.saturation, 0.8, 1.2),
        (draws.hue, -0.1, 0.1),
        (draws.blur_sigma[draws.blur_sigma > 0], 0.1, 2.0),
    ):
        span = high - low
        assert low - 1e-6 <= values.min() < low + 0.01 * span and high - 0.01 * span < values.max() <= high + 1e-6
        assert abs(values.mean() - (low + high) / 2) < 0.01 * span


def test_strong_brightness_stays_above_zero() -> None:
    assert many(200, color=replace(COLOR, brightness=1.5)).brightness.min() >= 0


def test_sizes_of_steps_follow_their_shares() -> None:
    """One draw a step, from (seed, stage, step) alone; shares within 5 standard errors; other draws do not move."""
    crops = CropConfig(mix="64/32/96:3 96/32/144:6 96/48/144:1")
    count = 3000
    drawn = [crops_of_step(5, 1, step, crops) for step in range(count)]
    assert drawn == [crops_of_step(5, 1, step, crops) for step in range(count)]
    assert drawn[:50] != [crops_of_step(6, 1, step, crops) for step in range(50)]
    assert drawn[:50] != [crops_of_step(5, 2, step, crops) for step in range(50)]
    for sizes, share in zip(crops.sizes, (0.3, 0.6, 0.1), strict=True):
        found = sum(one == crops.with_sizes(sizes) for one in drawn) / count
        assert abs(found - share) < 5 * (share * (1 - share) / count) ** 0.5
    assert crops_of_step(5, 1, 7, CROPS) is CROPS


def test_channel_gains_are_log_uniform_and_off_by_default() -> None:
    assert (many(50).gains == 1).all()
    logs = np.log(many(500, color=replace(COLOR, channel_gain=0.4)).gains)
    assert -0.4 <= logs.min() < -0.39 and 0.39 < logs.max() <= 0.4 and abs(logs.mean()) < 0.01
    assert abs(logs.std() - 0.8 / 12**0.5) < 0.01
    plain, gained = many(20), many(20, color=replace(COLOR, channel_gain=0.4))
    assert np.array_equal(plain.hue, gained.hue) and np.array_equal(plain.boxes, gained.boxes)


def test_views_are_independent() -> None:
    draws = many(2000)
    table = np.concatenate([draws.brightness, draws.hue, draws.boxes[:, :, 0]], axis=1)
    correlation = np.corrcoef(table.T) - np.eye(table.shape[1])
    assert np.abs(correlation).max() < 0.12


def test_batches_are_view_major() -> None:
    samples = [draw(0, 0, position, CROPS, COLOR, 64, 64) for position in range(3)]
    batch = ColorDraws.stack(samples, slice(2, None))
    assert len(batch) == 3 * 8
    for view in range(8):
        for row in range(3):
            assert batch.hue[view * 3 + row] == samples[row].color.hue[2 + view]
            assert np.array_equal(batch.gains[view * 3 + row], samples[row].color.gains[2 + view])
    assert np.array_equal(batch.part(slice(3, 5)).blur_sigma, batch.blur_sigma[3:5])
