"""Number types for frozen models: which one a device is good at, and how far its features drift from fp32."""

from __future__ import annotations

import copy
import time
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from opendino.data.transform import Prepared
from opendino.errors import UsageError
from opendino.models.contract import Features

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
LEAST_COSINE = 0.999
"""`auto` goes back to fp32 when a CLS or patch mean drifts further than this from it."""
WORTH = 1.15
"""`auto` takes a smaller type on a CPU only when it is so many times as fast: it costs exactness."""
_ROUNDS = 3


@dataclass(frozen=True)
class Drift:
    """Cosine between features in a smaller type and in fp32, the worst picture of a few. 1 is no drift.

    cls, mean: of CLS and of the mean of the patches. pictures: how many were compared. finite: no inf or NaN came out.
    """

    cls: float
    mean: float
    pictures: int
    finite: bool = True


def good_dtype(device: torch.device) -> str:
    """The fastest type that the device computes in hardware: bf16 where it has units for it, else fp16, else fp32."""
    if device.type == "cuda":
        major, _ = torch.cuda.get_device_capability(device)
        return "bf16" if major >= 8 else "fp16" if major >= 7 else "fp32"
    if device.type == "cpu":
        known = torch.cpu.get_capabilities()
        return "bf16" if known.get("amx_bf16") or known.get("avx512_bf16") else "fp32"
    return "fp32"


def find_dtype(name: str, device: torch.device) -> str:
    """`auto` becomes what the device is good at; an unknown name is refused."""
    if name == "auto":
        return good_dtype(device)
    if name not in DTYPES:
        raise UsageError(f"--dtype {name}", "no such number type", f"types: auto, {', '.join(DTYPES)}")
    return name


def in_dtype(model: nn.Module, dtype: str) -> nn.Module:
    """The model itself for fp32, else a copy of it in that type."""
    return model if dtype == "fp32" else copy.deepcopy(model).to(DTYPES[dtype])


def run(model: nn.Module, pixels: Tensor, dtype: str, device: torch.device) -> Features:
    """Features of [B, 3, H, W] normalised fp32 pixels, computed in `dtype`, returned as fp32 on the CPU."""
    with torch.no_grad():
        features: Features = model(pixels.to(device, DTYPES[dtype]))
    return Features(*(part.float().cpu() for part in (features.cls, features.registers, features.patches)))


def is_faster(model: nn.Module, smaller: nn.Module, dtype: str, pixels: Tensor) -> bool:
    """Whether a model's copy in a smaller type pays on this processor; having the instructions does not settle it.

    CPU time of a few forward passes of [B, 3, H, W], taken in turns, so that a shared machine changes little.
    """
    exact: list[float] = []
    rough: list[float] = []
    for round in range(_ROUNDS + 1):
        for spent, net, kind in ((exact, model, "fp32"), (rough, smaller, dtype)):
            begun = time.process_time()
            run(net, pixels, kind, torch.device("cpu"))
            if round > 0:  # the first pass also fills caches
                spent.append(time.process_time() - begun)
    return median(exact) > WORTH * median(rough)


def mean_of_valid(patches: Tensor, valid: Tensor) -> Tensor:
    """[h, w, D] and [h, w] bool -> [D]: the mean of the patches that are no padding."""
    return patches[valid].mean(0)


def measure_drift(
    model: nn.Module, smaller: nn.Module, dtype: str, pictures: Sequence[Prepared], device: torch.device
) -> Drift:
    """Compare a model with its copy in a smaller type, one picture at a time."""
    cls, mean, finite = 1.0, 1.0, True
    for one in pictures:
        exact = run(model, one.pixels[None], "fp32", device)
        rough = run(smaller, one.pixels[None], dtype, device)
        finite = finite and bool(rough.cls.isfinite().all() and rough.patches.isfinite().all())
        cls = min(cls, float(F.cosine_similarity(exact.cls[0], rough.cls[0], dim=0)))
        means = [mean_of_valid(features.patches[0], one.valid) for features in (exact, rough)]
        mean = min(mean, float(F.cosine_similarity(means[0], means[1], dim=0)))
    if not finite:
        cls, mean = 0.0, 0.0
    return Drift(cls, mean, len(pictures), finite)
