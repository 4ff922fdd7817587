"""For 10^3 to 10^6 pictures on one small machine, where the paper's settings do not learn.

command:   opendino pretrain PICTURES --minutes 30
hardware:  2 CPU cores, or one GPU
hours:     as many as you give it
scores:    k-NN 13.3 to 14.1 -> 21.5 to 22.6 % after 128,000 views of 14,000 pictures in 100 classes, three seeds;
           LOG.md has what each setting was measured to do
"""

from __future__ import annotations

import os

from opendino.data.config import ColorConfig, CropConfig, DataConfig
from opendino.models.family import FAMILY
from opendino.recipes.situation import Situation
from opendino.train.config import ModelConfig, RunConfig, WatchConfig
from opendino.train.methods.self_distillation import SelfDistillationConfig
from opendino.train.optim import OptimConfig

EMA_SHARE, EMA_STEPS = 0.028, 33
FEW = 4_000
"""Pictures below which a smaller student and smaller, more numerous steps learned more in minutes."""


def small(situation: Situation) -> RunConfig:
    """Student, sizes and targets that follow from pictures, budget and machine, each with its reason."""
    few = situation.images < FEW
    count = f"{situation.images:,} pictures"
    name = situation.model or ("conv_mini" if few else "conv_kmeans")
    transformer = name not in FAMILY or FAMILY[name].kind == "vit"
    batch = 32 if few else 64
    prototypes = 128 if few else 256
    global_px = max(16, min(32 if situation.device == "cpu" else 64, situation.short_side_px // 8 * 8))
    # Local crops are half as large, and must be a multiple of the patch too: 8 of the convolutional students.
    patch = FAMILY[name].config.patch if transformer and name in FAMILY else 8  # type: ignore[union-attr]
    global_px = max(2 * patch, global_px // (2 * patch) * 2 * patch)
    read_px = 2 * global_px
    accelerated = situation.device != "cpu"
    # A share of the run that was measured at 1,200 steps; shorter windows than 33 steps are noise.
    window = min(max(EMA_STEPS, EMA_SHARE * situation.steps), 250.0)
    reasons = {
        "model.name": (
            "set by the command"
            if situation.model
            else f"{count} and a small budget: convolutions learn at once there, transformers slowly (LOG.md); not of "
            "the paper. --model vit_tiny is a ViT of its kind"
        ),
        "data.batch_size": f"{count}: the number of steps decides" if few else "larger ones gave no more per picture",
        "method.prototypes": f"{count}: more than a batch can fill would make targets noise",
        "method.unit_prototypes": "logits have a spread from the first step on; without, targets stay uniform for good",
        "method.target_spread": "targets as sharp from the start as otherwise after thousands of steps: 3 at 0.07",
        "method.head_batch_norm": "features that are nearly equal at the start are spread before the prototypes",
        "method.ibot_weight": "masked tokens teach a ViT" if transformer else "a convolution has no tokens to mask",
        "method.momentum": f"the average spans {window:.0f} steps, 3 % of the run, and stiffens to 1 at the end",
        "method.koleo_weight": "half of the paper's: ten times as much cost 2 to 3 points",
        "data.crops.global_px": f"pictures of {situation.short_side_px} px, trained on {situation.device}",
        "data.crops.local_px": "half of the global crop",
        "read_px": "twice the training crop: an object fills a picture about as it filled a crop",
        "watch.picture_px": "as large as the pictures are, 256 at most: a map of many patches",
        "data.workers": "feed the accelerator"
        if accelerated
        else "the cores are busy training; one process wastes none",
        "optim.muon_lr": "orthogonal steps for matrices learn faster than AdamW alone in short runs (LOG.md)",
        "optim.lr": "largest that was tried; norms, prototypes and tokens",
    }
    return RunConfig(
        recipe="small",
        steps=situation.steps,
        precision="bf16" if situation.device == "cuda" else "fp32",
        compile=situation.device == "cuda" and transformer,
        model=ModelConfig(name=name),
        method=SelfDistillationConfig(
            prototypes=prototypes,
            hidden=256 if few else 512,
            bottleneck=64,
            head_batch_norm=True,
            unit_prototypes=True,
            ibot_weight=0.5 if transformer else 0.0,
            ibot_prototypes=prototypes,
            koleo_weight=0.05,
            koleo_group=batch,
            teacher_temperature_start=0.07,
            teacher_temperature=0.07,
            target_spread=0.21,
            momentum=round(1 - 1 / window, 4),
        ),
        optim=OptimConfig(
            lr=2e-3,
            lr_final=2e-5,
            muon_lr=0.02,
            warmup=0.05,
            weight_decay=0.04,
            betas=(0.9, 0.98) if few else (0.9, 0.999),
            clip=3.0,
        ),
        data=DataConfig(
            batch_size=batch,
            workers=min(8, (os.cpu_count() or 1) - 1) if accelerated else 0,
            cache_mb=2048,
            crops=CropConfig(
                global_px=global_px,
                local_px=global_px // 2,
                num_locals=2 if few else 4,
                global_scale=(0.3 if few else 0.25, 1.0),
                local_scale=(0.2, 0.6) if few else (0.08, 0.4),
            ),
            color=ColorConfig(
                brightness=0.32,
                contrast=0.32,
                saturation=0.32,
                hue=0.08,
                blur_prob=(0.0, 0.0, 0.0),
                solarise_prob=(0.0, 0.0, 0.0),
            ),
        ),
        read_px=read_px,
        watch=WatchConfig(picture_px=max(read_px, min(256, situation.short_side_px // 8 * 8))),
        reasons=reasons,
    )
