"""The published high-resolution adaptation of ViT-7B/16, in numbers of its own where `highres` scales them.

command:   opendino pretrain PICTURES --stage highres --recipe vit7b16_highres --from RUN
hardware:  256 H100 in the original, 8 pictures each
hours:     30,000 steps at most (the paper took 10,000), each of 4 to 9 times the patches
scores:    published: ImageNet linear 88.4, ADE20k linear 55.9, NYU depth RMSE .309, DAVIS 79.7 (not reproduced here)
"""

from __future__ import annotations

import dataclasses

from opendino.models.family import patch_side
from opendino.recipes.highres import highres_sizes, mix_of
from opendino.recipes.scaling import root_scaled
from opendino.recipes.situation import Situation
from opendino.recipes.vit7b16_gram import vit7b16_gram
from opendino.train.config import RunConfig, StageConfig
from opendino.train.methods.gram_teacher import GramConfig

BATCH = 2048
STEPS = 30_000


def vit7b16_highres(situation: Situation) -> RunConfig:
    """Of vit7b16_gram: batch, rate, sizes, and a Gram teacher that stands still: what the stage starts from."""
    before = situation.before or vit7b16_gram(dataclasses.replace(situation, steps=0))
    crops = before.data.crops
    patch = patch_side(before.model.name, before.model.patch)
    mix = mix_of(highres_sizes(crops.global_px, crops.local_px, patch, 3 * crops.global_px))
    return dataclasses.replace(
        before,
        recipe="vit7b16_highres",
        steps=situation.steps or STEPS,
        stage=StageConfig(name="highres"),
        method=dataclasses.replace(before.method, gram=GramConfig(weight=1.5, local_weight=0.5)),
        optim=dataclasses.replace(
            before.optim, lr=root_scaled(1.25e-5, BATCH), schedule="cosine rise", warmup=1 / 3, freeze_last_layer=0
        ),
        data=dataclasses.replace(before.data, batch_size=BATCH, crops=dataclasses.replace(crops, mix=mix, gram_px=0)),
        pictures="",
        data_ahead_steps=0,
        reasons={
            "optim.lr": "1.25e-5 * 4 * sqrt(2048 / 1024), published",
            "optim.warmup": "published: half a cosine over 10,000 of 30,000 steps",
            "data.crops.mix": "published; 160 px are the 10 whole patches of 168 px",
            "method.gram.weight": "published; the teacher is never refreshed",
        },
    )
