"""`load`: a name, a run, a model folder or any weights file of the family becomes a model that is ready to use."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from opendino.data.transform import Transform
from opendino.errors import WeightsError
from opendino.models.dinov2 import Dinov2Config
from opendino.models.family import Config, build_from_config, changed
from opendino.models.stem import adapt_stem, resample_patch, stem_name
from opendino.models.vit import ViTConfig
from opendino.weights.by_timm import is_timm, load_timm
from opendino.weights.coverage import check_copies, measure, refuse
from opendino.weights.folder import USUAL, not_the_last, read_transform, states_transform
from opendino.weights.identify import Identity, identify
from opendino.weights.keys import Layout, Rule, State, shapes_in_file, to_ours
from opendino.weights.opened import Opened, empty_model, open_weights, probably
from opendino.weights.shapes import is_named
from opendino.weights.where import Origin, locate, say_on_stderr

_MOST_NAMES = 8
_DINOV3 = "DINOv3 weights are under the DINOv3 License"


def load(
    what: Path | str | Origin | None = None,
    device: str | torch.device = "cpu",
    *,
    partial: bool = False,
    accept_licence: bool = False,
    **overrides: Any,
) -> nn.Module:
    """Open trained weights: a name of the family, a run directory, a model folder, a weights file, or `timm:NAME`.

    Files may have the layout of the official release, of transformers 4 and 5, of timm, or ours, with the prefixes of
    wrappers and training checkpoints; content tells which. Pickles are read without running anything in them.

    Args:
        what: a path; or a name such as `vitb16`, which is looked for at hand, then on Hugging Face, then in the open
            mirror (`weights.where`); None takes the best model at hand; or what `locate` has found. `timm:NAME` and
            `timm:NAME=FILE` are models outside the family, for frozen use (`weights.by_timm`).
        partial: take what fits; the rest gets random values, the same each time, and stands in `.card["random"]` and in
            a line on standard error.
        accept_licence: accept the licence of a mirror without being asked; remembered.
        overrides: fields of the config, such as stride=8 (overlapping patches), channels=4 or patch=14 (`models.stem`
            has the rules), drop_path=0.3, heads=6 (where no shape tells it), depth=11 (a file of fewer blocks than the
            family's model of its widths is whole as it is).
    Returns:
        The backbone (`models.contract.Backbone`), fp32, in eval mode, with `.transform` (`data.transform.Transform`,
        what pictures must go through) and `.card` (dict with name, licence, source, layout, coverage, and `ignored`:
        config fields that were not understood, and
        `changed`: the overrides).
    Raises:
        WeightsError: in one line, for everything that is missing, unsafe, unknown or does not fit.
    """
    if is_timm(what):
        return load_timm(str(what), device, overrides | {"partial": True} if partial else overrides)
    origin = what if isinstance(what, Origin) else locate(what, accept_licence=accept_licence)
    depths = overrides.get("depth", overrides.get("depths"))
    depth = tuple(depths) if isinstance(depths, list) else depths
    opened = origin.opened or open_weights(origin.path, overrides.get("heads"), depth)
    if origin.name is not None and not is_named(opened.names, origin.name):
        holds = " or ".join(opened.names) or "a model of no known size"
        raise WeightsError(
            opened.file, f"{origin.name} was asked, this holds {holds}", "name the file itself to load it"
        )
    if not partial:
        refuse(opened.coverage, opened.config, opened.file, probably(opened))
    if words := not_the_last(origin.path, opened.file):
        say_on_stderr(f"{origin.path}: {words}")
    identity = identify(opened, origin)
    if identity.careful:
        say_on_stderr(f"{opened.file}: {identity.words}; {identity.careful}")
    random = opened.coverage.not_taken if partial else ()
    if random:
        more = f" and {len(random) - _MOST_NAMES} more" if len(random) > _MOST_NAMES else ""
        named = ", ".join(name[:80] for name in random[:_MOST_NAMES])
        say_on_stderr(f"{opened.file}: {opened.coverage}; random values for {named}{more}")
    model = _build(opened, partial)
    transform = read_transform(opened.folder, opened.raw, model.patch, identity.spec)  # type: ignore[arg-type]
    if opened.raw is not None and identity.spec is None and not states_transform(opened.folder, opened.raw):
        size = f"{transform.size} px"
        say_on_stderr(f"{opened.file}: no preprocessor_config.json beside it; pictures are shown at {size}")
    if overrides:
        model = _changed(model, opened.config, overrides)
    transform = _for_shape(transform, model.config)  # type: ignore[arg-type]
    # torch's stubs type every attribute of a module as a tensor or a module.
    model.transform = transform  # type: ignore[assignment]
    card = make_card(opened, origin, identity)
    card |= {"random": list(random)} if random else {}
    model.card = {**card, "changed": overrides} if overrides else card  # type: ignore[assignment]
    return model.to(device).eval()


def fill(
    model: nn.Module,
    tensors: dict[str, Tensor],
    layout: Layout,
    where: object,
    *,
    rules: list[Rule] | None = None,
    partial: bool = False,
) -> None:
    """Give a model of the family the tensors of a file (plain names), all of them and nothing else unless `partial`.

    The model may be on the meta device, unless `partial`; afterwards it is on the CPU in fp32. `tensors` is emptied.
    """
    config: Config = model.config  # type: ignore[assignment]
    ours = model.state_dict()
    rules = layout.rules(config, frozenset(tensors)) if rules is None else rules
    if not partial:
        refuse(measure(layout, rules, config, ours, tensors, ()), config, where, "")
    state: dict[str, Tensor] = {}
    for rule in rules:
        if not partial or _fits(rule, tensors, ours):
            state |= to_ours(rule, tensors, ours)
        for name in rule.theirs:
            tensors.pop(name or "", None)
    if not partial:
        check_copies(layout, config, state, tensors, where)
    model.load_state_dict(state, strict=not partial, assign=True)


def make_card(opened: Opened, origin: Origin, identity: Identity) -> dict[str, Any]:
    """Name, licence and source: the file's own card, else what the family says of these weights."""
    ours = opened.raw.get("opendino") if isinstance(opened.raw, Mapping) else None
    own = ours.get("card") if isinstance(ours, dict) else None
    lone = opened.file.name not in USUAL
    named = opened.file if lone else opened.file.resolve().parent
    card: dict[str, Any] = {"name": named.stem if lone else named.name, "licence": "not stated", "source": str(named)}
    spec = identity.spec
    if isinstance(own, dict):
        card |= own
    elif identity.foreign:
        card["licence"] = f"not stated; ask those who made {identity.foreign}"
    elif spec is not None and origin.name is not None:
        card |= {"name": spec.name, "licence": spec.licence, "source": origin.source or spec.source}
    elif spec is not None:
        card |= {"name": spec.name, "licence": f"not stated; the released {spec.name} is under {spec.licence}"}
    else:
        released = "DINOv2 weights are under Apache-2.0" if isinstance(opened.config, Dinov2Config) else _DINOV3
        card["licence"] = f"not stated; released {released}"
    return {**card, "layout": opened.layout.name, "coverage": str(opened.coverage), "ignored": opened.ignored}


def _build(opened: Opened, partial: bool) -> nn.Module:
    if partial and not opened.coverage.whole:
        with torch.random.fork_rng(devices=[]):  # a model loaded in the middle of a run must not change its draws
            torch.manual_seed(0)
            model = build_from_config(opened.config)
        fill(model, opened.tensors, opened.layout, opened.file, rules=opened.rules, partial=True)
        return model
    model = empty_model(opened.config)
    fill(model, opened.tensors, opened.layout, opened.file, rules=opened.rules)
    return model


def _changed(model: nn.Module, config: Config, overrides: Mapping[str, Any]) -> nn.Module:
    """The same weights in a module of a changed config, whose shapes may differ in the first convolution alone."""
    wanted = changed(config, overrides)
    state = model.state_dict()
    if getattr(wanted, "channels", 3) != getattr(config, "channels", 3):
        stem = stem_name(model)
        state[stem] = adapt_stem(state[stem], wanted.channels)
    if isinstance(wanted, ViTConfig):
        stem = stem_name(model)
        state[stem] = resample_patch(state[stem], wanted.patch)
    other = empty_model(wanted)
    asked = other.state_dict()
    for name in sorted(state.keys() | asked.keys()):
        if name not in state or name not in asked or state[name].shape != asked[name].shape:
            raise WeightsError("overrides", f"{dict(overrides)} changes the shape of {name}", "weights have one shape")
    other.load_state_dict(state, strict=True, assign=True)
    return other


def _for_shape(transform: Transform, config: Config) -> Transform:
    """The transform with the channels, patch and stride of a model; other channels get the average of mean and std."""
    channels, stride = getattr(config, "channels", 3), getattr(config, "stride", None)
    mean, std = transform.mean, transform.std
    if channels != len(mean):
        mean, std = ((sum(values) / len(values),) * channels for values in (mean, std))
    patch = config.patch if isinstance(config, ViTConfig) else transform.patch
    size = max(1, transform.size // patch) * patch
    return replace(transform, size=size, mean=mean, std=std, patch=patch, stride=None if stride == patch else stride)


def _fits(rule: Rule, tensors: State, ours: State) -> bool:
    shapes = shapes_in_file(rule, ours)
    return all(name in tensors and tuple(tensors[name].shape) == shape for name, shape in shapes.items())
