"""One training step by part, next to the ideal from counted FLOP at this core's own GEMM rate.

    python -m benchmarks.ssl_step [--model conv_kmeans] [--batch 64] [--px 32] [--rounds 9]
    python -m benchmarks.ssl_step --model vits16 --batch 2 --px 224 --local-px 96 --num-locals 8 \\
        --prototypes 65536 --adamw

Share of ideal = counted FLOP / (CPU time x GEMM rate in the same rounds). One thread, fp32.
"""

from __future__ import annotations

import argparse
import dataclasses
from statistics import median

import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.clock import gemm, interleaved
from opendino.data.loader import Crops
from opendino.losses import sinkhorn
from opendino.models.family import build_model
from opendino.recipes import find_recipe
from opendino.recipes.situation import Situation
from opendino.train.methods.self_distillation import SelfDistillation
from opendino.train.optim import build_optimizer, clip_gradients


def counted(call) -> float:
    with FlopCounterMode(display=False) as counter:
        call()
    return float(counter.get_total_flops())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="conv_kmeans")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--px", type=int, default=32)
    parser.add_argument("--local-px", type=int, default=16)
    parser.add_argument("--num-locals", type=int, default=4)
    parser.add_argument("--prototypes", type=int, default=256)
    parser.add_argument("--adamw", action="store_true", help="AdamW for all, as in the published recipes, not Muon")
    parser.add_argument("--rounds", type=int, default=9)
    arguments = parser.parse_args()
    torch.manual_seed(0)
    config = find_recipe("small")(Situation(14_000, 64, 1000, "cpu", arguments.model))
    settings = dataclasses.replace(
        config.method, prototypes=arguments.prototypes, ibot_prototypes=arguments.prototypes, koleo_group=16
    )
    method = SelfDistillation(build_model(arguments.model), settings, 1000)
    backbone = method.student["backbone"]
    optimizer = build_optimizer(
        method.trained(), dataclasses.replace(config.optim, muon_lr=0.0 if arguments.adamw else config.optim.muon_lr)
    )
    batch, side = arguments.batch, arguments.px
    grid = side // backbone.patch
    masks = torch.zeros(2 * batch, grid, grid, dtype=torch.bool)
    masks[::2].view(batch, -1)[:, : max(1, grid * grid // 3)] = True
    crops = Crops(
        torch.randn(2 * batch, 3, side, side),
        torch.randn(arguments.num_locals * batch, 3, arguments.local_px, arguments.local_px),
        None,
        masks if settings.ibot_weight > 0 else None,
        torch.arange(batch),
        tuple(map(str, range(batch))),
        (),
    )
    logits = torch.randn(2 * batch, arguments.prototypes) * 0.1
    groups = [crops.global_crops, crops.local_crops]

    def backward() -> None:
        optimizer.zero_grad(set_to_none=True)
        for terms in method.losses(crops, 0):
            terms.total.backward()

    def whole() -> None:
        backward()
        clip_gradients(method.trained(), 3.0)
        optimizer.step()
        method.after_step(0)

    def teacher() -> None:
        with torch.no_grad():
            method.teacher["backbone"](crops.global_crops)

    def student() -> None:
        with torch.no_grad():
            method.student["backbone"].forward_crops(groups, [crops.masks, None])

    def clip_step_average() -> None:
        clip_gradients(method.trained(), 3.0)
        optimizer.step()
        method.after_step(0)

    whole()
    reference, reference_flop = gemm()
    calls = {
        "gemm": reference,
        "teacher": teacher,
        "student, forward alone": student,
        "Sinkhorn": lambda: sinkhorn(logits, 0.07),
        "losses: forward + backward, all": backward,
        "clip + optimizer + EMA": clip_step_average,
        "whole step": whole,
    }
    flop = {name: counted(call) for name, call in calls.items() if name != "gemm"}
    seconds = interleaved(calls, arguments.rounds)
    rate = reference_flop / median(seconds["gemm"])
    total = median(seconds["whole step"])
    parameters = sum(p.numel() for p in method.student.parameters())
    sizes = f"2 x {side} + {arguments.num_locals} x {arguments.local_px}, K {arguments.prototypes}"
    print(f"{arguments.model}, batch {batch}, {sizes}, {parameters / 1e6:.2f} M trained, GEMM {rate / 1e9:.0f} GFLOP/s")
    for name in list(calls)[1:]:
        spent = median(seconds[name])
        ideal = flop[name] / rate
        share = f"{ideal / spent:5.2f} of ideal" if flop[name] else "moves bytes, no FLOP"
        print(
            f"  {name:34} {1000 * spent:9.1f} ms {100 * spent / total:5.0f} %  {flop[name] / 1e9:8.2f} GFLOP  {share}"
        )
    parts = median(seconds["losses: forward + backward, all"]) + median(seconds["clip + optimizer + EMA"])
    print(f"  parts / whole: {100 * parts / total:.0f} %   images/s of this core: {batch / total:.1f}")


if __name__ == "__main__":
    main()
