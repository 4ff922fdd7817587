"""The published stages on satellite pictures: those of the 7B with other lengths, mean and standard deviation.

command:   opendino pretrain TILES --recipe sat7b16_pretrain; then --stage gram --recipe sat7b16_gram --from RUN, then
           --stage highres --recipe sat7b16_highres --from RUN; opendino distill TILES --teacher RUN --student
           vitl16_sat --recipe sat_distill
hardware:  as vit7b16_pretrain
hours:     a tenth of the steps of the web models
scores:    published: GEO-Bench classification mean 81.1 (7B) and 79.6 (L), segmentation mean 75.0 and 74.5, canopy
           height; on 493 million tiles of 512 px, 0.6 m a pixel (not reproduced here)
"""

from __future__ import annotations

import dataclasses

from opendino.recipes.situation import Situation
from opendino.recipes.vit7b16_gram import vit7b16_gram
from opendino.recipes.vit7b16_highres import vit7b16_highres
from opendino.recipes.vit7b16_pretrain import vit7b16_pretrain
from opendino.recipes.vit_distill import vit_distill
from opendino.train.config import RunConfig

MEAN, STD = (0.430, 0.411, 0.296), (0.213, 0.156, 0.143)
PRETRAIN_STEPS, GRAM_STEPS, HIGHRES_STEPS = 100_000, 10_000, 8_000


def sat7b16_pretrain(situation: Situation) -> RunConfig:
    """Of vit7b16_pretrain: 100,000 steps, mean and standard deviation; warm-ups keep their share of the run."""
    base = vit7b16_pretrain(dataclasses.replace(situation, model=situation.model or "vit7b16_sat"))
    share = "published: the settings of the web model; that warm-ups keep their share of the run is ours"
    return dataclasses.replace(
        base,
        recipe="sat7b16_pretrain",
        steps=situation.steps or PRETRAIN_STEPS,
        data=dataclasses.replace(base.data, mean=MEAN, std=STD),
        reasons=dict(base.reasons) | {"optim.warmup": share, "method.teacher_temperature_warmup": share},
    )


def sat7b16_gram(situation: Situation) -> RunConfig:
    """Of vit7b16_gram: 10,000 steps."""
    before = situation.before or sat7b16_pretrain(dataclasses.replace(situation, steps=0))
    base = vit7b16_gram(dataclasses.replace(situation, before=before))
    return dataclasses.replace(base, recipe="sat7b16_gram", steps=situation.steps or GRAM_STEPS)


def sat7b16_highres(situation: Situation) -> RunConfig:
    """Of vit7b16_highres: 8,000 steps, at 512 px alone."""
    before = situation.before or sat7b16_gram(dataclasses.replace(situation, steps=0))
    base = vit7b16_highres(dataclasses.replace(situation, before=before))
    crops = dataclasses.replace(base.data.crops, mix="", global_px=512, gram_px=768)
    reason = "published: 512 px, the tiles' own side; the Gram crops' is that of the web model at 512"
    return dataclasses.replace(
        base,
        recipe="sat7b16_highres",
        steps=situation.steps or HIGHRES_STEPS,
        data=dataclasses.replace(base.data, crops=crops),
        reasons={name: why for name, why in base.reasons.items() if name != "data.crops.mix"}
        | {"data.crops.global_px": reason},
    )


def sat_distill(situation: Situation) -> RunConfig:
    """Of vit_distill: the student, mean and standard deviation."""
    base = vit_distill(dataclasses.replace(situation, model=situation.model or "vitl16_sat"))
    data = dataclasses.replace(base.data, mean=MEAN, std=STD)
    return dataclasses.replace(base, recipe="sat_distill", data=data)
