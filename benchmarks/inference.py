"""Frozen forward and folder to features beside transformers and timm, interleaved in one process.

    python -m benchmarks.inference [--model vits16] [--px 224] [--batches 1 8 32] [--dtypes fp32 bf16] [--rounds 7]
    python -m benchmarks.inference --folder PICTURES [--pictures 32]

CPU seconds of one thread. Share of peak = counted FLOP / (CPU time x GEMM rate of that type in the same rounds).
Weights are random: they cost the same as trained ones. Peers get the pictures as their own pipelines bring them:
transformers' squeezed, timm's and ours cut to the middle square, so all see the same number of patches.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
from collections.abc import Callable
from itertools import count
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.clock import interleaved, ratio
from benchmarks.loader import drawn_jpegs
from benchmarks.torchvision_import import allow_torchvision
from opendino.cli.embed import embed
from opendino.data.transform import Transform
from opendino.features.precision import DTYPES, in_dtype
from opendino.models.family import FAMILY, build_model
from opendino.models.vit import ViTConfig

TIMM = {
    "vits16": "vit_small_patch16_dinov3",
    "vitb16": "vit_base_patch16_dinov3",
    "vitl16": "vit_large_patch16_dinov3",
}


def gemm(dtype: torch.dtype, size: int = 1024) -> tuple[Callable[[], object], float]:
    """A matrix product in a type and its FLOP: what the core can do at most, in the same minute."""
    a, b = torch.randn(size, size).to(dtype), torch.randn(size, size).to(dtype)
    return (lambda: [a @ b for _ in range(4)]), 4 * 2.0 * size**3


def peers(name: str) -> tuple[Any, Any]:
    """The same architecture from transformers and from timm."""
    allow_torchvision()
    import timm
    from transformers import DINOv3ViTConfig, DINOv3ViTModel

    config = FAMILY[name].config
    assert isinstance(config, ViTConfig)
    theirs = DINOv3ViTConfig(
        hidden_size=config.dim,
        num_hidden_layers=config.depth,
        num_attention_heads=config.heads,
        intermediate_size=config.hidden,
        num_register_tokens=config.registers,
        patch_size=config.patch,
    )
    return DINOv3ViTModel(theirs).eval(), timm.create_model(TIMM[name], pretrained=False, num_classes=0).eval()


def forward(name: str, px: int, batches: list[int], dtypes: list[str], rounds: int) -> None:
    torch.manual_seed(0)
    models = {"opendino": build_model(name).eval(), **dict(zip(("transformers", "timm"), peers(name), strict=True))}
    for dtype in dtypes:
        cast = {who: in_dtype(model, dtype) for who, model in models.items()}
        for batch in batches:
            images = torch.randn(batch, 3, px, px).to(DTYPES[dtype])
            product, product_flop = gemm(DTYPES[dtype])
            calls: dict[str, Callable[[], object]] = {"gemm": product}
            for who, model in cast.items():
                calls[who] = lambda model=model, images=images: model(images)
            with torch.no_grad():
                with FlopCounterMode(display=False) as counter:
                    calls["opendino"]()
                seconds = interleaved(calls, rounds)
            rate = product_flop / median(seconds["gemm"])
            line = f"{name} {px} px, {dtype}, batch {batch}: GEMM {rate / 1e9:.0f} GFLOP/s"
            for who in cast:
                share = counter.get_total_flops() / (median(seconds[who]) * rate)
                line += f"; {who} {1000 * median(seconds[who]) / batch:.1f} ms an image, {share:.2f} of peak"
            print(line)
            for who in ("transformers", "timm"):
                print(f"    times as fast as {who}: {ratio(seconds['opendino'], seconds[who])}", flush=True)


def folder(name: str, pictures: Path, rounds: int) -> None:
    allow_torchvision()
    import timm
    from PIL import Image
    from transformers import DINOv3ViTImageProcessor, pipeline

    files = sorted(path for path in pictures.rglob("*") if path.is_file())
    hugging, theirs = peers(name)
    model = build_model(name).eval()
    model.transform, model.card = Transform(), {"name": name, "licence": "random", "source": "random"}
    work = Path(tempfile.mkdtemp())
    transform = timm.data.create_transform(**timm.data.resolve_model_data_config(theirs), is_training=False)
    extract = pipeline("image-feature-extraction", model=hugging, image_processor=DINOv3ViTImageProcessor())
    number = count()

    def ours() -> None:
        embed(pictures, model, work / f"store{next(number)}", crop=True, dtype="fp32", workers=1)

    def timms() -> None:
        for start in range(0, len(files), 8):
            theirs(torch.stack([transform(Image.open(file).convert("RGB")) for file in files[start : start + 8]]))

    def transformers() -> None:
        extract([str(file) for file in files], batch_size=8)

    with torch.no_grad():
        seconds = interleaved({"opendino": ours, "transformers": transformers, "timm": timms}, rounds)
    shutil.rmtree(work)
    for who, spent in seconds.items():
        print(f"{name}, {len(files)} pictures to features: {who} {1000 * median(spent) / len(files):.1f} ms a picture")
    for who in ("transformers", "timm"):
        print(f"    times as fast as {who}: {ratio(seconds['opendino'], seconds[who])}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="vits16", choices=TIMM)
    parser.add_argument("--px", type=int, default=224)
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 8, 32])
    parser.add_argument("--dtypes", nargs="+", default=["fp32", "bf16"], choices=DTYPES)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--folder", type=Path, help="pictures to time from file to features; drawn JPEGs when absent")
    parser.add_argument("--pictures", type=int, default=32, help="drawn JPEGs of 500x375")
    parser.add_argument("--only", choices=("forward", "folder"))
    arguments = parser.parse_args()
    if arguments.only != "folder":
        forward(arguments.model, arguments.px, arguments.batches, arguments.dtypes, arguments.rounds)
    if arguments.only == "forward":
        return
    if arguments.folder:
        folder(arguments.model, arguments.folder, arguments.rounds)
        return
    with tempfile.TemporaryDirectory() as drawn:
        jpegs = drawn_jpegs(500, 375)
        for index in range(arguments.pictures):
            (Path(drawn) / f"{index:03}.jpg").write_bytes(jpegs[index % len(jpegs)])
        folder(arguments.model, Path(drawn), arguments.rounds)


if __name__ == "__main__":
    main()
