"""`load`: a run, a model folder or a Hugging Face folder on disk becomes a model that is ready to use."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from opendino.data.transform import Transform
from opendino.errors import DataError, UsageError, WeightsError
from opendino.files import read_json
from opendino.models.family import FAMILY, Config, build_from_config
from opendino.models.vit import ViTConfig
from opendino.weights.config_hf import config_from_json
from opendino.weights.keys_hf import Rule, rules_for, shapes_in_file, strip_outer, to_ours
from opendino.weights.read import INDEX, read_tensors, refuse_by_content

WEIGHTS = "model.safetensors"


def load(path: Path | str, device: str | torch.device = "cpu") -> nn.Module:
    """Open trained weights: a run directory (its model/), or a folder of config.json and model.safetensors.

    Reads what opendino writes and the Hugging Face layout of DINOv3 ViT and ConvNeXt (transformers 4 and 5 names,
    shards, wrapper prefixes). Never goes online, never opens a pickle.

    Returns:
        The backbone (`models.contract.Backbone`), fp32, in eval mode, with `.transform` (`data.transform.Transform`,
        what pictures must go through) and `.card` (dict with name, licence, source, and `ignored`: config fields that
        were not understood).
    Raises:
        WeightsError: in one line, for everything that is missing, unsafe, unknown or does not fit.
    """
    file = _find_weights(Path(path))
    folder = file.parent
    raw = _read_json(folder / "config.json")
    tensors = _without_prefixes(read_tensors(file), file)
    config, ignored = config_from_json(raw, folder / "config.json", frozenset(tensors))
    with torch.device("meta"):
        model = build_from_config(config)
    fill(model, tensors, file)
    # torch's stubs type every attribute of a module as a tensor or a module.
    model.transform = _read_transform(folder, raw, model)  # type: ignore[assignment]
    model.card = _card(raw, folder, ignored)  # type: ignore[assignment]
    return model.to(device).eval()


def fill(model: nn.Module, tensors: dict[str, Tensor], where: Path | str) -> None:
    """Give a model of the family the tensors of a file in Hugging Face layout, all of them and nothing else.

    The model may be on the meta device; afterwards it is on the CPU in fp32. `tensors` is emptied on the way.

    Raises:
        WeightsError: naming how many of how many tensors match, and what is missing, left over or of another shape.
    """
    config: Config = model.config  # type: ignore[assignment]
    ours = model.state_dict()
    rules = rules_for(config, ours)
    _check_fit(rules, ours, tensors, config, where)
    state = {}
    for rule in rules:
        state[rule.ours] = to_ours(rule, tensors, ours[rule.ours])
        for name in rule.theirs:
            if name is not None:
                del tensors[name]
    model.load_state_dict(state, strict=True, assign=True)


def _check_fit(
    rules: list[Rule], ours: Mapping[str, Tensor], tensors: Mapping[str, Tensor], config: Config, where: Path | str
) -> None:
    wanted = {name: shape for rule in rules for name, shape in shapes_in_file(rule, ours[rule.ours]).items()}
    missing = [name for name in wanted if name not in tensors]
    extra = [name for name in tensors if name not in wanted]
    wrong = [name for name, shape in wanted.items() if name in tensors and tuple(tensors[name].shape) != shape]
    matching = len(wanted) - len(missing) - len(wrong)
    count = f"{matching} of {len(wanted)} tensors match"
    stem = "embeddings.patch_embeddings.weight"
    if wrong == [stem] and isinstance(config, ViTConfig) and tensors[stem].ndim == 4 and not missing and not extra:
        has = tensors[stem].shape[-1]
        raise WeightsError(
            where,
            f"the weights have patches /{has}, /{config.patch} is asked ({count})",
            f"set patch_size to {has} in config.json, or take weights made with /{config.patch}",
        )
    parts = [f"missing {_some(missing)}"] if missing else []
    parts += [f"unexpected {_some(extra)}"] if extra else []
    if wrong:
        name = wrong[0]
        more = f" (and {len(wrong) - 1} more shapes)" if len(wrong) > 1 else ""
        parts.append(f"{name[:80]} has {list(tensors[name].shape)}, {list(wanted[name])} is asked{more}")
    if parts:
        raise WeightsError(where, "; ".join([count, *parts]), "weights and config.json must belong together")


def _some(names: list[str]) -> str:
    more = f" and {len(names) - 2} more" if len(names) > 2 else ""
    return ", ".join(name[:80] for name in names[:2]) + more


def _find_weights(path: Path) -> Path:
    if path.is_file():
        refuse_by_content(path)
        if path.suffix == ".safetensors" or path.name == INDEX:
            return path
        raise WeightsError(
            path, "is no model", "give a run directory, or a folder of config.json and model.safetensors"
        )
    if not path.is_dir():
        fix = "give a run directory, or a folder of config.json and model.safetensors"
        if str(path) in FAMILY:
            fix = f"{path} is a model's name; its weights must lie in a folder: {fix}"
        raise WeightsError(path, "no such file or folder", fix)
    for folder in (path, path / "model"):
        for name in (WEIGHTS, INDEX):
            if (folder / name).is_file():
                return folder / name
    if (path / "checkpoints").is_dir():
        raise WeightsError(path, "this run has written no model yet", "let it reach its first save")
    for other in sorted(path.iterdir()):
        if other.suffix in (".bin", ".pth", ".pt", ".ckpt", ".pkl") and other.is_file():
            refuse_by_content(other)
    raise WeightsError(
        path, f"holds no {WEIGHTS}", "give a run directory, or a folder of config.json and model.safetensors"
    )


def _without_prefixes(tensors: dict[str, Tensor], file: Path) -> dict[str, Tensor]:
    plain = {strip_outer(name): tensor for name, tensor in tensors.items()}
    if len(plain) != len(tensors):
        raise WeightsError(file, "holds several models under different prefixes", "keep one of them in the file")
    return plain


def _read_json(path: Path) -> Any:
    try:
        return read_json(path)
    except (DataError, OSError, RecursionError) as error:
        cause = error.cause if isinstance(error, DataError) else type(error).__name__
        raise WeightsError(path, cause, "it must lie beside the weights") from None


def _read_transform(folder: Path, raw: Mapping[str, Any], model: nn.Module) -> Transform:
    path = folder / "preprocessor_config.json"
    if not path.is_file():
        # Hugging Face's defaults for these models; the side must fit the patch.
        return Transform(size=max(224 // model.patch, 1) * model.patch, patch=model.patch)  # type: ignore[operator, arg-type]
    try:
        return Transform.from_dict(_read_json(path), patch=model.patch)  # type: ignore[arg-type]
    except (UsageError, TypeError, ValueError, AttributeError, KeyError) as error:
        raise WeightsError(path, f"not understood ({error})") from None


def _card(raw: Mapping[str, Any], folder: Path, ignored: list[str]) -> dict[str, Any]:
    ours = raw.get("opendino")
    card = ours.get("card") if isinstance(ours, dict) else None
    if isinstance(card, dict):
        return {"name": folder.name, "licence": "not stated", "source": str(folder), **card, "ignored": ignored}
    licence = "not stated; released DINOv3 weights are under the DINOv3 License"
    return {"name": folder.name, "licence": licence, "source": str(folder), "ignored": ignored}
