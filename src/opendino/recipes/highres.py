"""High-resolution adaptation after a run: mixed, larger sizes with a Gram term that keeps patch similarities.

command:   opendino pretrain PICTURES --stage highres --from RUN_OR_MODEL
hardware:  that of the run; a step takes 4 to 9 times as many patches, and the Gram teacher's
hours:     a tenth of the run's steps at half of its batch (published: 10,000 to 30,000 after 1,200,000)
scores:    LOG.md has dense quality by input size before and after, for small runs
"""

from __future__ import annotations

import dataclasses

from opendino.data.config import CropSizes, Triple
from opendino.errors import UsageError
from opendino.models.family import patch_side
from opendino.recipes.gram import run_before, stage_config, stage_momentum, stage_optim, stage_steps
from opendino.recipes.situation import Situation
from opendino.recipes.small import small
from opendino.train.config import ModelConfig, RunConfig
from opendino.train.methods.gram_teacher import GramConfig

SHARE = 0.1
"""Steps of the stage as a share of the run's. Published: 1 %, which of a run of thousands would be nothing."""
FRESH_HEADS = "heads are no part of a model: fresh ones learn its features first"
RATE = 0.25
"""Published: 5e-5 -> 1.25e-5, then times the root of the smaller batch."""
SIZES = ((2.0, 1.0, 3.0, 0.3), (3.0, 1.0, 4.5, 0.3), (3.0, 1.5, 4.5, 0.3), (3.0, 2.0, 4.5, 0.05), (3.0, 3.0, 4.5, 0.05))
"""Published sides as multiples of the run's: (512, 112, 768) at .3, (768, 112, 1152) at .3, (768, 168, 1152) at .3,
(768, 224, 1152) at .05 and (768, 336, 1152) at .05, of global 256 and local 112."""


def highres_sizes(global_px: int, local_px: int, patch: int, short_side_px: int) -> tuple[CropSizes, ...]:
    """The published mixture for a run's own sides, those that pictures are large enough for.

    Sides are rounded down to multiples of the patch: 168 px of patch 16 become 160, the 10 patches that the published
    model makes of them by dropping 8 px. Raises UsageError when the smallest global crop is larger than the pictures.
    """

    def whole(px: float) -> int:
        return max(patch, int(px) // patch * patch)

    found = [
        CropSizes(whole(big * global_px), whole(small * local_px), whole(gram * global_px), share)
        for big, small, gram, share in SIZES
    ]
    fitting = tuple(sizes for sizes in found if sizes.global_px <= short_side_px)
    if not fitting:
        cause = f"have {short_side_px} px, and the smallest high resolution of a run at {global_px} px is"
        raise UsageError(
            "the pictures", f"{cause} {found[0].global_px} px", "use larger pictures, or set data.crops.mix"
        )
    return fitting


def before_model(situation: Situation, model: ModelConfig, size: int, mean: Triple, std: Triple) -> RunConfig:
    """What stands for the run before where there is a model alone: `small`, at half the side that the model reads at.

    Its heads are not part of a model. Fresh ones learn its features first, then it moves at a tenth of their rate.
    """
    base = small(dataclasses.replace(situation, model=model.name))
    patch = patch_side(model.name, model.patch)
    global_px = max(1, size // 2 // (2 * patch)) * 2 * patch
    crops = dataclasses.replace(base.data.crops, global_px=global_px, local_px=global_px // 2)
    return dataclasses.replace(
        base,
        model=model,
        optim=dataclasses.replace(base.optim, backbone_lr=0.1, freeze_backbone=0.1),
        data=dataclasses.replace(base.data, crops=crops, mean=mean, std=std),
        read_px=size,
    )


def mix_of(sizes: tuple[CropSizes, ...]) -> str:
    """As `CropConfig.mix` has them."""
    return " ".join(f"{one.global_px}/{one.local_px}/{one.gram_px}:{one.share:g}" for one in sizes)


def highres(situation: Situation) -> RunConfig:
    """The run's own config with the published differences of the high-resolution stage, scaled to its sizes."""
    before = run_before(situation)
    steps = stage_steps(situation, before, SHARE)
    crops = before.data.crops
    batch = max(2, before.data.batch_size // 2)
    rate = RATE * (batch / before.data.batch_size) ** 0.5
    momentum = stage_momentum(before, steps)
    patch = patch_side(before.model.name, before.model.patch)
    mix = mix_of(highres_sizes(crops.global_px, crops.local_px, patch, situation.short_side_px))
    optim = dataclasses.replace(
        stage_optim(before.optim, rate),
        schedule="constant",
        warmup=1 / 3,
        freeze_backbone=before.optim.freeze_backbone,
    )
    data = dataclasses.replace(before.data, batch_size=batch, crops=dataclasses.replace(crops, mix=mix, gram_px=0))
    return dataclasses.replace(
        stage_config(before, "highres", steps, GramConfig(weight=1.5, local_weight=0.5), data),
        optim=optim,
        reasons={
            "steps": "a tenth of the run (published: 1 %)",
            "optim.lr": "a quarter of the run's peak times the root of the batches' ratio, as published",
            "optim.warmup": "published: 10,000 of 30,000 steps",
            "data.batch_size": "half of the run's, as published",
            "data.crops.mix": f"published multiples of {crops.global_px} and {crops.local_px} px in whole patches, "
            f"up to the {situation.short_side_px} px of the pictures; one size a step",
            "method.momentum": f"the average spans {1 / (1 - momentum):.0f} steps",
            "method.gram.weight": "published; the teacher is what the stage starts from, never refreshed",
            "method.gram.local_weight": "published",
            "method.teacher_temperature_start": "it is warm already",
            **({"optim.freeze_backbone": FRESH_HEADS} if optim.freeze_backbone else {}),
        },
    )
