"""Parity with whichever release of transformers is installed: its files in our models, our files in its models.

    python -m venv other && other/bin/pip install -e . "transformers==4.57.*"
    other/bin/python -m benchmarks.transformers_parity

Each kind is built by transformers with random values in every parameter, saved by `save_pretrained`, opened by
`opendino.load`, which must use every tensor, and compared at three sizes; then `write_model` writes it and transformers
opens that. Differences are relative to the largest value; above 1e-5 the exit code is 1. The test suite does the same
with the release that it installs (`tests/weights/test_foreign.py`).
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers
from tests.models.parity import gap, hf_model, images, randomise
from torch import Tensor

from benchmarks.torchvision_import import allow_torchvision
from opendino.data.transform import Transform
from opendino.models.convnext import ConvNeXtConfig
from opendino.models.vit import ViTConfig
from opendino.weights import load, read_passport, write_model

TOLERANCE = 1e-5
SIZES = ((3, 3), (2, 5), (5, 3))
"""Rows and columns of patches: square, wide, and odd and tall."""
_VIT = {"dim": 128, "depth": 2, "heads": 2, "hidden": 256}


def dinov2(registers: int, swiglu: bool) -> Any:
    """A random DINOv2 of transformers, with a table of 5 x 5 positions."""
    name = "Dinov2WithRegisters" if registers else "Dinov2"
    config = getattr(transformers, f"{name}Config")(
        hidden_size=128,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=70,
        patch_size=14,
        mlp_ratio=4,
        use_swiglu_ffn=swiglu,
        **({"num_register_tokens": registers} if registers else {}),
    )
    return randomise(getattr(transformers, f"{name}Model")(config))


KINDS: dict[str, Callable[[], Any]] = {
    "DINOv3 ViT": lambda: hf_model(ViTConfig(**_VIT)),
    "DINOv3 ViT, SwiGLU, no biases": lambda: hf_model(ViTConfig(**_VIT, swiglu=True, qkv_bias=False)),
    "DINOv3 ViT, SwiGLU": lambda: hf_model(ViTConfig(**_VIT, swiglu=True)),
    "DINOv3 ConvNeXt": lambda: hf_model(ConvNeXtConfig(depths=(1, 2, 1, 1), dims=(32, 64, 96, 128))),
    "DINOv2": lambda: dinov2(0, False),
    "DINOv2, SwiGLU": lambda: dinov2(0, True),
    "DINOv2, registers": lambda: dinov2(4, False),
    "DINOv2, registers, SwiGLU": lambda: dinov2(4, True),
}


def difference(ours: Any, theirs: Any, x: Tensor) -> float:
    """The largest of CLS, registers and patches."""
    with torch.inference_mode():
        features, expected = ours(x), theirs(x)
    prefix = 1 + ours.num_registers
    found = [
        gap(features.cls, expected.pooler_output),
        gap(features.patches.flatten(1, 2), expected.last_hidden_state[:, prefix:]),
    ]
    if ours.num_registers:
        found.append(gap(features.registers, expected.last_hidden_state[:, 1:prefix]))
    return max(found)


def compare(make: Callable[[], Any], folder: Path) -> tuple[str, float, float]:
    """Coverage, and the largest difference of ours to theirs and of theirs, from our file, to ours."""
    theirs = make()
    theirs.save_pretrained(folder / "theirs")
    passport = read_passport(folder / "theirs")
    if not passport.whole:
        raise SystemExit(f"{passport.coverage}: {passport.missing[:3]} missing, {passport.unexpected[:3]} unexpected")
    ours: Any = load(folder / "theirs")
    write_model(folder / "ours", ours, Transform(patch=ours.patch, size=ours.patch * 7), {})
    again = transformers.AutoModel.from_pretrained(folder / "ours").eval()
    sizes = [images(rows * ours.patch, columns * ours.patch) for rows, columns in SIZES]
    there, back = (max(difference(ours, model, x) for x in sizes) for model in (theirs, again))
    return passport.coverage, there, back


def main() -> int:
    """Print a table; 1 when a difference is above TOLERANCE."""
    allow_torchvision()
    print(f"transformers {transformers.__version__}, torch {torch.__version__}")
    worst = 0.0
    for name, make in KINDS.items():
        with tempfile.TemporaryDirectory() as folder:
            coverage, there, back = compare(make, Path(folder))
        worst = max(worst, there, back)
        print(f"{name:30s} {coverage:32s} theirs in ours {there:.1e}, ours in theirs {back:.1e}", flush=True)
    print(f"worst {worst:.1e}, allowed {TOLERANCE:.0e}")
    return int(worst > TOLERANCE)


if __name__ == "__main__":
    transformers.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    raise SystemExit(main())
