"""For 10^3 to 10^6 pictures on one small machine, where the paper's settings do not learn.

command:   opendino pretrain PICTURES --minutes 30
hardware:  2 CPU cores, or one GPU
hours:     as many as you give it
scores:    see LOG.md (measured on two cores)
"""

from __future__ import annotations

from opendino.data.config import ColorConfig, CropConfig, DataConfig
from opendino.recipes.situation import Situation
from opendino.train.config import ModelConfig, RunConfig
from opendino.train.methods.self_distillation import SelfDistillationConfig
from opendino.train.optim import OptimConfig


def small(situation: Situation) -> RunConfig:
    """Sizes and targets that follow from the number of pictures and steps, each with its reason."""
    batch = 64
    prototypes = 128 if situation.images < 2_000 else 256
    global_px = min(32, situation.short_side_px // 8 * 8)
    return RunConfig(
        recipe="small",
        steps=situation.steps,
        precision="fp32",
        model=ModelConfig(name=situation.model or "conv_mini"),
        method=SelfDistillationConfig(
            prototypes=prototypes,
            hidden=256,
            bottleneck=64,
            unit_prototypes=True,
            target_spread=0.2,
            queue=2048,
            ibot_weight=0.0,
            ibot_prototypes=prototypes,
            momentum=0.97,
            momentum_final=1.0,
        ),
        optim=OptimConfig(lr=2e-3, lr_final=2e-5, warmup=0.1),
        data=DataConfig(
            batch_size=batch,
            workers=0,
            cache_mb=1024,
            crops=CropConfig(
                global_px=global_px, local_px=global_px // 2, num_locals=4, global_scale=(0.3, 1.0), local_scale=(0.15, 0.5)
            ),
            color=ColorConfig(
                brightness=0.2, contrast=0.2, saturation=0.1, hue=0.05, grey_prob=0.1, solarise_prob=(0.0, 0.0, 0.0)
            ),
        ),
        read_px=2 * global_px,
        reasons={
            "method.prototypes": f"{prototypes}: {situation.images:,} pictures; about one prototype per 40 at most",
        },
    )
