"""Gram anchoring after a run: its dense features are held to those of an earlier checkpoint while it goes on.

command:   opendino pretrain --stage gram --from RUN
hardware:  that of the run; each step also takes the Gram teacher's forward pass over 4 times as many patches
hours:     a fifth of the run's steps (published: 200,000 after 1,000,000)
scores:    published for 7B: ADE20k linear 50.3 without, 53.6 to 55.7 with; 1.0 to 1.5 points of
           mIoU above equal steps without it for a small ViT whose dense features had fallen (LOG.md)
"""

from __future__ import annotations

import dataclasses
from typing import Literal

from opendino.data.config import DataConfig
from opendino.recipes.situation import Situation
from opendino.recipes.small import small
from opendino.train.config import RunConfig, StageConfig
from opendino.train.methods.gram_teacher import GramConfig
from opendino.train.optim import OptimConfig

SHARE = 0.2
"""Steps of the stage as a share of the run's."""
RATE = 0.6
"""Published: 5e-5 -> 3e-5 before scaling by the batch."""
WINDOW = 6.0
"""Published: the average remembers 1 / (1 - .999) instead of 1 / (1 - .994) steps."""
WINDOW_SHARE = 0.1
"""Of the stage at most: a longer memory than that would not let the average move."""


def run_before(situation: Situation) -> RunConfig:
    """The config of the run that a stage goes on from; to list values without one, that of a ViT in `small`."""
    if situation.before is not None:
        return situation.before
    return dataclasses.replace(small(dataclasses.replace(situation, model="vit_tiny", steps=1000)), seed=0)


def stage_steps(situation: Situation, before: RunConfig, share: float) -> int:
    """What the command says, or a share of the earlier run."""
    return situation.steps or max(1, round(share * before.steps))


def stage_optim(optim: OptimConfig, rate: float) -> OptimConfig:
    """The run's optimizer at a share of its rates, past its warm-up and its frozen prototypes."""
    return dataclasses.replace(
        optim,
        lr=rate * optim.lr,
        lr_final=rate * optim.lr_final,
        muon_lr=rate * optim.muon_lr,
        warmup=0 if optim.schedule == "constant" else 0.05,
        weight_decay=optim.weight_decay_final,
        freeze_last_layer=0,
        freeze_backbone=0,
    )


def stage_momentum(before: RunConfig, steps: int) -> float:
    """A memory of the average that is 6 times the run's, a tenth of the stage at most, never shorter than before."""
    window = 1 / max(1 - before.method.momentum, 1e-9)
    return 1 - 1 / max(window, min(WINDOW * window, WINDOW_SHARE * steps))


def stage_config(
    before: RunConfig, name: Literal["gram", "highres"], steps: int, gram: GramConfig, data: DataConfig
) -> RunConfig:
    """The run's own config as a stage: a longer memory, a teacher that is warm already, no pictures yet."""
    momentum = stage_momentum(before, steps)
    return dataclasses.replace(
        before,
        recipe=name,
        steps=steps,
        minutes=None,
        stage=StageConfig(name=name),
        method=dataclasses.replace(
            before.method,
            teacher_temperature_start=before.method.teacher_temperature,
            teacher_temperature_warmup=0,
            momentum=momentum,
            momentum_final=momentum,
            gram=gram,
        ),
        data=data,
        pictures="",
        reading="",
        data_ahead_steps=0,
    )


def gram(situation: Situation) -> RunConfig:
    """The run's own config with the published differences of the Gram stage, scaled to its length."""
    before = run_before(situation)
    steps = stage_steps(situation, before, SHARE)
    crops = before.data.crops
    momentum = stage_momentum(before, steps)
    decayed = "" if before.optim.schedule == "constant" else "; it had decayed, so it warms up over 5 % again"
    data = dataclasses.replace(before.data, crops=dataclasses.replace(crops, gram_px=2 * crops.global_px))
    schedule = GramConfig(
        weight=2.0, ramp=0.005, refresh_every=0.05, first_refresh=0.05, max_refreshes=3, local_weight=0.5
    )
    return dataclasses.replace(
        stage_config(before, "gram", steps, schedule, data),
        optim=stage_optim(before.optim, RATE),
        reasons={
            "steps": "a fifth of the run, as published (200,000 after 1,000,000)",
            "optim.lr": f"0.6 of the run's peak, as published{decayed}",
            "method.momentum": f"the average spans {1 / (1 - momentum):.0f} steps: 6 times the run's as published, but "
            "no more than a tenth of the stage",
            "method.teacher_temperature_start": "it is warm already",
            "method.gram.weight": "published; of the mean of squares, not their sum",
            "method.gram.ramp": "published: 1,000 of 200,000 steps",
            "method.gram.refresh_every": "published: every 10,000 of 200,000 steps, three times at most",
            "method.gram.local_weight": "published: half of the pull of local crops towards CLS",
            "data.crops.gram_px": "twice the global crops, as published (512 for 256): finer maps, smoother reduced",
        },
    )
