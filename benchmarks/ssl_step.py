"""One training step by part, next to the ideal from counted FLOP at this device's own GEMM rate.

    python -m benchmarks.ssl_step [--model conv_kmeans] [--batch 64] [--px 32] [--rounds 9]
    python -m benchmarks.ssl_step --model vit_tiny --batch 16 --stage gram              (or highres, adapt)
    python -m benchmarks.ssl_step --model vits16 --batch 2 --px 224 --local-px 96 --num-locals 8 \\
        --prototypes 65536 --adamw
    python -m benchmarks.ssl_step --recipe vitl16_imagenet --model vitb16 --batch 64        (on a GPU)

Share of ideal = counted FLOP / (time x GEMM rate in the same rounds). On a CPU: one thread, fp32, CPU time. On a GPU:
bf16 and compiled blocks, wall time, images/s and MFU: FLOP of the model over time and the card's dense bf16 peak, where
what drop path skips is not counted, nor what is computed twice (checkpointed blocks, logits by chunks).
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import time
from collections.abc import Callable, Mapping
from statistics import median
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.clock import gemm, interleaved
from opendino.data.loader import Crops
from opendino.data.masks import block_masks
from opendino.losses import balanced_targets, prototype_loss
from opendino.models.family import FAMILY, build_model
from opendino.parallel import checkpoint_blocks, compile_blocks
from opendino.recipes import STAGE_RECIPES, find_recipe
from opendino.recipes.adapt import adapt
from opendino.recipes.situation import Situation, Start
from opendino.train.config import RunConfig
from opendino.train.methods.adaptation import Adaptation
from opendino.train.methods.self_distillation import SelfDistillation
from opendino.train.optim import build_optimizer, clip_gradients

PEAKS = {"H100": 989e12, "H200": 989e12, "A100": 312e12, "L40S": 362e12, "RTX 4090": 165e12}
"""Dense bf16 FLOP/s by a part of the card's name; others: what a large product reaches."""
WARM_STEPS, TIMED_STEPS = 10, 100
STEPS, MIDDLE = 1000, 500
"""Of the run that is stood for, and the step that is timed: at its first one, terms that rise from 0 are left out."""


def configure(arguments: argparse.Namespace, device: str) -> RunConfig:
    """The recipe with what the command says, then its stage."""
    if arguments.stage == "adapt":
        return _adaptation(arguments, device)
    config = find_recipe(arguments.recipe)(Situation(14_000, 4 * arguments.px, 1000, device, arguments.model))
    method, crops = config.method, config.data.crops
    if arguments.prototypes:
        many = arguments.prototypes
        method = dataclasses.replace(method, prototypes=many, ibot_prototypes=many)
    if arguments.recipe == "small":
        sides = {"global_px": arguments.px, "local_px": arguments.local_px, "num_locals": arguments.num_locals}
        crops = dataclasses.replace(crops, **sides)
    config = dataclasses.replace(
        config,
        method=dataclasses.replace(method, koleo_group=min(16, max(2, arguments.batch)), micro_batch=0),
        optim=dataclasses.replace(config.optim, muon_lr=0.0 if arguments.adamw else config.optim.muon_lr),
        data=dataclasses.replace(config.data, batch_size=arguments.batch, crops=crops),
        checkpoint=arguments.checkpoint,
    )
    if arguments.stage == "pretrain":
        return config
    situation = Situation(14_000, 4 * crops.global_px, 1000, device, before=config)
    staged = STAGE_RECIPES[arguments.stage][arguments.stage](situation)
    return dataclasses.replace(staged, data=dataclasses.replace(staged.data, batch_size=arguments.batch))


def _adaptation(arguments: argparse.Namespace, device: str) -> RunConfig:
    model: Any = build_model(arguments.model)
    kind, size = FAMILY[arguments.model].kind, 2 * arguments.px  # a CPU trains at half of what the model reads
    start = Start(name=arguments.model, kind=kind, patch=model.patch, num_layers=model.num_layers, size=size)
    config = adapt(Situation(14_000, size, 1000, device, start=start))
    return dataclasses.replace(config, data=dataclasses.replace(config.data, batch_size=arguments.batch))


def draw_crops(config: RunConfig, patch: int, device: str) -> Crops:
    """A batch of noise at the first of the config's sizes."""
    batch, sizes = config.data.batch_size, config.data.crops.sizes[0]

    def noise(views: int, side: int) -> Tensor | None:
        return torch.randn(views * batch, 3, side, side, device=device) if views and side else None

    side = sizes.global_px // patch
    masks = None
    if config.method.ibot_weight > 0:
        drawn = block_masks(0, 0, 0, 2 * batch, (side, side), config.data.masks)
        masks = torch.from_numpy(drawn).to(device)
    global_crops = noise(2, sizes.global_px)
    assert global_crops is not None
    return Crops(
        global_crops,
        noise(config.data.crops.num_locals, sizes.local_px),
        noise(2, sizes.gram_px),
        masks,
        torch.arange(batch),
        tuple(map(str, range(batch))),
        (),
    )


class Step:
    """One method with its optimizer and a batch, and the parts of a step as calls."""

    def __init__(self, config: RunConfig, device: str, compiled: bool) -> None:
        torch.manual_seed(0)
        backbone = build_model(config.model.name, **config.model.changes)
        self.config, self.device = config, device
        method = (
            Adaptation(backbone, config.method, config.adapt, STEPS)
            if config.recipe == "adapt"
            else SelfDistillation(backbone, config.method, STEPS)
        )
        self.method = method.to(device)
        self.crops = draw_crops(config, int(backbone.patch), device)  # type: ignore[arg-type]
        self.optimizer = build_optimizer(self.method.trained(), config.optim)
        self.groups = [group for group in (self.crops.global_crops, self.crops.local_crops) if group is not None]
        self.flop = self._model_flop()
        if config.checkpoint:
            checkpoint_blocks(self.method.student["backbone"])
        if compiled:
            parts = [*self.method.student.values(), *self.method.teacher.values()]
            if self.method.gram_teacher is not None:
                parts.append(self.method.gram_teacher.backbone)
            if isinstance(self.method, Adaptation):
                parts.append(self.method.anchor)
            for part in parts:
                compile_blocks(part)

    def calls(self) -> dict[str, Callable[[], object]]:
        found: dict[str, Callable[[], object]] = {"teacher": self.teacher}
        if self.method.gram_teacher is not None:
            found["Gram teacher"] = self.gram_teacher
        if isinstance(self.method, Adaptation):
            found["anchor"] = self.anchor
        return found | {
            "student, forward alone": self.student,
            "balance and loss over prototypes": self.prototypes,
            "losses: forward + backward, all": self.backward,
            "clip + optimizer + EMA": self.update,
            "whole step": self.whole,
        }

    def autocast(self) -> contextlib.AbstractContextManager[object]:
        return torch.autocast(self.device, dtype=torch.bfloat16, enabled=self.device == "cuda")

    @torch.no_grad()
    def teacher(self) -> None:
        with self.autocast():
            self.method.teacher["backbone"](self.crops.global_crops)

    @torch.no_grad()
    def gram_teacher(self) -> None:
        assert self.method.gram_teacher is not None
        with self.autocast():
            self.method.gram_teacher.backbone(self.crops.gram_crops)

    @torch.no_grad()
    def anchor(self) -> None:
        assert isinstance(self.method, Adaptation)
        with self.autocast():
            self.method.anchor(self.crops.global_crops)

    @torch.no_grad()
    def student(self) -> None:
        self.method.student.train()
        masks = [self.crops.masks, *[None] * (len(self.groups) - 1)]
        with self.autocast():
            self.method.student["backbone"].forward_crops(self.groups, masks)  # type: ignore[operator]

    def prototypes(self) -> None:
        """Sinkhorn and the cross-entropy with its gradients, as many rows as the iBOT term has, or the DINO term."""
        masks = self.crops.masks
        rows = int(masks.sum()) if masks is not None else sum(len(group) for group in self.groups)
        head = self.method.student["ibot_head" if masks is not None else "dino_head"]
        with self.autocast():
            columns = head.prototypes()  # type: ignore[operator]
            features = torch.randn(rows, columns.shape[1], device=self.device)
            features = torch.nn.functional.normalize(features, dim=1).requires_grad_()
            targets = balanced_targets(features.detach(), columns.detach(), 0.07)
            weights = torch.full((rows,), 1 / rows, device=self.device)
            loss = prototype_loss(features, columns, targets.__getitem__, weights)
        loss.backward()

    def backward(self) -> None:
        self.optimizer.zero_grad(set_to_none=True)
        with self.autocast():
            for terms in self.method.losses(self.crops, MIDDLE):
                terms.total.backward()

    def update(self) -> None:
        clip_gradients(self.method.trained(), self.config.optim.clip)
        self.optimizer.step()
        self.method.after_step(MIDDLE)

    def whole(self) -> None:
        self.backward()
        self.update()

    def _model_flop(self) -> float:
        """Of a step: teachers' forward, three times the student's, and each logit once on either side."""
        student, method = self.method.student, self.config.method

        def forward() -> None:
            self.student()
            for name, head in student.items():
                if name != "backbone":
                    rows = self._rows(name, teacher=False)
                    head.bottleneck(torch.randn(rows, int(student["backbone"].dim), device=self.device))  # type: ignore[operator, call-overload]

        flop = 3 * counted(forward) + counted(self.teacher)
        if self.method.gram_teacher is not None:
            flop += counted(self.gram_teacher)
        if isinstance(self.method, Adaptation):
            flop += counted(self.anchor)
        widths = {
            "dino_head": method.bottleneck * method.prototypes,
            "ibot_head": (method.ibot_bottleneck or method.bottleneck) * method.ibot_prototypes,
        }
        for name in student:
            if name != "backbone":
                flop += 2 * widths[name] * (3 * self._rows(name, teacher=False) + self._rows(name, teacher=True))
        return flop

    def _rows(self, head: str, *, teacher: bool) -> int:
        if head == "dino_head":
            return len(self.crops.global_crops) if teacher else sum(len(group) for group in self.groups)
        return 0 if self.crops.masks is None else int(self.crops.masks.sum())


def counted(call: Callable[[], object]) -> float:
    with FlopCounterMode(display=False) as counter:
        call()
    return float(counter.get_total_flops())


def on_cpu(step: Step, rounds: int) -> tuple[dict[str, float], float]:
    """Median CPU seconds of each part, and the FLOP/s of a product in the same rounds."""
    reference, reference_flop = gemm()
    seconds = interleaved({"gemm": reference, **step.calls()}, rounds)
    rate = reference_flop / median(seconds.pop("gemm"))
    return {name: median(times) for name, times in seconds.items()}, rate


def on_gpu(step: Step) -> tuple[dict[str, float], float]:
    """Wall seconds of each part between events, and the card's dense bf16 peak."""
    found = {}
    for name, call in step.calls().items():
        for _ in range(WARM_STEPS):
            call()
        torch.cuda.synchronize()
        start = time.perf_counter()
        for _ in range(TIMED_STEPS):
            call()
        torch.cuda.synchronize()
        found[name] = (time.perf_counter() - start) / TIMED_STEPS
    card = torch.cuda.get_device_name()
    for name, peak in PEAKS.items():
        if name in card:
            return found, peak
    side = 8192
    a = torch.randn(side, side, device="cuda", dtype=torch.bfloat16)
    for timed in (False, True):
        torch.cuda.synchronize()
        start = time.perf_counter()
        for _ in range(20):
            a @ a
        torch.cuda.synchronize()
        if timed:
            return found, 20 * 2 * side**3 / (time.perf_counter() - start)
    raise AssertionError


def report(step: Step, flop: Mapping[str, float], seconds: Mapping[str, float], rate: float, compiled: bool) -> None:
    config = step.config
    sizes, total = config.data.crops.sizes[0], seconds["whole step"]
    crops = f"2 x {sizes.global_px} + {config.data.crops.num_locals} x {sizes.local_px} px"
    if sizes.gram_px:
        crops += f", Gram 2 x {sizes.gram_px}"
    trained = sum(p.numel() for p in step.method.student.parameters()) / 1e6
    widths = f"K {config.method.prototypes:,}, {trained:.1f} M trained"
    where = f"{torch.cuda.get_device_name()}, bf16{', compiled' * compiled}" if step.device == "cuda" else "one thread"
    print(f"{config.model.name}, batch {config.data.batch_size}, {crops}, {widths}; {where}")
    for name, spent in seconds.items():
        share = f"{flop[name] / rate / spent:5.2f} of ideal" if flop[name] else "moves bytes, no FLOP"
        print(
            f"  {name:34} {1000 * spent:9.1f} ms {100 * spent / total:5.0f} %  {flop[name] / 1e9:9.2f} GFLOP  {share}"
        )
    parts = seconds["losses: forward + backward, all"] + seconds["clip + optimizer + EMA"]
    images = config.data.batch_size / total
    print(f"  parts / whole: {100 * parts / total:.0f} %   images/s: {images:,.1f}", end="   ")
    used = 100 * step.flop / total / rate
    print(f"model {step.flop / 1e9:,.1f} GFLOP a step: {used:.1f} % of {rate / 1e12:,.3g} TFLOP/s")
    if step.device == "cuda":
        print(f"  peak memory {torch.cuda.max_memory_allocated() / 2**30:.1f} GiB")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stage", choices=["pretrain", *STAGE_RECIPES, "adapt"], default="pretrain")
    parser.add_argument("--recipe", default="small")
    parser.add_argument("--model", default="conv_kmeans")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--px", type=int, default=32, help="side of global crops, where the recipe has none of its own")
    parser.add_argument("--local-px", type=int, default=16)
    parser.add_argument("--num-locals", type=int, default=4)
    parser.add_argument("--prototypes", type=int, default=0, help="0: the recipe's")
    parser.add_argument("--adamw", action="store_true", help="AdamW for all, as in the published recipes, not Muon")
    parser.add_argument("--checkpoint", action="store_true", help="recompute the student's blocks")
    parser.add_argument("--eager", action="store_true", help="no compiled blocks on a GPU")
    parser.add_argument("--rounds", type=int, default=9, help="on a CPU")
    arguments = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    compiled = device == "cuda" and not arguments.eager
    step = Step(configure(arguments, device), device, compiled)
    step.whole()
    flop = {name: counted(call) for name, call in step.calls().items()}
    seconds, rate = on_gpu(step) if device == "cuda" else on_cpu(step, arguments.rounds)
    report(step, flop, seconds, rate, compiled)


if __name__ == "__main__":
    main()
