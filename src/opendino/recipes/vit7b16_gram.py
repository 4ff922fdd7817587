"""The published Gram anchoring of ViT-7B/16, in numbers of its own where `gram` scales them to the run before.

command:   opendino pretrain PICTURES --stage gram --recipe vit7b16_gram --from RUN [--gram-teacher STEP]
hardware:  that of vit7b16_pretrain; a step takes the Gram teacher's forward over four times the patches besides
hours:     a fifth of the steps of vit7b16_pretrain
scores:    published: ADE20k linear 50.3 -> 55.7 with a Gram teacher of 100,000 to 200,000 steps that sees twice the
           resolution, 53.6 at the same resolution, 54.9 with one of 1,000,000 steps (not reproduced here)
"""

from __future__ import annotations

import dataclasses

from opendino.recipes.scaling import root_scaled
from opendino.recipes.situation import Situation
from opendino.recipes.vit7b16_pretrain import vit7b16_pretrain
from opendino.train.config import RunConfig, StageConfig
from opendino.train.methods.gram_teacher import GramConfig

STEPS = 200_000


def vit7b16_gram(situation: Situation) -> RunConfig:
    """Of vit7b16_pretrain: rate, average, Gram term, weight of local crops. Its step 0 is published step 1,000,000."""
    before = situation.before or vit7b16_pretrain(situation)
    crops = before.data.crops
    return dataclasses.replace(
        before,
        recipe="vit7b16_gram",
        steps=situation.steps or STEPS,
        stage=StageConfig(name="gram"),
        method=dataclasses.replace(
            before.method,
            teacher_temperature_start=before.method.teacher_temperature,
            teacher_temperature_warmup=0,
            momentum=0.999,
            momentum_final=0.999,
            gram=GramConfig(
                weight=2.0,
                ramp=0.005,
                refresh_every=0.05,
                first_refresh=0.05,
                max_refreshes=3,
                local_weight=0.5,
            ),
        ),
        optim=dataclasses.replace(
            before.optim, lr=root_scaled(3e-5, before.data.batch_size), warmup=0, freeze_last_layer=0
        ),
        data=dataclasses.replace(before.data, crops=dataclasses.replace(crops, gram_px=2 * crops.global_px)),
        pictures="",
        data_ahead_steps=0,
        reasons={
            "optim.lr": "3e-5 * 4 * sqrt(batch / 1024), published",
            "optim.warmup": "long past",
            "method.gram.ramp": "published: 1,000 of 200,000 steps",
            "method.gram.first_refresh": "published: at step 10,000 of the stage, every 10,000, three times",
            "data.crops.gram_px": "published: 512, twice the global crops",
        },
    )
