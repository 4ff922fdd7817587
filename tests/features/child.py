"""An embedding run in a process of its own that can be killed: many small chunks, each written at once."""

from __future__ import annotations

import multiprocessing
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from opendino.data.transform import Transform
from opendino.models.family import FAMILY, build_model
from opendino.weights import write_model
from opendino.weights.opened import empty_model


def draw_pictures(folder: Path, count: int, seed: int = 0) -> list[Path]:
    """Pictures of three shapes, in two folders."""
    generator = np.random.default_rng(seed)
    paths = []
    for index in range(count):
        height, width = ((40, 60), (60, 40), (50, 50))[index % 3]
        path = folder / "ab"[index % 2] / f"{index:03}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(generator.integers(0, 256, (height, width, 3), np.uint8)).save(path)
        paths.append(path)
    return paths


def save_vit(folder: Path, seed: int = 0) -> Path:
    """A ViT of random weights; its layer scale lets pictures differ."""
    torch.manual_seed(seed)
    model = build_model("vit_tiny", depth=2, patch=8, layer_scale=0.3)
    write_model(folder, model, Transform(size=32, patch=8), {"name": "vit", "licence": "test", "source": "x"})
    return folder


def open_all_shapes() -> None:
    """What a child runs: the modules of the whole family without torch's compiler, whose import takes seconds."""
    for member in FAMILY.values():
        assert all(one.is_meta for one in empty_model(member.config).parameters())
    assert "torch._dynamo" not in sys.modules


def embed_in_small_chunks(
    pictures: Path,
    model: Path,
    out: Path,
    fault: str = "",
    environment: Mapping[str, str] | None = None,
    **options: object,
) -> None:
    """What a child runs, with a fault of `files` and with environment variables."""
    from opendino.features import embed, writer

    torch.set_num_threads(1)
    os.environ.update(environment or {})
    if fault:
        os.environ["OPENDINO_FAULT"] = fault
    embed.CHUNK, writer.COMMIT_SECONDS, writer.COMMIT_SHARE = 4, 0.0, 0.0
    from opendino.cli.embed import embed as run

    run(pictures, model, out, dtype="fp32", **options)  # type: ignore[arg-type]


def start(
    *arguments: object, work: Callable[..., None] = embed_in_small_chunks, **options: object
) -> multiprocessing.process.BaseProcess:
    """A child from a server that has everything imported, so that its first moments are already its work."""
    server = multiprocessing.get_context("forkserver")
    server.set_forkserver_preload(["tests.conftest", "tests.features.child", "opendino.cli.embed", "lance"])
    child = server.Process(target=work, args=arguments, kwargs=options)
    child.start()
    return child
