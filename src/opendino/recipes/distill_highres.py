"""High resolution after a distillation: larger, mixed sizes against the same frozen teacher, without a Gram term.

command:   opendino distill --stage highres --from JOB [--recipe vit_distill_highres]
hardware:  that of the job; a step takes 4 to 9 times as many patches, the teacher's too
hours:     a tenth of the job's steps at half of its batch (published: that there was such a phase, not how long)
scores:    not measured
"""

from __future__ import annotations

import dataclasses

from opendino.recipes.distill import distill, shared_side
from opendino.recipes.highres import highres, highres_sizes, mix_of
from opendino.recipes.situation import Situation, TeacherFacts
from opendino.recipes.vit7b16_highres import vit7b16_highres
from opendino.recipes.vit_distill import vit_distill
from opendino.train.config import RunConfig, StageConfig
from opendino.train.methods.gram_teacher import GramConfig


def distill_highres(situation: Situation) -> RunConfig:
    """Of the job's own config what `highres` changes, but for the Gram term; sides are stated for the job's crops."""
    before = situation.before or distill(dataclasses.replace(situation, steps=1000))
    staged = highres(dataclasses.replace(situation, before=before))
    crops, sides = before.data.crops, (situation.teacher or TeacherFacts()).patches
    sizes = highres_sizes(crops.global_px, crops.local_px, shared_side(sides), situation.short_side_px)
    mix = mix_of(tuple(dataclasses.replace(one, gram_px=0) for one in sizes))
    return dataclasses.replace(
        staged,
        recipe="distill_highres",
        method=dataclasses.replace(staged.method, gram=GramConfig()),
        data=dataclasses.replace(staged.data, crops=dataclasses.replace(crops, mix=mix)),
        reasons={name: why for name, why in staged.reasons.items() if "gram" not in name},
    )


def vit_distill_highres(situation: Situation) -> RunConfig:
    """Of vit_distill: batch, rate and sizes of vit7b16_highres, whose Gram term students go without."""
    before = situation.before or vit_distill(dataclasses.replace(situation, steps=0))
    large = vit7b16_highres(dataclasses.replace(situation, before=None))
    mix = mix_of(tuple(dataclasses.replace(one, gram_px=0) for one in large.data.crops.sizes))
    unknown = "no configuration of this phase was released; this is the 7B's"
    return dataclasses.replace(
        before,
        recipe="vit_distill_highres",
        steps=large.steps,
        stage=StageConfig(name="highres"),
        optim=dataclasses.replace(before.optim, lr=large.optim.lr, schedule="cosine rise", warmup=1 / 3),
        data=dataclasses.replace(
            before.data,
            batch_size=large.data.batch_size,
            crops=dataclasses.replace(before.data.crops, mix=mix),
        ),
        pictures="",
        reading="",
        data_ahead_steps=0,
        reasons=dict.fromkeys(("steps", "optim.lr", "optim.warmup", "data.batch_size", "data.crops.mix"), unknown),
    )
