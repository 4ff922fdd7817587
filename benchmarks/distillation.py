"""What a frozen teacher costs in a step of distillation, and what sharing it among students saves.

    python -m benchmarks.distillation [--teacher vits16] [--students vit_tiny conv_mini conv_kmeans] [--px 64]
        [--batch 8] [--objective heads|match] [--rounds 9]

Random weights, one thread, fp32, CPU time, interleaved; medians, ratios with bootstrap 95 % intervals. Shares of the
step: the teacher's forward with its targets, and each student's losses, backward, clipping, update and average. Reading
and augmenting the pictures, which a job shares too, is left out. Separate jobs are the sum of these parts.
"""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Callable
from statistics import median

import torch

from benchmarks.clock import interleaved, ratio
from opendino.data.loader import Crops
from opendino.models.family import build_model
from opendino.models.heads import ProjectionHead
from opendino.recipes import DISTILL_RECIPES
from opendino.recipes.situation import Situation, TeacherFacts
from opendino.train.loop import train_step
from opendino.train.methods.distillation import Distillation, Standard
from opendino.train.optim import build_optimizer
from opendino.train.teacher import Lesson, Sight, Teacher, TeacherHeads


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--teacher", default="vits16")
    parser.add_argument("--students", nargs="+", default=["vit_tiny", "conv_mini", "conv_kmeans"])
    parser.add_argument("--px", type=int, default=64)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--objective", choices=["heads", "match"], default="heads")
    parser.add_argument("--rounds", type=int, default=9)
    arguments = parser.parse_args()
    torch.manual_seed(0)
    backbone = build_model(arguments.teacher)
    students = [build_model(name) for name in arguments.students]
    patches = tuple(student.patch for student in students)
    recipe = DISTILL_RECIPES["distill" if arguments.objective == "heads" else "distill_match"]
    facts = TeacherFacts(arguments.teacher, backbone.patch, ibot=True, patches=patches)
    config = recipe(Situation(14_000, arguments.px, 1000, "cpu", arguments.students[0], facts))
    batch, px = arguments.batch, arguments.px
    config = dataclasses.replace(
        config,
        method=dataclasses.replace(config.method, koleo_group=2),
        data=dataclasses.replace(config.data, batch_size=batch),
    )
    method, locals_ = config.method, config.data.crops.num_locals
    heads = TeacherHeads(
        ProjectionHead(backbone.dim, 512, 64, method.prototypes, unit_prototypes=True),
        ProjectionHead(backbone.dim, 512, 64, method.ibot_prototypes, unit_prototypes=True),
        method.target_spread,
    )
    teacher = Teacher(backbone, heads)
    lesson = Lesson(
        sights=tuple(Sight(px, side) for side in patches),
        global_px=px,
        patches=arguments.objective == "match",
        masks=config.data.masks if arguments.objective == "heads" else None,
        mask_seed=0,
        temperature=method.temperature_schedule,
        total_steps=1000,
    )
    half = px // 2 // max(patches) * max(patches) or max(patches)
    small = torch.randn(locals_ * batch, 3, half, half) if locals_ else None
    names = tuple(map(str, range(batch)))
    crops = Crops(torch.randn(2 * batch, 3, px, px), small, None, None, torch.arange(batch), names, ())
    with torch.no_grad():
        seen = backbone(crops.global_crops)
    standard = Standard.of(seen.cls, seen.patches) if arguments.objective == "match" else None
    taught = teacher.teach(crops, lesson, 0)
    steps: dict[str, Callable[[], object]] = {}
    for name, student in zip(arguments.students, students, strict=True):
        learner = Distillation(student, method, config.distill, 1000, teacher, standard)
        optimizer = build_optimizer(learner.trained(), config.optim)

        def step(learner: Distillation = learner, optimizer: torch.optim.Optimizer = optimizer) -> object:
            return train_step(config, learner, optimizer, taught, 0)

        steps[name] = step
    calls = {"teacher": lambda: teacher.teach(crops, lesson, 0), **steps}
    seconds = interleaved(calls, arguments.rounds)
    shared = [sum(values) for values in zip(*seconds.values(), strict=True)]
    looks = seconds["teacher"]
    apart = [total + (len(students) - 1) * look for total, look in zip(shared, looks, strict=True)]
    print(f"{arguments.teacher} -> {', '.join(arguments.students)}; batch {batch}, {px} px, {arguments.objective}")
    for name, values in seconds.items():
        print(
            f"  {name:14} {1000 * median(values):8.1f} ms, {100 * median(values) / median(shared):4.0f} % of the step"
        )
    for name in arguments.students:
        alone = [look + own for look, own in zip(looks, seconds[name], strict=True)]
        print(f"  teacher's share when {name} learns alone: {100 * median(looks) / median(alone):.0f} %")
    print(f"  {len(students)} students in one job against as many jobs: {ratio(shared, apart)} times as fast")


if __name__ == "__main__":
    main()
