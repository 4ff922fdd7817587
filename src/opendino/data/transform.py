"""The transform that pictures get at inference, and its form as a Hugging Face preprocessor file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from opendino.data.images import Image
from opendino.errors import DataError, UsageError, WeightsError

# Pillow's numbers for filters, which preprocessor files use.
RESAMPLE = {"bilinear": 2, "bicubic": 3}
MODES = ("square", "center", "whole", "padded")


@dataclass(frozen=True)
class Prepared:
    """A picture as the model sees it, and which patches of it are real.

    pixels: [C, H, W] float32, normalised, both sides multiples of the patch (or what its stride asks for).
    valid: [h, w] bool: at least half of the patch's rows and columns come from the picture, not from padding.
    height, width: of the picture inside `pixels`, from its top left corner, in pixels.
    """

    pixels: Tensor
    valid: Tensor
    height: int
    width: int


@dataclass(frozen=True)
class Transform:
    """uint8 picture to a normalised float tensor: rescale to [0, 1], antialiased resize, normalise.

    Args:
        size: side in pixels, a multiple of `patch`.
        mode: `square` squeezes the picture to size x size (as the released DINOv3 models expect);
            `center` brings the short side to size / share and cuts the middle size x size;
            `whole` keeps the shape: the short side becomes `size`, the long side the nearest multiple of `patch`;
            `padded` keeps the shape to the pixel: the short side becomes `size`, the long side is reflected at its end
            up to the next multiple of `patch` (see `Prepared.valid`).
        mean, std: of each channel in [0, 1]; there are three unless the model takes others.
        patch: patch side of the model in pixels.
        filter: `bilinear` resizes numbers in [0, 1], as DINOv3's processor; `bicubic` resizes uint8 and rounds, as
            DINOv2's processor and timm's.
        share: for `center`, of the short side that the cut keeps; 7/8 is 224 of 256.
        stride: pixels from patch to patch where they overlap; None is the patch side.
    Raises:
        UsageError: unknown mode or filter, or size is no positive multiple of patch.
    """

    size: int = 224
    mode: Literal["square", "center", "whole", "padded"] = "square"
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    std: tuple[float, ...] = (0.229, 0.224, 0.225)
    patch: int = 16
    filter: Literal["bilinear", "bicubic"] = "bilinear"
    share: float = 0.875
    stride: int | None = None

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise UsageError("transform.mode", f"must be one of {', '.join(MODES)}, got {self.mode}")
        if self.filter not in RESAMPLE:
            raise UsageError("transform.filter", f"must be one of {', '.join(RESAMPLE)}, got {self.filter}")
        if self.stride is not None and not 1 <= self.stride <= self.patch:
            raise UsageError("transform.stride", f"must be from 1 to the patch side {self.patch}, got {self.stride}")
        if not 0 < self.share <= 1:
            raise UsageError("transform.share", f"must be above 0 and at most 1, got {self.share}")
        if self.patch < 1:
            raise UsageError("transform.patch", f"must be a positive number of pixels, got {self.patch}")
        if self.size < self.patch or self.size % self.patch:
            near = max(self.patch, round(self.size / self.patch) * self.patch)
            cause = f"must be a positive multiple of the patch side {self.patch}, got {self.size}"
            raise UsageError("transform.size", cause, f"the nearest is {near}")
        if len(self.std) != len(self.mean) or not self.std or min(self.std) <= 0:
            raise UsageError("transform.std", f"must be {len(self.mean)} positive numbers, got {self.std}")

    def resized(self, height: int, width: int) -> tuple[int, int]:
        """Height and width in pixels that a picture is resized to, before it is cut or padded."""
        if self.mode == "square":
            return self.size, self.size
        short = self.short_side if self.mode == "center" else self.size
        scale = short / min(height, width)
        unit = self.patch if self.mode == "whole" else 1

        def side(length: int) -> int:
            if self.mode == "center":
                return max(short, length * short // min(height, width))  # rounded down, as all processors do
            return max(short, round(length * scale / unit) * unit)

        return side(height), side(width)

    @property
    def short_side(self) -> int:
        """What `center` brings the short side to before it cuts."""
        return round(self.size / self.share)

    def grid(self, height: int, width: int) -> tuple[int, int]:
        """Rows and columns of patches that a picture of these sides becomes."""
        rows, columns = (self.size, self.size) if self.mode == "center" else self.resized(height, width)
        return count_patches(rows, self.patch, self.stride), count_patches(columns, self.patch, self.stride)

    def apply(self, image: Image) -> Tensor:
        """The tensor [C, H, W] float32 that the model sees; H = W = size in the modes `square` and `center`."""
        return self.prepare(image).pixels

    def prepare(self, image: Image) -> Prepared:
        """As `apply`, with the patches that padding made marked."""
        target = self.resized(*image.full_size)
        if self.filter == "bicubic":
            pixels = _unit_range(_resized(_channels_first(image.array), target, "bicubic"))
        else:
            pixels = _resized(_unit_range(_channels_first(image.array)), target, "bilinear")
        if self.mode == "center":
            top, left = (target[0] - self.size) // 2, (target[1] - self.size) // 2
            pixels = pixels[:, top : top + self.size, left : left + self.size]
        return self._padded(self._normalised(pixels))

    def prepare_unscaled(self, array: np.ndarray) -> Prepared:
        """A picture or a part of one, uint8 [H, W, 3], at its own resolution: normalised and padded, not resized."""
        return self._padded(self._normalised(_unit_range(_channels_first(array))))

    def _normalised(self, pixels: Tensor) -> Tensor:
        wanted = len(self.mean)
        if len(pixels) == 3 and wanted == 1:
            pixels = pixels.mean(0, keepdim=True)
        if len(pixels) != wanted:
            cause = f"has {len(pixels)} channels, the model takes {wanted} (--channels {len(pixels)} changes that)"
            bands = list(range(wanted))
            fix = f'or {{"bands": {bands}}} in opendino-reading.json beside the pictures'
            raise DataError("picture", cause, fix)
        return (pixels - torch.tensor(self.mean)[:, None, None]) / torch.tensor(self.std)[:, None, None]

    def _padded(self, pixels: Tensor) -> Prepared:
        height, width = pixels.shape[1:]
        step = self.stride or self.patch
        padded = tuple(self.patch + (count_patches(side, self.patch, step) - 1) * step for side in (height, width))
        if padded != (height, width):
            pixels = pixels[:, _reflected(height, padded[0])][:, :, _reflected(width, padded[1])]
        return Prepared(pixels, valid_patches(height, width, self.patch, step), height, width)

    def to_dict(self) -> dict[str, Any]:
        """Fields of preprocessor_config.json. `transformers` reads `square` and `center` to the same pixels."""
        ours: dict[str, Any] = {"mode": self.mode, "patch": self.patch}
        if self.stride is not None:
            ours["stride"] = self.stride
        # DINOv3's processor would divide before it resizes; DINOv2's, as this transform, after.
        kind = "DINOv3ViTImageProcessorFast" if self.filter == "bilinear" else "BitImageProcessor"
        fields: dict[str, Any] = {
            "image_processor_type": kind,
            "do_rescale": True,
            "rescale_factor": 1 / 255,
            "do_resize": True,
            "resample": RESAMPLE[self.filter],
            "size": {"height": self.size, "width": self.size},
            "do_normalize": True,
            "image_mean": list(self.mean),
            "image_std": list(self.std),
            "do_center_crop": self.mode == "center",
            "opendino": ours,
        }
        if self.mode == "center":
            fields["size"] = {"shortest_edge": self.short_side}
            fields["crop_size"] = {"height": self.size, "width": self.size}
        elif self.mode in ("whole", "padded"):
            fields["size"] = {"shortest_edge": self.size}
        return fields

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any], patch: int = 16) -> Transform:
        """Read preprocessor fields, ours or another writer's; missing ones take DINOv3's defaults.

        Raises:
            WeightsError: a field asks for what this transform does not do (another filter, sides that differ).
        """
        ours = fields.get("opendino", {})
        resample = fields.get("resample", RESAMPLE["bilinear"]) if fields.get("do_resize", True) else 2
        filters = [name for name, number in RESAMPLE.items() if number == resample]
        if not filters:
            cause = f"resample {resample} is neither bilinear (2) nor bicubic (3)"
            raise WeightsError("preprocessor_config.json", cause, "give the transform by hand")
        cut = bool(fields.get("do_center_crop"))
        size = _side(fields.get("size", 224))
        mode = ours.get("mode") or ("center" if cut else "square")
        if not cut and isinstance(fields.get("size"), Mapping) and "shortest_edge" in fields["size"] and not ours:
            mode = "whole"
        side = _side(fields.get("crop_size", 224)) if cut else size
        mean, std = (
            tuple(map(float, fields.get(f"image_{name}") or default))
            for name, default in (("mean", cls.mean), ("std", cls.std))
        )
        stated = cut and "size" in fields and size != round(side / cls.share)
        stride = ours.get("stride")
        return cls(
            size=side,
            mode=mode,  # type: ignore[arg-type]
            mean=mean,
            std=std,
            patch=int(ours.get("patch", patch)),
            filter=filters[0],  # type: ignore[arg-type]
            share=side / size if stated else cls.share,
            stride=None if stride is None else int(stride),
        )


def count_patches(length: int, patch: int, stride: int | None = None) -> int:
    """How many patches cover a side of `length` pixels, the last one in part beyond its end."""
    return 1 + max(0, -(-(length - patch) // (stride or patch)))


def _side(value: Any) -> int:
    """A side in pixels, from a number or from fields that all say the same."""
    if not isinstance(value, Mapping):
        return int(value)
    sides = {int(value[key]) for key in ("height", "width", "shortest_edge") if key in value}
    if len(sides) != 1:
        raise WeightsError("preprocessor_config.json", f"size {dict(value)} is not one side", "give one side")
    return sides.pop()


def _channels_first(array: np.ndarray) -> Tensor:
    """uint8 [H, W, C] -> uint8 [C, H, W]."""
    return torch.from_numpy(np.ascontiguousarray(array)).permute(2, 0, 1)


def _unit_range(pixels: Tensor) -> Tensor:
    """uint8 -> float32 in [0, 1]."""
    return pixels.to(torch.float32, memory_format=torch.contiguous_format) / 255


def _resized(pixels: Tensor, size: tuple[int, int], mode: str) -> Tensor:
    return F.interpolate(pixels[None], size=size, mode=mode, align_corners=False, antialias=True)[0]


def _reflected(length: int, padded: int) -> Tensor:
    """Places 0 to padded - 1 of a side, those beyond its end mirrored at its last pixel."""
    places = torch.arange(padded)
    return torch.where(places < length, places, (2 * (length - 1) - places).clamp(min=0))


def valid_patches(height: int, width: int, patch: int, stride: int | None = None) -> Tensor:
    """[h, w] bool, the grid that covers the sides: patches of which at least half of each side lies inside."""
    step = stride or patch
    valid = torch.zeros(count_patches(height, patch, step), count_patches(width, patch, step), dtype=torch.bool)
    rows, columns = (max(1, (2 * length - patch) // (2 * step) + 1) for length in (height, width))
    valid[:rows, :columns] = True
    return valid
