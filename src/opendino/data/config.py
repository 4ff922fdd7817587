"""What the data room can be told: crops, colour, masks and the source, checked when built."""

from __future__ import annotations

import functools
import math
import re
from dataclasses import dataclass, field, replace

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
class CropSizes:
    """Sides in pixels of one step's crops, gram_px 0 without a Gram teacher, and the share of steps that have them."""

    global_px: int
    local_px: int
    gram_px: int
    share: float

    def __post_init__(self) -> None:
        advice = "use a multiple of the model's patch side"
        for name in ("global_px", "local_px"):
            _require(
                getattr(self, name) >= 1, f"crops.{name}", "a positive number of pixels", getattr(self, name), advice
            )
        fits = self.gram_px == 0 or self.gram_px >= self.global_px
        allowed = f"0, or at least as large as the global crops of {self.global_px} px"
        _require(fits, "crops.gram_px", allowed, self.gram_px, "the Gram teacher must see at least as many patches")
        _require(_finite(self.share) and self.share > 0, "crops.mix", "made of shares above 0", self.share)


_MIX = re.compile(r"(\d+)/(\d+)(?:/(\d+))?:(\d*\.?\d+)")


@functools.lru_cache(maxsize=8)
def parse_mix(text: str) -> tuple[CropSizes, ...]:
    """Read "512/112/768:0.3, 768/112/1152:0.7", sides of global, local and Gram crops with the share of the steps.

    Raises UsageError for another form, a share of 0, or Gram crops smaller than the global ones.
    """
    found = []
    for part in text.replace(",", " ").split():
        match = _MIX.fullmatch(part)
        if match is None:
            form = "sides and shares such as 64/32/96:0.5 96/32/144:0.5 (global/local/Gram:share)"
            raise UsageError("data.crops.mix", f"must be {form}, got {part!r}")
        global_px, local_px, gram_px, share = match.groups()
        found.append(CropSizes(int(global_px), int(local_px), int(gram_px or 0), float(share)))
    return tuple(found)


@dataclass(frozen=True)
class CropConfig:
    """Two global crops and `num_locals` local ones of each picture. Source: arXiv 2508.10104; scales of DINOv2."""

    global_px: int = 224
    """Side of the two global crops."""
    local_px: int = 96
    """Side of the local crops."""
    num_locals: int = 8
    """Local crops of a picture."""
    global_scale: Pair = (0.32, 1.0)
    """Smallest and largest share of the picture's area."""
    local_scale: Pair = (0.05, 0.32)
    """The same of local crops."""
    ratio: Pair = (3 / 4, 4 / 3)
    """Smallest and largest width / height of what is cut."""
    flip: float = 0.5
    """Probability of a left-right flip."""
    gram_px: int = 0
    """Side of the Gram teacher's crops: the global ones, cut larger and left undistorted; 0: none."""
    mix: str = ""
    """Sizes that take turns at random in the place of the three sides, one for all crops of a step:
    GLOBAL/LOCAL/GRAM:SHARE with spaces between, such as 512/112/768:0.3 768/112/1152:0.7."""

    def __post_init__(self) -> None:
        parse_mix(self.mix)
        CropSizes(self.global_px, self.local_px, self.gram_px, 1.0)
        _require(self.num_locals >= 0, "crops.num_locals", "0 or more", self.num_locals)
        _check_range("crops.global_scale", self.global_scale, 1e-6, 1)
        _check_range("crops.local_scale", self.local_scale, 1e-6, 1)
        _check_range("crops.ratio", self.ratio, 1e-3, 1e3)
        _check_share("crops.flip", self.flip)

    @property
    def num_views(self) -> int:
        """Crops of one picture: the two global ones and the local ones."""
        return 2 + self.num_locals

    @property
    def sizes(self) -> tuple[CropSizes, ...]:
        """What the steps have: one size, or those of `mix`."""
        return parse_mix(self.mix) or (CropSizes(self.global_px, self.local_px, self.gram_px, 1.0),)

    def with_sizes(self, sizes: CropSizes) -> CropConfig:
        """The same crops of one size."""
        return replace(self, global_px=sizes.global_px, local_px=sizes.local_px, gram_px=sizes.gram_px, mix="")

    def check_patch(self, patch: int) -> None:
        """Raise UsageError unless all crop sides are multiples of the model's patch side in pixels.

        The published high-resolution stage has local crops of 168 px for patches of 16: its model drops what is left of
        a side, 8 px here, in silence. Here sides are refused instead, and recipes round them down (160 px, the same
        10 x 10 patches).
        """
        for sizes in self.sizes:
            for name in ("global_px", "local_px", "gram_px"):
                side = getattr(sizes, name)
                if side % patch:
                    near = max(patch, round(side / patch) * patch)
                    allowed = f"a positive multiple of the patch side {patch}"
                    fix = f"the nearest is --data.crops.{name} {near}" if not self.mix else f"the nearest is {near}"
                    _require(False, f"crops.{name if not self.mix else 'mix'}", allowed, side, fix)


@dataclass(frozen=True)
class ColorConfig:
    """Colour changes of a crop; factors as in torchvision's ColorJitter. Source: DINOv2's augmentations."""

    jitter_prob: float = 0.8
    """Probability that brightness, contrast, saturation, hue and channel gain change."""
    brightness: float = 0.4
    """Factor from 1 - x to 1 + x."""
    contrast: float = 0.4
    """Factor from 1 - x to 1 + x."""
    saturation: float = 0.2
    """Factor from 1 - x to 1 + x."""
    hue: float = 0.1
    """Turn of the colour circle, from -x to x."""
    channel_gain: float = 0.0
    """g, not of the paper: each channel times its own exp(U(-g, g)); for when colour should not count."""
    grey_prob: float = 0.2
    """Probability that a crop loses its colour."""
    blur_prob: Triple = (0.0, 0.9, 0.5)
    """Of the first global, the second global and the local crops, as the released models were trained: the nominal
    (1.0, 0.1, 0.5) pass through a wrapper that inverts them."""
    blur_sigma: Pair = (0.1, 2.0)
    """Smallest and largest blur in pixels."""
    solarise_prob: Triple = (0.0, 0.2, 0.0)
    """Of the first global, the second global and the local crops."""

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
    """Block masks of the global crops. Source: BEiT (arXiv 2106.08254), values of DINOv2."""

    probability: float = 0.5
    """Share of the global crops that are masked."""
    ratio: Pair = (0.1, 0.5)
    """Shares of patches masked, spread evenly over the masked crops."""
    min_patches: int = 4
    """Smallest block."""
    max_patches_ratio: float = 0.5
    """Largest block as a share of the grid."""
    aspect: float = 0.3
    """Smaller end of the block's log-uniform height / width."""

    def __post_init__(self) -> None:
        _check_share("masks.probability", self.probability)
        _check_range("masks.ratio", self.ratio, 0, 1)
        _require(self.min_patches >= 1, "masks.min_patches", "1 or more", self.min_patches)
        _check_share("masks.max_patches_ratio", self.max_patches_ratio)
        _require(0 < self.aspect <= 1, "masks.aspect", "above 0 and at most 1", self.aspect)


@dataclass(frozen=True)
class DataConfig:
    """Where pictures come from and how a batch is made."""

    path: str = ""
    """The pictures."""
    batch_size: int = 64
    """Pictures of a whole batch."""
    seed: int = 0
    """Of order, crops, colours and masks."""
    workers: int = 0
    """Processes that decode and cut; 0 does it in the training process."""
    cache_mb: int = 0
    """Memory for decoded pictures, split over workers."""
    max_bad: float = 0.01
    """Share of pictures that may fail to read before the run stops; 10 always may, of few pictures half of them."""
    crops: CropConfig = field(default_factory=CropConfig)
    color: ColorConfig = field(default_factory=ColorConfig)
    masks: MaskConfig = field(default_factory=MaskConfig)
    mean: Triple = (0.485, 0.456, 0.406)
    """Of RGB in [0, 1], taken off."""
    std: Triple = (0.229, 0.224, 0.225)
    """Of RGB in [0, 1], divided by."""

    def __post_init__(self) -> None:
        _require(self.batch_size >= 1, "batch_size", "1 or more pictures", self.batch_size)
        _require(0 <= self.seed < 2**63, "seed", "from 0 to 2^63 - 1", self.seed)
        _require(self.workers >= 0, "workers", "0 or more processes", self.workers)
        _require(self.cache_mb >= 0, "cache_mb", "0 or more MB", self.cache_mb)
        _check_share("max_bad", self.max_bad)
        _require(len(self.mean) == 3 and _finite(*self.mean), "mean", "three numbers (RGB in [0, 1])", self.mean)
        positive = len(self.std) == 3 and _finite(*self.std) and min(self.std) > 0
        _require(positive, "std", "three positive numbers (RGB in [0, 1])", self.std)
