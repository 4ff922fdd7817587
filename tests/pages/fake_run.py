"""A run directory as a real run leaves it, drawn from formulas: for looking at pages and for testing them."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from opendino.monitor.health import Health, in_words
from opendino.monitor.incidents import IncidentLog
from opendino.monitor.metrics import MetricsLog
from opendino.pages.charts import Bar
from opendino.pages.demo_page import DemoResults, write_demo_page
from opendino.pages.neighbours import Found, Neighbours
from opendino.pages.pca import pca_maps
from opendino.pages.sheet import picture_sheet, save_training_pictures

HOSTILE = "<img src=x onerror=\"window.hacked=1;document.title='hacked'\">.jpg"
HOSTILE_SCRIPT = "</script><script>window.hacked=1</script>.jpg"


def photo(seed: int, side: int = 224) -> np.ndarray:
    """A made-up scene, uint8 [side, side, 3]: a sloping ground, a sky, and two discs."""
    generator = np.random.default_rng(seed)
    y, x = np.mgrid[0:side, 0:side] / side
    sky, ground, first, second = generator.integers(30, 230, (4, 3))
    image = np.where((y > 0.55 + 0.1 * x * generator.uniform(-1, 1))[..., None], ground, sky).astype(float)
    image *= (0.75 + 0.4 * y)[..., None]
    for tint, radius in ((first, 0.22), (second, 0.12)):
        cy, cx = generator.uniform(0.25, 0.75, 2)
        image[(y - cy) ** 2 + (x - cx) ** 2 < radius**2] = tint
    return np.clip(image + generator.normal(0, 6, image.shape), 0, 255).astype(np.uint8)


def features(photos: list[np.ndarray], grid: int, learned: float) -> torch.Tensor:
    """Stand-in features [B, grid, grid, 16]: noise at first, colours of the patches when `learned` nears 1."""
    side = photos[0].shape[0] // grid
    cells = np.stack([one[: side * grid, : side * grid] for one in photos]).astype(np.float32) / 255
    cells = cells.reshape(len(photos), grid, side, grid, side, 3).mean((2, 4)) - 0.5
    generator = torch.Generator().manual_seed(1)
    mix = torch.randn(3, 16, generator=generator)
    noise = torch.randn(len(photos), grid, grid, 16, generator=generator)
    return learned * torch.from_numpy(cells) @ mix * 2 + (1 - learned) * 0.5 * noise + 0.3


def make_run(path: Path, steps: int = 2000, done: int | None = None, labels: bool = True, hostile: bool = True) -> Path:
    """Write a run directory of `done` of `steps` steps."""
    done = steps if done is None else done
    path.mkdir(parents=True, exist_ok=True)
    config = {
        "recipe": "small",
        "steps": steps,
        "minutes": 10.0,
        "seed": 0,
        "precision": "bf16",
        "model": {"name": "vit_tiny", "drop_path": 0.05},
        "optim": {"lr": 0.002, "weight_decay": 0.04, "clip": 3.0},
        "method": {"prototypes": 1024, "momentum": 0.985},
        "data": {
            "path": f"photos/{HOSTILE}" if hostile else "photos",
            "batch_size": 64,
            "workers": 2,
            "crops": {"global_px": 96, "local_px": 48, "global_scale": [0.32, 1.0]},
        },
        "reasons": {
            "method.prototypes": "1,024: about one for every five of 5,210 pictures",
            "method.momentum": "0.985: the teacher forgets in 1/30 of 2,000 steps",
            "optim.lr": "0.002: 0.004 · sqrt(batch 64 / 256)",
        },
    }
    (path / "config.json").write_text(json.dumps(config, indent=2))
    metrics, incidents = MetricsLog(path / "metrics.jsonl"), IncidentLog(path / "incidents.jsonl")
    generator = np.random.default_rng(0)
    highest = math.log(1024)
    photos = [photo(seed) for seed in range(6)]
    first, basis = None, None
    for step in range(0, done + 1, 10):
        t = step / steps
        learned = 1 - math.exp(-4 * t)
        if step:
            dino = highest - 2.6 * learned - 0.25 * t + generator.normal(0, 0.04)
            ibot = highest - 2.0 * (1 - math.exp(-2.5 * t)) + generator.normal(0, 0.05)
            koleo = 0.9 - 0.5 * (1 - math.exp(-15 * t)) + generator.normal(0, 0.01)
            metrics.append(
                "step",
                step,
                time_s=round(0.31 * step, 3),
                images_per_s=round(206 + generator.normal(0, 5), 1),
                loss=dino + ibot + 0.1 * koleo,
                losses={"dino": dino, "ibot": ibot, "koleo": koleo},
                grad_norm=float(np.exp(generator.normal(0.3, 0.35))),
                lr=0.002 * min(1, t / 0.1) * (0.5 * (1 + math.cos(math.pi * t))),
                momentum=0.985 + 0.015 * t,
                teacher_temperature=0.04 + 0.03 * min(1, t / 0.3),
            )
        if step % (steps // 50) == 0 or step == done:
            health = Health(
                teacher_entropy=highest - 1.9 * learned + generator.normal(0, 0.05),
                max_entropy=highest,
                prototype_usage=min(1, 0.35 + 0.5 * learned),
                rank=8 + 24 * learned + generator.normal(0, 0.5),
                rank_max=64,
                cls_patch_cosine=0.55 - 0.2 * learned,
                patch_cosine=0.7 - 0.3 * learned + generator.normal(0, 0.01),
                norm_ratio=1.4 + 0.1 * generator.normal(),
                information=1.6 * learned,
                images=64,
            )
            first = first or health
            metrics.append("health", step, **asdict(health), words=in_words(health, first))
        if labels and (step % (steps // 10) == 0 or step == done):
            value = 21 + 24 * (1 - math.exp(-3.2 * t)) + generator.normal(0, 0.5)
            metrics.append("knn", step, value=value, low=value - 1.8, high=value + 1.8, n=2000, chance=5.0, k=20)
        if step % (steps // 10) == 0:
            miou = 18 + 9 * learned
            gauges = {"cls_patch_cosine": 0.55 - 0.2 * learned, "patch_cosine": 0.4, "norm_ratio": 1.4}
            masks = {"miou": miou, "picture_iou": [miou + place for place in range(6)]} if labels else {}
            metrics.append("drift", step, **gauges, **masks)
        if labels and step % (steps // 4) == 0:
            found = [("seg-linear", "camvid", "miou", 18 + 9 * learned, "%"), ("seg-linear", "camvid", "macc", 30, "%")]
            found.append(("depth-linear", "rooms", "rmse", 0.9 - 0.3 * learned, "m"))
            for protocol, dataset, metric, value, measure in found:
                scores = {"value": value, "low": 0.95 * value, "high": 1.05 * value, "n": 26, "measure": measure}
                good = {"high_is_good": metric != "rmse"}
                metrics.append("protocol", step, protocol=protocol, dataset=dataset, metric=metric, **scores, **good)
        if step % (steps // 20) == 0:
            maps, basis = pca_maps(features(photos, 14, learned), basis)
            saved = save_training_pictures(path / "pictures", step, photos, list(maps))
            metrics.append("picture", step, path=str(saved.relative_to(path)))
    names = [f"DSC_{index:04d}.jpg" for index in range(12)]
    for name in names:
        incidents.append("skipped picture", 40, "truncated", ids=[name])
    if hostile:
        for name in (HOSTILE, HOSTILE_SCRIPT, "\udcff not text.jpg"):
            incidents.append("skipped picture", 60, "not-an-image", ids=[name])
        incidents.append("non-finite step", 700, f"loss nan in {HOSTILE}", ids=[HOSTILE])
    return path


def make_demo(folder: Path, rows: Sequence[Mapping[str, Any]]) -> Path:
    """A demo page of made-up scores and tiles, with hostile names wherever a name stands."""
    photos = [photo(seed, 64) for seed in range(6)]
    figure = folder / "pca.png"
    picture_sheet(photos, {"step 0": [one[::8, ::8] for one in photos]}, background=None).save(figure)
    found = Found(photos[1:], [True, False, True, False, False])
    results = DemoResults(
        verdict=f"learned: k-NN 18.2 -> 39.8 % {HOSTILE}",
        kind="learning",
        bars=[Bar("trained", 39.8, 36.0, 43.7, True), Bar(HOSTILE, 18.2, 15.3, 21.0)],
        chance=5.0,
        seconds=112.0,
        steps=200,
        images_seen=31_900,
        train_tiles=1800,
        test_tiles=600,
        photographs=20,
        model="conv_mini",
        device="cpu",
        run=folder / "run-0",
    )
    neighbours = [Neighbours(np.ascontiguousarray(photos[0][:48]), HOSTILE, found, found)]
    return write_demo_page(folder, results, rows, figure, neighbours)
