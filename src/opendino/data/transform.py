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
from opendino.errors import UsageError, WeightsError

BILINEAR = 2
MODES = ("square", "center", "whole", "padded")


@dataclass(frozen=True)
class Prepared:
    """A picture as the model sees it, and which patches of it are real.

    pixels: [3, H, W] float32, normalised, both sides multiples of the patch.
    valid: [h, w] bool: at least half of the patch's rows and columns come from the picture, not from padding.
    height, width: of the picture inside `pixels`, from its top left corner, in pixels.
    """

    pixels: Tensor
    valid: Tensor
    height: int
    width: int


@dataclass(frozen=True)
class Transform:
    """RGB uint8 picture to a normalised float tensor: rescale to [0, 1], bilinear antialiased resize, normalise.

    Args:
        size: side in pixels, a multiple of `patch`.
        mode: `square` squeezes the picture to size x size (as the released DINOv3 models expect);
            `center` brings the short side to size * 8/7 (256 for 224) and cuts the middle size x size;
            `whole` keeps the shape: the short side becomes `size`, the long side the nearest multiple of `patch`;
            `padded` keeps the shape to the pixel: the short side becomes `size`, the long side is reflected at its end
            up to the next multiple of `patch` (see `Prepared.valid`).
        mean, std: of RGB in [0, 1].
        patch: patch side of the model in pixels.
    Raises:
        UsageError: unknown mode, or size is no positive multiple of patch.
    """

    size: int = 224
    mode: Literal["square", "center", "whole", "padded"] = "square"
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)
    patch: int = 16

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise UsageError("transform.mode", f"must be one of {', '.join(MODES)}, got {self.mode}")
        if self.patch < 1:
            raise UsageError("transform.patch", f"must be a positive number of pixels, got {self.patch}")
        if self.size < self.patch or self.size % self.patch:
            near = max(self.patch, round(self.size / self.patch) * self.patch)
            cause = f"must be a positive multiple of the patch side {self.patch}, got {self.size}"
            raise UsageError("transform.size", cause, f"the nearest is {near}")
        if min(self.std) <= 0:
            raise UsageError("transform.std", f"must be three positive numbers, got {self.std}")

    def resized(self, height: int, width: int) -> tuple[int, int]:
        """Height and width in pixels that a picture is resized to, before it is cut or padded."""
        if self.mode == "square":
            return self.size, self.size
        short = round(self.size * 8 / 7) if self.mode == "center" else self.size
        scale = short / min(height, width)
        unit = self.patch if self.mode == "whole" else 1

        def side(length: int) -> int:
            return max(short, round(length * scale / unit) * unit)

        return side(height), side(width)

    def apply(self, image: Image) -> Tensor:
        """The tensor [3, H, W] float32 that the model sees; H = W = size in the modes `square` and `center`."""
        return self.prepare(image).pixels

    def prepare(self, image: Image) -> Prepared:
        """As `apply`, with the patches that padding made marked."""
        # The division comes first and in float, as in the reference processor: resizing uint8 would round.
        pixels = _unit_range(image.array)
        target = self.resized(*image.full_size)
        pixels = F.interpolate(pixels[None], size=target, mode="bilinear", align_corners=False, antialias=True)[0]
        if self.mode == "center":
            top, left = (target[0] - self.size) // 2, (target[1] - self.size) // 2
            pixels = pixels[:, top : top + self.size, left : left + self.size]
        return self._padded(self._normalised(pixels))

    def prepare_unscaled(self, array: np.ndarray) -> Prepared:
        """A picture or a part of one, uint8 [H, W, 3], at its own resolution: normalised and padded, not resized."""
        return self._padded(self._normalised(_unit_range(array)))

    def _normalised(self, pixels: Tensor) -> Tensor:
        return (pixels - torch.tensor(self.mean)[:, None, None]) / torch.tensor(self.std)[:, None, None]

    def _padded(self, pixels: Tensor) -> Prepared:
        height, width = pixels.shape[1:]
        rows, columns = -(-height // self.patch), -(-width // self.patch)
        if (rows * self.patch, columns * self.patch) != (height, width):
            pixels = pixels[:, _reflected(height, rows * self.patch)][:, :, _reflected(width, columns * self.patch)]
        return Prepared(pixels, valid_patches(height, width, self.patch), height, width)

    def to_dict(self) -> dict[str, Any]:
        """Fields of preprocessor_config.json. `transformers` reads `square` and `center` to the same pixels."""
        fields: dict[str, Any] = {
            "image_processor_type": "DINOv3ViTImageProcessorFast",
            "do_rescale": True,
            "rescale_factor": 1 / 255,
            "do_resize": True,
            "resample": BILINEAR,
            "size": {"height": self.size, "width": self.size},
            "do_normalize": True,
            "image_mean": list(self.mean),
            "image_std": list(self.std),
            "do_center_crop": self.mode == "center",
            "opendino": {"mode": self.mode, "patch": self.patch},
        }
        if self.mode == "center":
            fields["size"] = {"shortest_edge": round(self.size * 8 / 7)}
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
        patch = int(ours.get("patch", patch))
        if fields.get("do_resize", True) and fields.get("resample", BILINEAR) != BILINEAR:
            cause = f"resample {fields['resample']} is not bilinear ({BILINEAR})"
            raise WeightsError("preprocessor_config.json", cause, "give the transform by hand")
        side = fields.get("crop_size" if fields.get("do_center_crop") else "size", 224)
        mode = ours.get("mode") or ("center" if fields.get("do_center_crop") else "square")
        if isinstance(side, Mapping):
            sides = {int(side[key]) for key in ("height", "width", "shortest_edge") if key in side}
            if len(sides) != 1:
                raise WeightsError("preprocessor_config.json", f"size {dict(side)} is not one side", "give one side")
            if "shortest_edge" in side and "opendino" not in fields:
                mode = "whole"
            side = sides.pop()
        mean, std = (
            tuple(map(float, fields.get(f"image_{name}") or default))
            for name, default in (("mean", cls.mean), ("std", cls.std))
        )
        return cls(size=int(side), mode=mode, mean=mean, std=std, patch=patch)  # type: ignore[arg-type]


def _unit_range(array: np.ndarray) -> Tensor:
    """uint8 [H, W, 3] -> float32 [3, H, W] in [0, 1]."""
    pixels = torch.from_numpy(np.ascontiguousarray(array)).permute(2, 0, 1)
    return pixels.to(torch.float32, memory_format=torch.contiguous_format) / 255


def _reflected(length: int, padded: int) -> Tensor:
    """Places 0 to padded - 1 of a side, those beyond its end mirrored at its last pixel."""
    places = torch.arange(padded)
    return torch.where(places < length, places, (2 * (length - 1) - places).clamp(min=0))


def valid_patches(height: int, width: int, patch: int) -> Tensor:
    """[ceil(height / patch), ceil(width / patch)] bool: patches of which at least half of each side lies inside."""
    valid = torch.zeros(-(-height // patch), -(-width // patch), dtype=torch.bool)
    rows, columns = (max(1, (2 * length + patch) // (2 * patch)) for length in (height, width))
    valid[:rows, :columns] = True
    return valid
