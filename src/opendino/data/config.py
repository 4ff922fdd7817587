"""What the data room can be told: crops, colour, masks and the source, checked when built."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from opendino.errors import UsageError

Pair = tuple[float, float]
Triple = tuple[float, float, float]


def _require(holds: bool, name: str, allowed: str, value: object, fix: str = "") -> None:
    if not holds:
        raise UsageError(f"data.{name}", f"must be {allowed}, got {value}", fix)


def _finite(*values: float) -> bool:
    return all(math.isfinite(value) for value in values)


def _check_range(name: str, pair: Pair, low: float, high: float) -> None:
    ordered = len(pair) == 2 and _finite(*pair) and low <= pair[0] <= pair[1] <= high
    _require(ordered, name, f"two numbers, the smaller first, within [{low:g}, {high:g}]", pair)


def _check_share(name: str, *values: float) -> None:
    for value in values:
        _require(0 <= value <= 1, name, "a share from 0 to 1", value)


@dataclass(frozen=True)
class CropConfig:
    """Two global crops and `num_locals` local ones of each picture. Source: arXiv 2508.10104; scales of DINOv2.

    `global_scale` and `local_scale` are shares of the picture's area, `ratio` is width / height, `flip` a probability.
    """

    global_px: int = 224
    local_px: int = 96
    num_locals: int = 8
    global_scale: Pair = (0.32, 1.0)
    local_scale: Pair = (0.05, 0.32)
    ratio: Pair = (3 / 4, 4 / 3)
    flip: float = 0.5

    def __post_init__(self) -> None:
        advice = "use a multiple of the model's patch side"
        _require(self.global_px >= 1, "crops.global_px", "a positive number of pixels", self.global_px, advice)
        _require(self.local_px >= 1, "crops.local_px", "a positive number of pixels", self.local_px, advice)
        _require(self.num_locals >= 0, "crops.num_locals", "0 or more", self.num_locals)
        _check_range("crops.global_scale", self.global_scale, 1e-6, 1)
        _check_range("crops.local_scale", self.local_scale, 1e-6, 1)
        _check_range("crops.ratio", self.ratio, 1e-3, 1e3)
        _check_share("crops.flip", self.flip)

    @property
    def num_views(self) -> int:
        """Crops of one picture: the two global ones and the local ones."""
        return 2 + self.num_locals

    def check_patch(self, patch: int) -> None:
        """Raise UsageError unless both crop sides are multiples of the model's patch side in pixels."""
        for name, side in (("global_px", self.global_px), ("local_px", self.local_px)):
            if side % patch:
                near = max(patch, round(side / patch) * patch)
                allowed = f"a positive multiple of the patch side {patch}"
                _require(False, f"crops.{name}", allowed, side, f"the nearest is --data.crops.{name} {near}")


@dataclass(frozen=True)
class ColorConfig:
    """Colour changes of a crop; factors as in torchvision's ColorJitter. Source: DINOv2's augmentations.

    Triples are for (first global crop, second global crop, local crops). `blur_prob` states the probabilities that the
    released models were trained with: the nominal ones (1.0, 0.1, 0.5) pass through a wrapper that inverts them.
    `channel_gain` g, not of the paper: where jitter falls, each channel is multiplied by its own exp(U(-g, g)), as
    another light or white balance would; for pictures whose colour should not count.
    """

    jitter_prob: float = 0.8
    brightness: float = 0.4
    contrast: float = 0.4
    saturation: float = 0.2
    hue: float = 0.1
    channel_gain: float = 0.0
    grey_prob: float = 0.2
    blur_prob: Triple = (0.0, 0.9, 0.5)
    blur_sigma: Pair = (0.1, 2.0)
    solarise_prob: Triple = (0.0, 0.2, 0.0)

    def __post_init__(self) -> None:
        _check_share("color.jitter_prob", self.jitter_prob)
        _check_share("color.grey_prob", self.grey_prob)
        for name in ("blur_prob", "solarise_prob"):
            triple = getattr(self, name)
            _require(len(triple) == 3, f"color.{name}", "three shares (view 1, view 2, local)", triple)
            _check_share(f"color.{name}", *triple)
        for name in ("brightness", "contrast", "saturation", "channel_gain"):
            strength = getattr(self, name)
            _require(_finite(strength) and strength >= 0, f"color.{name}", "0 or more", strength)
        _require(0 <= self.hue <= 0.5, "color.hue", "from 0 to 0.5 turns", self.hue)
        _check_range("color.blur_sigma", self.blur_sigma, 1e-3, 100)


@dataclass(frozen=True)
class MaskConfig:
    """Block masks of the global crops: a share of crops is masked, by shares of patches spread over `ratio`.

    `min_patches` is the smallest block, `max_patches_ratio` the largest as a share of the grid, `aspect` the smaller
    end of the block's log-uniform height / width. Source: BEiT (arXiv 2106.08254), values of DINOv2.
    """

    probability: float = 0.5
    ratio: Pair = (0.1, 0.5)
    min_patches: int = 4
    max_patches_ratio: float = 0.5
    aspect: float = 0.3

    def __post_init__(self) -> None:
        _check_share("masks.probability", self.probability)
        _check_range("masks.ratio", self.ratio, 0, 1)
        _require(self.min_patches >= 1, "masks.min_patches", "1 or more", self.min_patches)
        _check_share("masks.max_patches_ratio", self.max_patches_ratio)
        _require(0 < self.aspect <= 1, "masks.aspect", "above 0 and at most 1", self.aspect)


@dataclass(frozen=True)
class DataConfig:
    """Where pictures come from and how a batch is made.

    `batch_size` counts pictures of the whole batch. `workers` processes decode and cut; 0 does it in the training
    process. `cache_mb` keeps decoded pictures in memory, split over workers. `max_bad` is the share of pictures that
    may fail to read before the run stops (10 always may, of few pictures half of them). `mean` and `std` are of RGB in
    [0, 1].
    """

    path: str = ""
    batch_size: int = 64
    seed: int = 0
    workers: int = 0
    cache_mb: int = 0
    max_bad: float = 0.01
    crops: CropConfig = field(default_factory=CropConfig)
    color: ColorConfig = field(default_factory=ColorConfig)
    masks: MaskConfig = field(default_factory=MaskConfig)
    mean: Triple = (0.485, 0.456, 0.406)
    std: Triple = (0.229, 0.224, 0.225)

    def __post_init__(self) -> None:
        _require(self.batch_size >= 1, "batch_size", "1 or more pictures", self.batch_size)
        _require(0 <= self.seed < 2**63, "seed", "from 0 to 2^63 - 1", self.seed)
        _require(self.workers >= 0, "workers", "0 or more processes", self.workers)
        _require(self.cache_mb >= 0, "cache_mb", "0 or more MB", self.cache_mb)
        _check_share("max_bad", self.max_bad)
        _require(len(self.mean) == 3 and _finite(*self.mean), "mean", "three numbers (RGB in [0, 1])", self.mean)
        positive = len(self.std) == 3 and _finite(*self.std) and min(self.std) > 0
        _require(positive, "std", "three positive numbers (RGB in [0, 1])", self.std)
