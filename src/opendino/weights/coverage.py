"""How much of a model a file covers: counted, named, and refused when it is not all."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from opendino.errors import WeightsError
from opendino.models.family import Config
from opendino.models.vit import ViTConfig
from opendino.weights.keys import Layout, Rule, State, shapes_in_file


@dataclass(frozen=True)
class Coverage:
    """matched of wanted tensors agree in name and shape; the others are missing or misshapen (name, has, wanted).

    unexpected: tensors that nothing asks for. left_out: recognised as parts of something else, such as heads.
    """

    matched: int
    wanted: int
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    misshapen: tuple[tuple[str, tuple[int, ...], tuple[int, ...]], ...]
    left_out: tuple[str, ...]

    @property
    def whole(self) -> bool:
        return self.matched == self.wanted and not self.unexpected

    @property
    def not_taken(self) -> tuple[str, ...]:
        """Names of tensors that the model does not find here, or not in its shape."""
        return (*self.missing, *(name for name, _, _ in self.misshapen))

    def __str__(self) -> str:
        more = f", {len(self.left_out)} of heads or other models left out" if self.left_out else ""
        return f"{self.matched}/{self.wanted} tensors, {len(self.unexpected)} unexpected{more}"


def measure(
    layout: Layout, rules: list[Rule], config: Config, ours: State, tensors: State, left_out: tuple[str, ...]
) -> Coverage:
    """Compare a file's plain names and shapes with what a model asks for. `ours` may lie on the meta device."""
    wanted: dict[str, tuple[int, ...]] = {}
    for rule in rules:
        shapes = shapes_in_file(rule, ours)
        if not rule.optional or any(name in tensors for name in shapes):
            wanted |= shapes
    wanted |= {name: tuple(value.shape) for name, value in layout.copies(config, ours).items() if name in tensors}
    missing = tuple(name for name in wanted if name not in tensors)
    shapes_differ = tuple(
        (name, tuple(tensors[name].shape), shape)
        for name, shape in wanted.items()
        if name in tensors and tuple(tensors[name].shape) != shape
    )
    unexpected = tuple(name for name in tensors if name not in wanted)
    matched = len(wanted) - len(missing) - len(shapes_differ)
    return Coverage(matched, len(wanted), missing, unexpected, shapes_differ, left_out)


def refuse(coverage: Coverage, config: Config, where: object, probably: str) -> None:
    """Raise WeightsError unless everything fits; `probably` names what the file seems to hold."""
    if coverage.whole:
        return
    count = f"{coverage.matched} of {coverage.wanted} tensors match: refused"
    stem = [item for item in coverage.misshapen if "patch_embed" in item[0] and len(item[1]) == 4]
    if len(coverage.misshapen) == len(stem) == 1 and not (coverage.missing or coverage.unexpected):
        _refuse_stem(stem[0][1], config, where, count)
    parts = [count]
    parts += [f"missing {_some(coverage.missing)}"] if coverage.missing else []
    parts += [f"unexpected {_some(coverage.unexpected)}"] if coverage.unexpected else []
    if coverage.misshapen:
        name, has, asked = coverage.misshapen[0]
        more = f" (and {len(coverage.misshapen) - 1} more shapes)" if len(coverage.misshapen) > 1 else ""
        parts.append(f"{name[:80]} has {list(has)}, {list(asked)} is asked{more}")
    anyway = "--partial (partial=True) takes what fits and leaves the rest random"
    fix = f"{probably}; {anyway}" if probably else anyway
    raise WeightsError(where, "; ".join(parts), fix)


def _refuse_stem(has: tuple[int, ...], config: Config, where: object, count: str) -> None:
    if isinstance(config, ViTConfig) and has[-1] != config.patch:
        cause = f"the weights have patches /{has[-1]}, /{config.patch} is asked ({count})"
        fix = f"set patch_size to {has[-1]} in config.json; then --resample-patch {config.patch} changes them"
        raise WeightsError(where, cause, fix)
    channels = config.channels if hasattr(config, "channels") else 3
    if has[1] != channels:
        cause = f"the weights have {has[1]} input channels, {channels} are asked ({count})"
        raise WeightsError(
            where, cause, f"set num_channels to {has[1]} in config.json; --channels {channels} then spreads them"
        )


def check_copies(layout: Layout, config: Config, state: State, tensors: Mapping[str, Tensor], where: object) -> None:
    """Raise WeightsError when a tensor that must equal another one does not, or a bias mask was never set."""
    for name, value in layout.copies(config, state).items():
        if name in tensors and not torch.allclose(tensors[name].float(), value.float(), rtol=1e-6, atol=0):
            raise WeightsError(where, f"{name} contradicts the rest of the file", "copy or download it again")
    for name, value in state.items():
        if name.endswith("bias_mask") and not value.isfinite().all():
            raise WeightsError(where, f"{name} holds NaN: the model was saved before it was ever set", "save it again")


def _some(names: tuple[str, ...]) -> str:
    more = f" and {len(names) - 2} more" if len(names) > 2 else ""
    return ", ".join(name[:80] for name in names[:2]) + more
