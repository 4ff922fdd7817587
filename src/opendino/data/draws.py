"""Every random parameter of a sample, from a counter-based generator keyed by (seed, stage, position).

Nothing depends on rank, worker, batch or prefetch: the draws of position 7 are the same wherever and whenever they are
made. Each view reads its own row of numbers, so another count of local crops leaves the other views as they are.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np

from opendino.data.config import ColorConfig, CropConfig

# Tries at a box that fits, before torchvision's fallback to the middle of the picture.
_TRIES = 10
# Columns of a view's row of uniform numbers; new ones take spare ones, so that old draws stay.
_TOP, _LEFT = 2 * _TRIES, 2 * _TRIES + 1
_COINS, _AMOUNTS, _GAINS = slice(22, 27), slice(27, 32), slice(32, 35)
_COLUMNS = 40  # five to spare

# The last word of the counter keeps the streams of different uses apart.
SAMPLE_STREAM, MASK_STREAM, SIZE_STREAM = 0, 1, 2


def counter_generator(seed: int, stage: int, number: int, stream: int) -> np.random.Generator:
    """A generator that is a function of its arguments: `number` is a position or a step, `stream` the use."""
    key, counter = np.array([seed, stage], np.uint64), np.array([0, number, 0, stream], np.uint64)
    return np.random.Generator(np.random.Philox(key=key, counter=counter))


def crops_of_step(seed: int, stage: int, step: int, config: CropConfig) -> CropConfig:
    """The sizes that all crops of a step have, wherever and whenever they are cut: a function of (seed, stage, step).

    One size a step, so that a batch is one tensor and all ranks take equally long.
    """
    if not config.mix:
        return config
    number = counter_generator(seed, stage, step, SIZE_STREAM).random()
    bounds = np.cumsum([sizes.share for sizes in config.sizes])
    return config.with_sizes(config.sizes[int(np.searchsorted(bounds, number * bounds[-1], side="right"))])


@dataclass(frozen=True)
class ColorDraws:
    """What the device still has to do to N crops: the views of one sample, or some views of a batch.

    Args:
        jitter, grey, solarise: [N] bool.
        gains: [N, 3] float32 factors of red, green, blue. brightness, contrast, saturation: [N] float32 factors
            around 1. hue: [N] float32 turns, -0.5 to 0.5. All five only where `jitter`.
        blur_sigma: [N] float32 pixels of the crop, 0 = no blur.
    """

    jitter: np.ndarray
    gains: np.ndarray
    brightness: np.ndarray
    contrast: np.ndarray
    saturation: np.ndarray
    hue: np.ndarray
    grey: np.ndarray
    blur_sigma: np.ndarray
    solarise: np.ndarray

    @classmethod
    def stack(cls, samples: Sequence[Draws], views: slice) -> ColorDraws:
        """Join the chosen views of B samples view-major: all first views, then all second ones, ..."""
        columns = (
            np.stack([getattr(sample.color, field.name)[views] for sample in samples], axis=1) for field in fields(cls)
        )
        return cls(*(column.reshape(-1, *column.shape[2:]) for column in columns))

    def part(self, rows: slice) -> ColorDraws:
        """The parameters of some of the crops."""
        return ColorDraws(*(getattr(self, field.name)[rows] for field in fields(self)))

    def __len__(self) -> int:
        return len(self.jitter)


@dataclass(frozen=True)
class Draws:
    """Random parameters of the V views of one sample: two global crops, then the local ones.

    Args:
        sizes: [V] int64, side of the crop in pixels after resizing.
        boxes: [V, 4] int64 (top, left, height, width) in pixels of the picture.
        flips: [V] bool.
        color: for V crops.
    """

    sizes: np.ndarray
    boxes: np.ndarray
    flips: np.ndarray
    color: ColorDraws


@dataclass(frozen=True)
class _Limits:
    """What does not change from sample to sample, a row for each view.

    Args:
        sizes: [V] int64 pixels. scales: V pairs of shares of the picture's area.
        coins: [V, 5] probabilities of flip, jitter, grey, blur, solarise.
        low, span: [V, 5] smallest value and range of brightness, contrast, saturation, hue, blur sigma.
        gain: largest |log| of a channel's factor.
    """

    sizes: np.ndarray
    scales: tuple[tuple[float, float], ...]
    coins: np.ndarray
    low: np.ndarray
    span: np.ndarray
    gain: float


@functools.lru_cache(maxsize=32)
def _limits(config: CropConfig, color: ColorConfig) -> _Limits:
    local = config.num_locals
    kinds = [0, 1] + [2] * local  # which entry of the triples a view takes
    strengths = (color.brightness, color.contrast, color.saturation)
    low = np.array([*(max(0.0, 1 - strength) for strength in strengths), -color.hue, color.blur_sigma[0]])
    high = np.array([*(1 + strength for strength in strengths), color.hue, color.blur_sigma[1]])
    coins = [
        (config.flip, color.jitter_prob, color.grey_prob, color.blur_prob[kind], color.solarise_prob[kind])
        for kind in kinds
    ]
    return _Limits(
        sizes=np.array([config.global_px] * 2 + [config.local_px] * local, np.int64),
        scales=(config.global_scale,) * 2 + (config.local_scale,) * local,
        coins=np.array(coins),
        low=low,
        span=high - low,
        gain=color.channel_gain,
    )


def draw(
    seed: int, stage: int, position: int, config: CropConfig, color: ColorConfig, height: int, width: int
) -> Draws:
    """Draw the parameters of all views of the sample at `position`, for a picture of height x width pixels.

    Boxes follow torchvision's RandomResizedCrop: area uniform in the scale, log ratio uniform, ten tries, then the
    middle. The device applies channel gains, brightness, contrast, saturation, hue in this order; torchvision shuffles
    the last four anew for each call. Source: arXiv 2508.10104 and DINOv2's augmentations.
    """
    limits = _limits(config, color)
    numbers = counter_generator(seed, stage, position, SAMPLE_STREAM).random((config.num_views, _COLUMNS))
    flips, jitter, grey, blur, solarise = (numbers[:, _COINS] < limits.coins).T
    amounts = (limits.low + limits.span * numbers[:, _AMOUNTS]).astype(np.float32)
    brightness, contrast, saturation, hue, sigma = amounts.T
    boxes = [
        _box(row, scale, config.ratio, height, width)
        for row, scale in zip(numbers[:, : _COINS.start].tolist(), limits.scales, strict=True)
    ]
    return Draws(
        sizes=limits.sizes,
        boxes=np.array(boxes, np.int64),
        flips=flips,
        color=ColorDraws(
            jitter=jitter,
            gains=np.exp(limits.gain * (2 * numbers[:, _GAINS] - 1)).astype(np.float32),
            brightness=brightness,
            contrast=contrast,
            saturation=saturation,
            hue=hue,
            grey=grey,
            blur_sigma=sigma * blur,
            solarise=solarise,
        ),
    )


def _box(
    numbers: list[float], scale: tuple[float, float], ratio: tuple[float, float], height: int, width: int
) -> tuple[int, int, int, int]:
    """Top, left, height, width of one box. Plain numbers: for so few, arrays cost ten times as much."""
    log_low, log_high = math.log(ratio[0]), math.log(ratio[1])
    for try_ in range(_TRIES):
        area = height * width * (scale[0] + (scale[1] - scale[0]) * numbers[try_])
        aspect = math.exp(log_low + (log_high - log_low) * numbers[_TRIES + try_])
        tall, wide = round(math.sqrt(area / aspect)), round(math.sqrt(area * aspect))
        if 0 < tall <= height and 0 < wide <= width:
            top, left = int(numbers[_TOP] * (height - tall + 1)), int(numbers[_LEFT] * (width - wide + 1))
            return top, left, tall, wide
    tall, wide = height, width
    if width / height < ratio[0]:
        tall = min(height, round(width / ratio[0]))
    elif width / height > ratio[1]:
        wide = min(width, round(height * ratio[1]))
    return (height - tall) // 2, (width - wide) // 2, tall, wide
