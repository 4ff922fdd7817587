"""Device augmentation against torchvision's functional operations given the same draws."""

from __future__ import annotations

from dataclasses import replace

import kornia
import numpy as np
import pytest
import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as oracle

from opendino.data.augment import _shift_hue, augment
from opendino.data.config import ColorConfig, CropConfig, DataConfig
from opendino.data.draws import ColorDraws, draw
from opendino.errors import ShapeError
from tests.data.drawing import photo

MEAN, STD = DataConfig().mean, DataConfig().std
LEVEL = 1 / 255


def crops(count: int, side: int = 32) -> Tensor:
    return torch.stack([torch.from_numpy(photo(number, side, side)).permute(2, 0, 1) for number in range(count)])


def no_draws(count: int) -> ColorDraws:
    off, one, zero = np.zeros(count, bool), np.ones(count, np.float32), np.zeros(count, np.float32)
    return ColorDraws(off, np.ones((count, 3), np.float32), one, one, one, zero, off, zero, off)


def random_draws(count: int) -> ColorDraws:
    config = CropConfig(num_locals=count - 2)
    color = ColorConfig(grey_prob=0.3, blur_prob=(0.5,) * 3, solarise_prob=(0.4,) * 3)
    return ColorDraws.stack([draw(7, 0, 0, config, color, 100, 100)], slice(0, count))


def shown(result: Tensor) -> Tensor:
    """Back to [0, 1]."""
    return result * torch.tensor(STD)[:, None, None] + torch.tensor(MEAN)[:, None, None]


def test_without_draws_crops_are_only_normalised() -> None:
    pictures = crops(3)
    expected = oracle.normalize(pictures.float() / 255, list(MEAN), list(STD))
    assert torch.equal(augment(pictures, no_draws(3), MEAN, STD), expected)


@pytest.mark.parametrize("name", ["brightness", "contrast", "saturation", "hue"])
def test_each_colour_change_is_torchvisions(name: str) -> None:
    pictures = crops(8)
    factors = np.linspace(*((-0.5, 0.5) if name == "hue" else (0.0, 1.9)), 8).astype(np.float32)
    draws = replace(no_draws(8), jitter=np.ones(8, bool), **{name: factors})
    change = getattr(oracle, f"adjust_{name}")
    expected = torch.stack([change(p / 255, float(f)) for p, f in zip(pictures.float(), factors, strict=True)])
    assert (expected - pictures / 255).abs().max() > 0.1
    assert (shown(augment(pictures, draws, MEAN, STD)) - expected).abs().max() < LEVEL


def test_channel_gains_multiply_and_clamp() -> None:
    pictures, on = crops(3), np.array([True, False, True])
    gains = np.array([[0.5, 1.0, 3.0], [9.0, 9.0, 9.0], [1.2, 0.8, 1.0]], np.float32)
    result = shown(augment(pictures, replace(no_draws(3), jitter=on, gains=gains), MEAN, STD))
    for index, picture in enumerate(pictures / 255):
        expected = (picture * torch.from_numpy(gains[index])[:, None, None]).clamp(0, 1) if on[index] else picture
        assert (result[index] - expected).abs().max() < 1e-5


def test_blur_is_torchvisions_also_at_the_border() -> None:
    sigmas = np.array([0.1, 0.5, 1.0, 1.7, 2.0], np.float32)
    pictures = crops(5)
    result = augment(pictures, replace(no_draws(5), blur_sigma=sigmas), MEAN, STD)
    expected = torch.stack(
        [oracle.gaussian_blur(p / 255, [9, 9], [float(s)] * 2) for p, s in zip(pictures.float(), sigmas, strict=True)]
    )
    assert (shown(result) - expected).abs().max() < LEVEL


def test_grey_and_solarise_are_torchvisions() -> None:
    pictures, on = crops(4), np.array([True, False, True, False])
    grey = shown(augment(pictures, replace(no_draws(4), grey=on), MEAN, STD))
    solarised = shown(augment(pictures, replace(no_draws(4), solarise=on), MEAN, STD))
    for index, picture in enumerate(pictures):
        plain = picture / 255
        expected = oracle.rgb_to_grayscale(plain, 3) if on[index] else plain
        assert (grey[index] - expected).abs().max() < LEVEL
        # The integer form is the meaning: values from 128 on are inverted.
        whole = oracle.solarize(picture, 128) if on[index] else picture
        assert (solarised[index] - whole / 255).abs().max() < 1e-5


def test_the_whole_chain_is_torchvisions() -> None:
    count = 40
    pictures, draws = crops(count), random_draws(count)
    result = shown(augment(pictures, draws, MEAN, STD))
    assert draws.jitter.any() and draws.grey.any() and draws.solarise.any() and (draws.blur_sigma > 0).any()
    for index in range(count):
        expected = pictures[index] / 255
        if draws.jitter[index]:
            expected = oracle.adjust_brightness(expected, float(draws.brightness[index]))
            expected = oracle.adjust_contrast(expected, float(draws.contrast[index]))
            expected = oracle.adjust_saturation(expected, float(draws.saturation[index]))
            expected = oracle.adjust_hue(expected, float(draws.hue[index]))
        if draws.grey[index]:
            expected = oracle.rgb_to_grayscale(expected, 3)
        if draws.blur_sigma[index]:
            expected = oracle.gaussian_blur(expected, [9, 9], [float(draws.blur_sigma[index])] * 2)
        difference = (
            result[index] - (oracle.solarize(expected, 128 / 255) if draws.solarise[index] else expected)
        ).abs()
        # A value that stands on the threshold to a millionth may fall on either side of it.
        assert (difference > LEVEL).float().mean() < (1e-3 if draws.solarise[index] else 1e-9)


@pytest.mark.parametrize(("side", "count"), [(16, 30), (32, 30), (96, 12), (224, 5), (256, 3)])
def test_a_crop_does_not_depend_on_its_batch(side: int, count: int) -> None:
    pictures, draws = crops(count, side), random_draws(count)
    together = augment(pictures, draws, MEAN, STD)
    for index in range(count):
        alone = augment(pictures[index : index + 1], draws.part(slice(index, index + 1)), MEAN, STD)
        assert torch.equal(together[index], alone[0]), index


def test_hue_is_kornias() -> None:
    """Also at grey, black, white and pure colours, where hue or its neighbours are undefined."""
    corners = torch.tensor([[r, g, b] for r in (0.0, 0.5, 1.0) for g in (0.0, 0.5, 1.0) for b in (0.0, 0.5, 1.0)])
    pictures = torch.cat(
        [
            torch.rand(6, 3, 27, 9, generator=torch.Generator().manual_seed(0)),
            corners.T.expand(6, 3, 27)[..., None].expand(6, 3, 27, 9),
        ]
    )
    turns = torch.linspace(-0.5, 0.5, 12)
    expected = kornia.enhance.adjust_hue(pictures, turns * 2 * torch.pi)
    assert (_shift_hue(pictures, turns) - expected).abs().max() < 1e-5


def test_input_is_left_alone_and_empty_is_fine() -> None:
    pictures = crops(4)
    before = pictures.clone()
    augment(pictures, random_draws(4), MEAN, STD)
    assert torch.equal(pictures, before)
    assert augment(pictures[:0], no_draws(0), MEAN, STD).shape == (0, 3, 32, 32)


def test_counts_must_agree() -> None:
    with pytest.raises(ShapeError, match="4 crops but draws for 3"):
        augment(crops(4), no_draws(3), MEAN, STD)
