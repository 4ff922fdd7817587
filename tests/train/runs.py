"""Tiny runs for tests: a folder of drawn pictures and a config that trains in a second."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from opendino.data.config import ColorConfig, CropConfig, DataConfig
from opendino.data.loader import Loader
from opendino.data.sources import open_source
from opendino.models.family import build_model
from opendino.train.config import ModelConfig, RunConfig, SaveConfig, WatchConfig
from opendino.train.loop import train
from opendino.train.methods.self_distillation import SelfDistillation, SelfDistillationConfig
from opendino.train.optim import OptimConfig
from opendino.train.run import open_run

STAGES = ("pretrain", "gram", "highres")


def draw_pictures(folder: Path, count: int = 12, px: int = 40, classes: int = 0) -> Path:
    """Pictures of coloured stripes; in class folders when `classes` is above 0."""
    for index in range(count):
        rng = np.random.default_rng(index)
        label = index % classes if classes else 0
        y, x = np.mgrid[:px, :px]
        wave = np.sin((x * np.cos(label) + y * np.sin(label)) / (2 + label) + rng.uniform(0, 6))[..., None]
        pixels = 127 + 80 * wave * rng.uniform(0.3, 1, 3) + rng.normal(0, 10, (px, px, 3))
        home = folder / f"class{label}" if classes else folder
        home.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(home / f"{index:04d}.png")
    return folder


def tiny_config(data: Path, steps: int = 10, **changes) -> RunConfig:
    """A ViT of 2 narrow blocks with drop path, RoPE augmentation, iBOT, queue: everything that is random or kept."""
    config = RunConfig(
        steps=steps,
        model=ModelConfig(name="vit_tiny", dim=64, depth=2, heads=1, hidden=128, registers=2, drop_path=0.3),
        method=SelfDistillationConfig(
            prototypes=16,
            hidden=32,
            bottleneck=16,
            ibot_prototypes=16,
            queue=24,
            target_spread=0.2,
            unit_prototypes=True,
            momentum=0.9,
        ),
        optim=OptimConfig(lr=1e-3, warmup=2, layer_decay=0.9, freeze_last_layer=2),
        data=DataConfig(
            path=str(data),
            batch_size=4,
            crops=CropConfig(global_px=32, local_px=16, num_locals=2),
            color=ColorConfig(),
        ),
        watch=WatchConfig(log_every=1),
        save=SaveConfig(minutes=0, steps=5, milestones=1),
    )
    return dataclasses.replace(config, **changes)


def build(config: RunConfig) -> tuple[SelfDistillation, Loader]:
    torch.manual_seed(config.seed)
    model = build_model(config.model.name, **config.model.changes)
    method = SelfDistillation(model, config.method, config.steps)
    loader = Loader(
        open_source(Path(config.data.path)),
        config.data,
        model.patch if config.method.ibot_weight else None,
        torch.device("cpu"),
        stage=STAGES.index(config.stage.name),
    )
    return method, loader


def run_to(config: RunConfig, out: Path, **kwargs) -> SelfDistillation:
    """Train (or resume) in `out`; returns the method with its final weights."""
    method, loader = build(config)
    with open_run(out) as run:
        train(config, method, loader, run, **kwargs)
    return method
