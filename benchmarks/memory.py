"""Peak memory of what could be large: the loss over many prototypes, and one large picture.

    python -m benchmarks.memory loss [--prototypes 98304] [--bottleneck 384] [--rows 256 1024 4096] [--rounds 5]
    python -m benchmarks.memory image [--model vits16] [--px 4096]

`loss`: iBOT's loss and targets in chunks, against the same with all logits at once, for several counts of masked
patches: memory above what inputs and gradients take, and CPU time. `image`: one forward.
On a GPU memory is what torch allocated at most; on a CPU it is the peak resident size of a process of its own.
"""

from __future__ import annotations

import argparse
import multiprocessing
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.clock import interleaved, ratio
from opendino.losses import balanced_targets, prototype_loss, sinkhorn
from opendino.models.family import build_model

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


class LossOperands:
    """Features and prototypes of student and teacher, at random."""

    def __init__(self, rows: int, prototypes: int, bottleneck: int) -> None:
        generator = torch.Generator().manual_seed(0)

        def draw(count: int, std: float) -> Tensor:
            return (std * torch.randn(count, bottleneck, generator=generator)).to(DEVICE)

        self.student = F.normalize(draw(rows, 1.0), dim=1).requires_grad_()
        self.teacher = F.normalize(draw(rows, 1.0), dim=1)
        self.student_rows, self.teacher_rows = draw(prototypes, 0.05).requires_grad_(), draw(prototypes, 0.05)
        self.weights = torch.full((rows,), 1 / rows, device=DEVICE)
        self.student.grad, self.student_rows.grad = (
            torch.zeros_like(self.student),
            torch.zeros_like(self.student_rows),
        )

    def plain(self) -> float:
        """All logits at once, as autograd has it."""
        targets = sinkhorn(self.teacher @ self.teacher_rows.T, 0.07)
        log_probs = F.log_softmax((self.student @ self.student_rows.T).float() / 0.1, dim=-1)
        loss = -((targets * log_probs).sum(dim=-1) @ self.weights)
        loss.backward()
        return float(loss.detach())

    def chunked(self) -> float:
        targets = balanced_targets(self.teacher, self.teacher_rows, 0.07)
        loss = prototype_loss(self.student, self.student_rows, targets.__getitem__, self.weights)
        loss.backward()
        return float(loss.detach())


def resident_mb(field: str) -> float:
    """VmRSS (now) or VmHWM (the highest since `clear_refs`) of this process, by Linux."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(field)).split()[1]) / 1024


def peak_mb(call: Callable[[], object]) -> float:
    """MB (2^20 bytes) that the call takes at its peak above what was there before."""
    if DEVICE == "cuda":
        torch.cuda.synchronize()
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        call()
        torch.cuda.synchronize()
        return (torch.cuda.max_memory_allocated() - before) / 2**20
    Path("/proc/self/clear_refs").write_text("5")
    before = resident_mb("VmRSS")
    call()
    return resident_mb("VmHWM") - before


def loss_peak(pipe: Connection, rows: int, prototypes: int, bottleneck: int, way: str) -> None:
    operands = LossOperands(rows, prototypes, bottleneck)
    pipe.send(peak_mb(getattr(operands, way)))


def in_own_process(*arguments: object) -> float:
    """What `loss_peak` finds in a fresh process: a peak that others have left behind cannot hide it."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=loss_peak, args=(theirs, *arguments))
    process.start()
    found = ours.recv()
    process.join()
    return float(found)


def gpu_seconds(call: Callable[[], object]) -> float:
    """Wall time of a call on the GPU, median of 20 after 5."""
    seconds = []
    for _ in range(25):
        torch.cuda.synchronize()
        start = time.perf_counter()
        call()
        torch.cuda.synchronize()
        seconds.append(time.perf_counter() - start)
    return median(seconds[5:])


def compare_losses(arguments: argparse.Namespace) -> None:
    shape = (arguments.prototypes, arguments.bottleneck)
    print(f"K {shape[0]:,}, b {shape[1]}, fp32, {DEVICE}, one thread" if DEVICE == "cpu" else f"K {shape[0]:,}, fp32")
    print("  masked patches   chunked MB   all at once MB   time chunked / all at once [95 %]   losses")
    for rows in arguments.rows:
        peaks = {way: in_own_process(rows, *shape, way) for way in ("chunked", "plain")}
        operands = LossOperands(rows, *shape)
        values = operands.chunked(), operands.plain()
        if DEVICE == "cpu":
            seconds = interleaved({"chunked": operands.chunked, "plain": operands.plain}, arguments.rounds)
            times = ratio(seconds["plain"], seconds["chunked"])
        else:
            times = f"{gpu_seconds(operands.chunked) / gpu_seconds(operands.plain):.2f}"
        print(
            f"  {rows:14,} {peaks['chunked']:12,.0f} {peaks['plain']:16,.0f}   {times:34} "
            f"{values[0]:.6f} {values[1]:.6f}"
        )


def forward_image(arguments: argparse.Namespace) -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = build_model(arguments.model).eval().to(DEVICE)
    image = torch.randn(1, 3, arguments.px, arguments.px, device=DEVICE)
    tokens = (arguments.px // int(model.patch)) ** 2 + 1 + int(model.num_registers)
    with torch.inference_mode():
        model(image[..., :256, :256])  # what the first call alone loads
        start = time.process_time(), time.perf_counter()
        peak = peak_mb(lambda: model(image))
        spent = time.process_time() - start[0], time.perf_counter() - start[1]
    squared = tokens**2 * 4 / 2**20
    print(f"{arguments.model}, {arguments.px} x {arguments.px} px, {tokens:,} tokens, fp32, {DEVICE}")
    print(f"  {spent[1]:.1f} s wall, {spent[0]:.1f} s of one core; peak {peak:,.0f} MB above weights and picture")
    print(f"  one head's N x N in fp32 would be {squared:,.0f} MB")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(dest="what", required=True)
    loss = verbs.add_parser("loss")
    loss.add_argument("--prototypes", type=int, default=98_304)
    loss.add_argument("--bottleneck", type=int, default=384)
    loss.add_argument("--rows", type=int, nargs="+", default=[256, 1024, 4096])
    loss.add_argument("--rounds", type=int, default=5)
    image = verbs.add_parser("image")
    image.add_argument("--model", default="vits16")
    image.add_argument("--px", type=int, default=4096)
    arguments = parser.parse_args()
    (compare_losses if arguments.what == "loss" else forward_image)(arguments)


if __name__ == "__main__":
    main()
