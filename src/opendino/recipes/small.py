"""For 10^3 to 10^6 pictures on one small machine, where the paper's settings do not learn.

command:   opendino pretrain PICTURES --minutes 30
hardware:  2 CPU cores, or one GPU
hours:     as many as you give it
scores:    see LOG.md (measured on two cores)
"""

from __future__ import annotations

from opendino.data.config import ColorConfig, CropConfig, DataConfig
from opendino.models.family import FAMILY
from opendino.recipes.situation import Situation
from opendino.train.config import ModelConfig, RunConfig
from opendino.train.methods.self_distillation import SelfDistillationConfig
from opendino.train.optim import OptimConfig

BATCH = 64


def small(situation: Situation) -> RunConfig:
    """Student, sizes and targets that follow from pictures and budget; what was measured for each is in LOG.md."""
    reasons: dict[str, str] = {}

    def because(field: str, value: object, reason: str) -> None:
        reasons[field] = f"{value}: {reason}"

    name = situation.model or "conv_kmeans"
    because(
        "model.name",
        name,
        "asked for"
        if situation.model
        else "convolutions on a k-means first layer learn most in minutes (LOG.md); not of the paper, "
        "--model vit_tiny is a ViT of its kind",
    )
    prototypes = 256 if situation.images >= 2_000 else 128
    because("method.prototypes", prototypes, f"{situation.images:,} pictures; more prototypes than a batch can fill are noise")
    global_px = max(16, min(32 if situation.device == "cpu" else 64, situation.short_side_px // 8 * 8))
    because("data.crops.global_px", global_px, f"pictures of {situation.short_side_px} px on a {situation.device}")
    read_px = 2 * global_px
    because("read_px", read_px, "twice the training crop: objects fill whole pictures as they filled crops")
    transformer = FAMILY[name].kind == "vit" if name in FAMILY else True
    momentum = 0.97
    because("method.momentum", momentum, "the average spans about 33 steps and stiffens to 1 at the end")
    because("method.target_spread", 0.21, "targets as sharp from the first step on as otherwise after thousands")
    because("method.ibot_weight", 1.0 if transformer else 0.0, "masked tokens for ViTs; convolutions have none")
    return RunConfig(
        recipe="small",
        steps=situation.steps,
        model=ModelConfig(name=name),
        method=SelfDistillationConfig(
            prototypes=prototypes,
            hidden=512,
            bottleneck=64,
            head_batch_norm=True,
            unit_prototypes=True,
            ibot_weight=1.0 if transformer else 0.0,
            ibot_prototypes=prototypes,
            koleo_weight=0.05,
            koleo_group=BATCH,
            teacher_temperature_start=0.07,
            teacher_temperature=0.07,
            target_spread=0.21,
            momentum=momentum,
        ),
        optim=OptimConfig(lr=2e-3, lr_final=2e-5, warmup=0.05, weight_decay=0.04, clip=3.0),
        data=DataConfig(
            batch_size=BATCH,
            cache_mb=2048,
            crops=CropConfig(
                global_px=global_px,
                local_px=global_px // 2,
                num_locals=4,
                global_scale=(0.25, 1.0),
                local_scale=(0.08, 0.4),
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
        reasons=reasons,
    )
