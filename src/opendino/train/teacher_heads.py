"""Heads of a teacher, read from the newest checkpoint of the run that trained them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor, nn

from opendino.errors import DataError, UsageError
from opendino.files import check_directory
from opendino.models.heads import ProjectionHead
from opendino.train.checkpoint import list_checkpoints
from opendino.train.config import RunConfig
from opendino.train.run import RunDirectory
from opendino.train.teacher import TeacherHeads

AVERAGES = ("method.teacher.", "method.average.")
"""Where a checkpoint has the averaged modules: of self-distillation, of distillation."""


@dataclass(frozen=True)
class SavedHeads:
    """heads: fresh modules with the saved numbers, on the CPU. config: of the run. step: of the checkpoint.

    backbone: tensors of the backbone that was trained with them, by name; empty where a frozen one lies elsewhere.
    """

    heads: TeacherHeads
    config: RunConfig
    step: int
    backbone: dict[str, Tensor]


def read_heads(run: Path) -> SavedHeads | None:
    """Heads of a run directory; None when there is no run, no checkpoint, or none with heads.

    Raises:
        DataError: the newest checkpoint is damaged.
    """
    directory = RunDirectory(run)
    checkpoints = list_checkpoints(directory.checkpoints)
    # A model folder has a config.json too, of another kind.
    config = directory.config() if checkpoints else None
    if config is None:
        return None
    step, path = checkpoints[-1]
    if problem := check_directory(path):
        raise DataError(path, f"damaged checkpoint ({problem})", "the command that made the run mends it")
    with safe_open(path / "state.safetensors", framework="pt") as file:
        names = list(file.keys())
        for prefix in AVERAGES:
            if any(name.startswith(f"{prefix}dino_head.") for name in names):
                break
        else:
            return None

        def part(module: str) -> dict[str, Tensor]:
            start = f"{prefix}{module}."
            return {name.removeprefix(start): file.get_tensor(name) for name in names if name.startswith(start)}

        dino, ibot, backbone = part("dino_head"), part("ibot_head"), part("backbone")
    method = config.method
    heads = TeacherHeads(
        dino=_build(dino, batch_norm=method.head_batch_norm, unit=method.unit_prototypes),
        ibot=_build(ibot, batch_norm=False, unit=method.unit_prototypes) if ibot else None,
        spread=method.target_spread,
    )
    return SavedHeads(heads, config, step, backbone)


def check_belongs(saved: SavedHeads, backbone: nn.Module, run: Path) -> None:
    """Raise UsageError unless the heads take this backbone's tokens and, where it was kept with them, learned on it."""
    width = next(layer for layer in saved.heads.dino.mlp if isinstance(layer, nn.Linear)).in_features
    dim = backbone.dim
    if width != dim:
        raise UsageError(
            f"heads of {run}", f"take {width} numbers, the teacher gives {dim}", "they are another model's"
        )
    for name, parameter in backbone.named_parameters():
        kept = saved.backbone.get(name)
        if kept is not None and not torch.equal(kept, parameter.detach().cpu()):
            cause = f"learned with other weights than the teacher's ({name} differs at step {saved.step})"
            raise UsageError(f"heads of {run}", cause, "leave --heads out and name the model folder as --teacher")


def _build(state: dict[str, Tensor], *, batch_norm: bool, unit: bool) -> ProjectionHead:
    """A head whose widths are those of its tensors."""
    linears = [value for name, value in state.items() if name.startswith("mlp.") and value.ndim == 2]
    prototypes = state["last_layer.weight"]
    head = ProjectionHead(
        linears[0].shape[1],
        linears[0].shape[0],
        prototypes.shape[1],
        prototypes.shape[0],
        num_layers=len(linears),
        batch_norm=batch_norm,
        unit_prototypes=unit,
    )
    head.load_state_dict(state)
    return head.eval().requires_grad_(False)
