"""The published distillation of ViT S, S+, B, L, H+ from the frozen 7B, as its released configuration has it.

command:   opendino distill PICTURES --teacher RUN --recipe vit_distill --student vits16 --student vits16plus
           --student vitb16 --student vitl16 --student vith16plus, or some of them; vit_distill_full for the length
           that the paper states
hardware:  296 GPUs in the original, 48 for S to 120 for L; the teacher looks once at each batch for all students
hours:     25,000 steps, one late phase; the paper's whole run has 1,250,000
scores:    published: ADE20k linear S 47.0, S+ 48.8, B 51.8, L 54.9, H+ 54.8; ImageNet-ReaL 87.0, 88.0, 89.3, 90.2, 90.3
           (not reproduced: the 7B's heads were never released)
"""

from __future__ import annotations

import dataclasses

from opendino.recipes.distill import with_heads_of
from opendino.recipes.scaling import root_scaled
from opendino.recipes.situation import Situation
from opendino.recipes.vit7b16_pretrain import vit7b16_pretrain
from opendino.train.config import ModelConfig, RunConfig
from opendino.train.optim import OptimConfig

BATCH = 1920
SCALED_BATCH = 1776
"""6 pictures on each of 296 GPUs: what the published scaling counts."""
STEPS = 25_000
FULL_STEPS, FULL_HOLD, FULL_COOL_DOWN = 1_250_000, 900_000, 250_000


def vit_distill(situation: Situation) -> RunConfig:
    """Of vit7b16_pretrain its crops and heads. 25,000 steps of batch 1920 against the teacher's prototypes;
    the student sees every patch and drops no path.
    """
    base = vit7b16_pretrain(situation)
    base = dataclasses.replace(
        base,
        recipe="vit_distill",
        steps=situation.steps or STEPS,
        checkpoint=False,
        model=ModelConfig(name=situation.model or "vitl16", drop_path=0.0),
        method=dataclasses.replace(
            base.method, teacher_temperature_start=0.07, teacher_temperature_warmup=0, momentum_final=1.0
        ),
        optim=OptimConfig(
            lr=root_scaled(5e-5, SCALED_BATCH),
            schedule="cosine rise",
            warmup=0.5,
            clip=3.0,
            layer_decay=0.99,
            patch_embed_lr=0.2,
        ),
        data=dataclasses.replace(base.data, batch_size=BATCH),
        reasons={
            "optim.lr": "5e-5 * 4 * sqrt(1776 / 1024): the published scaling with 6 pictures on each of 296 GPUs",
            "optim.warmup": "published: half a cosine over 12,500 of 25,000 steps",
            "data.crops.flip": "published: off",
        },
    )
    return with_heads_of(base, situation.teacher)


def vit_distill_full(situation: Situation) -> RunConfig:
    """Of vit_distill: the paper's 1,000,000 steps and 250,000 more along a cosine."""
    base = vit_distill(situation)
    unknown = "no configuration of the long phase was released; this is the 7B's"
    return dataclasses.replace(
        base,
        recipe="vit_distill_full",
        steps=situation.steps or FULL_STEPS,
        optim=dataclasses.replace(
            base.optim,
            schedule="cosine",
            warmup=1 - (FULL_HOLD + FULL_COOL_DOWN) / FULL_STEPS,
            hold=FULL_HOLD / FULL_STEPS,
        ),
        reasons=dict(base.reasons)
        | {
            "steps": "1,000,000 and a cool-down of 250,000, published",
            "optim.warmup": f"100,000 steps: {unknown}",
            "optim.hold": "up to step 1,000,000",
        },
    )
