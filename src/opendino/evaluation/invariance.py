"""Invariance card: how much CLS and the patch map change when only the way a picture was taken changes.

Home-made changes with stated strengths, so that what a model ignores and what it sees can be read off; this is not
ImageNet-C. Strength 0 of every change is the picture itself: cosine 1.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image as PillowImage
from PIL import ImageFilter
from torch import Tensor

from opendino.data.images import Image
from opendino.data.sources import Skipped
from opendino.evaluation.health import Pictures, gram_drift
from opendino.evaluation.protocol import Job, Outcome, Subject, mean_score

Pixels = NDArray[np.uint8]
"""[H, W, 3] RGB."""
Change = Callable[[Pixels, float], Pixels]


def exposure(pixels: Pixels, stops: float) -> Pixels:
    """Light times 2 ** stops, in linear values of gamma 2.2."""
    linear = (pixels / 255.0) ** 2.2 * 2.0**stops
    return _to_uint8(255 * np.clip(linear, 0, 1) ** (1 / 2.2))


def gamma(pixels: Pixels, log2_gamma: float) -> Pixels:
    """Values to the power 2 ** log2_gamma."""
    return _to_uint8(255 * (pixels / 255.0) ** (2.0**log2_gamma))


def shadow(pixels: Pixels, depth: float) -> Pixels:
    """The left half darker by the share `depth`, with a soft edge of a tenth of the width."""
    width = pixels.shape[1]
    across = np.clip((np.arange(width) - 0.45 * width) / max(0.1 * width, 1), 0, 1)
    return _to_uint8(pixels * (1 - depth * (1 - across))[None, :, None])


def blur(pixels: Pixels, sigma: float) -> Pixels:
    """Gaussian of `sigma` percent of the short side."""
    radius = sigma / 100 * min(pixels.shape[:2])
    return np.array(PillowImage.fromarray(pixels).filter(ImageFilter.GaussianBlur(radius))) if sigma else pixels


def jpeg(pixels: Pixels, loss: float) -> Pixels:
    """Saved as JPEG of quality 100 - loss; 0 leaves the picture as it is."""
    if not loss:
        return pixels
    buffer = io.BytesIO()
    PillowImage.fromarray(pixels).save(buffer, "JPEG", quality=round(100 - loss))
    return np.array(PillowImage.open(buffer).convert("RGB"))


def scale(pixels: Pixels, octaves: float) -> Pixels:
    """Seen at 1 / 2 ** octaves of its resolution, then enlarged to its size."""
    picture = PillowImage.fromarray(pixels)
    small = (max(1, round(picture.width / 2**octaves)), max(1, round(picture.height / 2**octaves)))
    if small == picture.size:
        return pixels
    resample = PillowImage.Resampling
    return np.array(picture.resize(small, resample.BOX).resize(picture.size, resample.BICUBIC))


def noise(pixels: Pixels, sigma: float) -> Pixels:
    """Gaussian noise of `sigma` grey levels, the same for equal sizes."""
    return _to_uint8(pixels + np.random.default_rng(0).normal(0, 1, pixels.shape) * sigma)


def grey(pixels: Pixels, share: float) -> Pixels:
    """Mixed by `share` with its luma (ITU-R BT.601)."""
    return _to_uint8((1 - share) * pixels + share * (pixels @ [0.299, 0.587, 0.114])[..., None])


def occlusion(pixels: Pixels, share: float) -> Pixels:
    """A grey square in the middle over `share` of the area."""
    height, width = pixels.shape[:2]
    rows, columns = round(height * share**0.5), round(width * share**0.5)
    top, left = (height - rows) // 2, (width - columns) // 2
    covered = pixels.copy()
    covered[top : top + rows, left : left + columns] = 128
    return covered


def flip(pixels: Pixels, on: float) -> Pixels:
    """Mirrored left to right when `on` is not 0."""
    return np.ascontiguousarray(pixels[:, ::-1]) if on else pixels


CHANGES: Mapping[str, tuple[Change, tuple[float, ...]]] = {
    "exposure": (exposure, (-2.0, -1.0, 1.0, 2.0)),
    "gamma": (gamma, (-1.0, 1.0)),
    "shadow": (shadow, (0.3, 0.6)),
    "blur": (blur, (0.5, 1.0, 2.0)),
    "jpeg": (jpeg, (50.0, 75.0, 90.0)),
    "scale": (scale, (1.0, 2.0)),
    "noise": (noise, (8.0, 25.0)),
    "grey": (grey, (1.0,)),
    "occlusion": (occlusion, (0.25, 0.5)),
    "flip": (flip, (1.0,)),
}
"""Change -> its function and the strengths that are measured, in the function's own unit."""


def evaluate_invariance(subject: Subject, data: Pictures, job: Job) -> Outcome:
    """CLS cosine to the clean picture for each change, a mean over strengths; in the breakdown each, and Gram drift."""
    cosines: dict[str, list[list[float]]] = {name: [] for name in CHANGES}
    drifts: dict[str, list[list[float]]] = {name: [] for name in CHANGES}
    ids: list[str] = []
    skipped: list[Skipped] = []
    for index, clean in data.read_each(skipped, job):
        cls, patches = _look(subject, clean, [clean.array])
        for name, (change, strengths) in CHANGES.items():
            seen, maps = _look(subject, clean, [change(clean.array, strength) for strength in strengths])
            cosines[name].append(F.cosine_similarity(cls, seen).tolist())
            drifts[name].append([gram_drift(one, patches[0]) for one in maps])
        ids.append(data.source.id(index))
    scores = [
        mean_score(f"cls_cosine_{name}", np.mean(values, axis=1), ids, measure="1") for name, values in cosines.items()
    ]
    overall = np.mean([np.mean(values, axis=1) for values in cosines.values()], axis=0)
    by_strength = {
        f"{part}_{name}": {
            f"{strength:g}": float(value)
            for strength, value in zip(CHANGES[name][1], np.mean(values, axis=0), strict=True)
        }
        for part, table in (("cosine", cosines), ("gram_drift", drifts))
        for name, values in table.items()
        if name != "flip" or part == "cosine"
    }
    return Outcome([mean_score("cls_cosine", overall, ids, measure="1"), *scores], skipped, {}, by_strength)


def _look(subject: Subject, clean: Image, changed: list[Pixels]) -> tuple[Tensor, Tensor]:
    """CLS [n, D] and patches [n, N, D] of versions of one picture."""
    inputs = torch.stack([subject.transform.apply(replace(clean, array=pixels)) for pixels in changed])
    with torch.no_grad():
        features = subject.model(inputs.to(subject.device))
    return features.cls.float().cpu(), features.patches.float().cpu().flatten(1, 2)


def _to_uint8(values: NDArray[np.floating]) -> Pixels:
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)
