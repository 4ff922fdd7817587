"""Colour, blur and solarise work on a batch of crops, on whatever device they are.

Parameters come as `ColorDraws`, one for each crop: the result for a crop does not depend on what else is in the batch.
Operations whose coin fell tails are skipped, not multiplied by zero.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from opendino.data.draws import ColorDraws
from opendino.errors import ShapeError

BLUR_KERNEL_PX = 9
# Values of a piece of the batch that a CPU core works on at a time: larger ones fall out of its cache (twice the time
# at 64 crops of 224 px).
_PIECE_VALUES = 2**19
SOLARISE_THRESHOLD = 128 / 255


def augment(crops: Tensor, draws: ColorDraws, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """Turn uint8 crops into the normalised views that the models see.

    In this order: channel gains, brightness, contrast, saturation, hue (where `jitter`), grey, blur, solarise,
    normalise; all but the gains (a product, clamped) with torchvision's meaning (`adjust_*`, `rgb_to_grayscale`,
    `gaussian_blur`, `solarize`), in float32 on [0, 1].

    Args:
        crops: [N, 3, S, S] uint8. draws: N parameters. mean, std: of RGB in [0, 1].
    Returns:
        [N, 3, S, S] float32 on the crops' device, contiguous.
    Raises:
        ShapeError: the counts of crops and draws differ.
    """
    if len(crops) != len(draws):
        raise ShapeError("augment", f"{len(crops)} crops but draws for {len(draws)}", "stack the draws of these crops")
    views = crops.to(torch.float32, memory_format=torch.contiguous_format, copy=True)
    shift, scale = (torch.tensor(values, device=views.device)[:, None, None] for values in (mean, std))
    values = views[0].numel() if len(views) else 1
    step = max(1, _PIECE_VALUES // values if views.device.type == "cpu" else len(views))
    for start in range(0, len(views), step):
        piece = views[start : start + step].div_(255)
        chosen = draws.part(slice(start, start + step))
        _jitter(piece, chosen)
        _grey(piece, chosen)
        _blur(piece, chosen)
        _solarise(piece, chosen)
        piece.sub_(shift).div_(scale)
    return views


def normalise(crops: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """What `augment` does to crops whose coins all fell tails: [N, 3, S, S] uint8 -> float32, contiguous."""
    shift, scale = (torch.tensor(values, device=crops.device)[:, None, None] for values in (mean, std))
    views = crops.to(torch.float32, memory_format=torch.contiguous_format, copy=True)
    return views.div_(255).sub_(shift).div_(scale)


def _where(chosen: np.ndarray, device: torch.device) -> Tensor | None:
    """Indices of the chosen crops, made on the CPU so that no device has to be waited for; None when there are none."""
    indices = np.flatnonzero(chosen)
    return torch.from_numpy(indices).to(device, non_blocking=True) if len(indices) else None


def _values(column: np.ndarray, chosen: np.ndarray, device: torch.device) -> Tensor:
    return torch.from_numpy(column[chosen]).to(device, non_blocking=True)


def _jitter(views: Tensor, draws: ColorDraws) -> None:
    from kornia import enhance

    chosen, device = draws.jitter, views.device
    where = _where(chosen, device)
    if where is None:
        return
    part = views[where]
    gains = draws.gains[chosen]
    if (gains != 1).any():
        part = part.mul_(torch.from_numpy(gains).to(device, non_blocking=True)[:, :, None, None]).clamp_(0, 1)
    # kornia's plain names mean other things; these three are torchvision's and Pillow's.
    part = enhance.adjust_brightness_accumulative(part, _values(draws.brightness, chosen, device))
    part = enhance.adjust_contrast_with_mean_subtraction(part, _values(draws.contrast, chosen, device))
    part = enhance.adjust_saturation_with_gray_subtraction(part, _values(draws.saturation, chosen, device))
    views[where] = _shift_hue(part, _values(draws.hue, chosen, device))


def _shift_hue(images: Tensor, turns: Tensor) -> Tensor:
    """Rotate the hue in HSV space, [n, 3, S, S] by [n] turns.

    Own code: kornia's `adjust_hue` gives the same to 2e-6 but takes 3.5 times as long on a CPU (4.1 against 1.2 ms for
    a 224 px crop), more than all other operations together.
    """
    red, green, blue = images.unbind(1)
    top = torch.maximum(torch.maximum(red, green), blue)
    chroma = top - torch.minimum(torch.minimum(red, green), blue)
    # Hue in sixths of a turn, times chroma: 0 at red, 2 at green, 4 at blue.
    others = torch.where(top == green, blue - red + 2 * chroma, red - green + 4 * chroma)
    hue = torch.where(top == red, green - blue, others).div_(chroma.clamp(min=1e-12))
    hue += 6 * turns[:, None, None]
    turned = torch.empty_like(images)
    for channel, start in enumerate((5, 3, 1)):
        # HSV to RGB without cases: value - chroma * clamp(min(k, 4 - k), 0, 1), k = (start + hue) mod 6.
        k = hue + start
        k -= (k / 6).floor_().mul_(6)
        torch.sub(top, torch.minimum(k, 4 - k).clamp_(0, 1).mul_(chroma), out=turned[:, channel])
    return turned


def _grey(views: Tensor, draws: ColorDraws) -> None:
    from kornia.color import rgb_to_grayscale

    where = _where(draws.grey, views.device)
    if where is not None:
        views[where] = rgb_to_grayscale(views[where]).expand(-1, 3, -1, -1)


def _blur(views: Tensor, draws: ColorDraws) -> None:
    from kornia.filters import gaussian_blur2d

    chosen = draws.blur_sigma > 0
    where = _where(chosen, views.device)
    if where is None:
        return
    sigma = _values(draws.blur_sigma, chosen, views.device)[:, None].expand(-1, 2)
    views[where] = gaussian_blur2d(views[where], BLUR_KERNEL_PX, sigma)


def _solarise(views: Tensor, draws: ColorDraws) -> None:
    from kornia.enhance import solarize

    where = _where(draws.solarise, views.device)
    if where is not None:
        views[where] = solarize(views[where], SOLARISE_THRESHOLD)
