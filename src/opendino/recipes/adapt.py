"""To go on from a trained backbone on one's own pictures, without losing what it knew.

command:   opendino adapt PICTURES --model MODEL --keep OTHER_PICTURES
hardware:  2 CPU cores for models of a few million numbers; one GPU for the released ones
hours:     as many as you give it; minutes for a few hundred pictures
scores:    LOG.md has what it gained and kept on aerial pictures
"""

from __future__ import annotations

import dataclasses

from opendino.data.config import CropConfig
from opendino.recipes.situation import Situation, Start
from opendino.recipes.small import FEW, small
from opendino.train.config import ModelConfig, RunConfig
from opendino.train.methods.adaptation import AdaptConfig

BACKBONE_RATE = 0.1
"""Of the heads' rate."""
FIRST_LAYER = 0.1
"""The first layer moves so much slower than the last one."""
LORA_RATE = 4.0
"""Low-rank changes start at 0 and need larger steps than weights that are trained already."""


def adapt(situation: Situation) -> RunConfig:
    """`small`'s objective and heads, on a backbone that moves slowly and is held near its start.

    Without a start it gives the values for a ViT-S/16, so that they can be listed.
    """
    start = situation.start or Start()
    base = small(dataclasses.replace(situation, model=start.name))
    few = situation.images < FEW
    transformer = start.kind == "vit"
    grid = start.size // start.patch
    grid = min(grid if situation.device != "cpu" else grid // 2, situation.short_side_px // start.patch)
    global_px = 2 * start.patch * max(1, grid // 2)
    low_rank = situation.lora > 0
    decay = 1.0 if low_rank else round(FIRST_LAYER ** (1 / (start.num_layers + 1)), 3)
    kept = ("method.", "data.batch_size", "data.workers", "optim.muon_lr")
    reasons = {name: why for name, why in base.reasons.items() if name.startswith(kept)} | {
        "data.crops.global_px": f"the model reads {start.size} px; "
        + ("as large" if situation.device != "cpu" else "half of it on a CPU")
        + f", pictures have {situation.short_side_px} px",
        "data.crops.local_px": "half of the global crop",
        "data.mean": "as the model was trained",
        "data.std": "as the model was trained",
        "read_px": "as the model reads pictures, so that its features stay comparable",
        "method.ibot_weight": "masked tokens teach a ViT" if transformer else "a convolution has no tokens to mask",
        "optim.freeze_backbone": "heads are not part of a backbone's weights: fresh ones learn its features first",
        "optim.backbone_lr": "it is trained already; the heads are not",
        "optim.layer_decay": "low-rank changes all start at 0"
        if low_rank
        else f"the first layer moves {1 / FIRST_LAYER:.0f} times as slowly as the last",
        "adapt.cls_weight": "holds each picture's features near the start's",
        "adapt.gram_weight": "holds the likeness of patches near the start's; the paper's weight is 2",
    }
    return dataclasses.replace(
        base,
        recipe="adapt",
        model=ModelConfig(name=start.name),
        method=dataclasses.replace(base.method, ibot_weight=0.5 if transformer else 0.0),
        adapt=AdaptConfig(cls_weight=1.0, gram_weight=1.0, lora=situation.lora),
        optim=dataclasses.replace(
            base.optim,
            warmup=0.02,
            backbone_lr=BACKBONE_RATE * (LORA_RATE if low_rank else 1.0),
            layer_decay=decay,
            freeze_backbone=0.1,
            betas=(0.9, 0.98),
        ),
        data=dataclasses.replace(
            base.data,
            batch_size=32 if few else 64,
            mean=start.mean,
            std=start.std,
            crops=CropConfig(
                global_px=global_px,
                local_px=global_px // 2,
                num_locals=2 if few else 4,
                global_scale=(0.3, 1.0),
                local_scale=(0.2, 0.6) if few else (0.08, 0.4),
            ),
        ),
        read_px=start.size,
        watch=dataclasses.replace(base.watch, picture_px=max(start.size, base.watch.picture_px)),
        reasons=reasons,
    )
