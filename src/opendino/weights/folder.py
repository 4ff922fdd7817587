"""Files of a model folder: which one holds the weights, and what lies beside them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from opendino.data.transform import Transform
from opendino.errors import DataError, UsageError, WeightsError
from opendino.files import point_near, read_json
from opendino.models.dinov2 import Dinov2Config
from opendino.models.family import ModelSpec
from opendino.weights.read import INDICES

WEIGHTS = "model.safetensors"
ENDINGS = (".safetensors", ".pth", ".pt", ".bin", ".ckpt")
USUAL = (WEIGHTS, INDICES[0], "pytorch_model.bin", INDICES[1], "state.safetensors")
TRAINED_MODELS = ("model", "model-best")
RUN_MODELS = (*TRAINED_MODELS, "model-start")
_FIX = "give a weights file, a run directory, or a folder of config.json and model.safetensors"


def find_weights(path: Path) -> Path:
    """The one file that holds the weights: `path` itself, or in a model folder, a run, or a checkpoint of a run.

    Raises WeightsError when there is none, or several and none has the usual name.
    """
    if path.is_file():
        return path
    if not path.is_dir():
        if path.exists():
            raise WeightsError(path, "is neither a regular file nor a folder", _FIX)
        raise WeightsError(path, "no such file or folder", point_near(path))
    # A run that still trains has no model/ yet, but its best weights so far, its newest checkpoint, or its start.
    checkpoints = sorted((path / "checkpoints").glob("step-" + "[0-9]" * 8))[-1:]
    trained, start = (path / name for name in TRAINED_MODELS), path / "model-start"
    for folder in (path, *trained, *checkpoints, start):
        for name in USUAL:
            if (folder / name).is_file():
                return folder / name
    others = [file for file in sorted(path.iterdir()) if file.suffix in ENDINGS and file.is_file()]
    if len(others) == 1:
        return others[0]
    if others:
        raise WeightsError(path, f"holds {len(others)} weights files", f"name one, such as {others[0].name}")
    if (path / "checkpoints").is_dir():
        raise WeightsError(path, "this run has written no model yet", "let it reach its first save")
    raise WeightsError(path, f"holds no {WEIGHTS}", _FIX)


def not_the_last(path: Path, file: Path) -> str:
    """What a reader must know of weights that stand for a run, in words: "" unless it has not ended.

    path: what was named; file: what `find_weights` gave for it.
    """
    inside = file.parent.relative_to(path).parts if file.parent.is_relative_to(path) else ()
    if inside[:1] == ("checkpoints",):
        return f"has not ended; this is its step {int(inside[1].removeprefix('step-')):,}"
    words = {
        "model-best": "has not ended; these are its best weights so far",
        "model-start": "has saved nothing yet; these are the weights of its start",
    }
    return words.get("/".join(inside), "")


def read_config(file: Path) -> tuple[Any, Path] | None:
    """The parsed config.json that belongs to a weights file, and its path; None where there is none.

    A checkpoint of a run takes that of the run's model; an official file that we wrote has a card of its own name.
    """
    card = file.with_suffix(".json")
    if card.is_file() and card.name != "config.json":
        raw = read_object(card)
        if isinstance(raw, dict) and "opendino" in raw:
            return raw, card
    path = file.parent / "config.json"
    if file.name == "state.safetensors" and not path.is_file():
        run = file.parent.parent.parent
        path = next(
            (run / name / "config.json" for name in RUN_MODELS if (run / name / "config.json").is_file()),
            path,
        )
    if path.is_file():
        raw = read_object(path)
        lone = file.name not in USUAL
        return None if lone and not (isinstance(raw, dict) and "model_type" in raw) else (raw, path)
    if file.name in (WEIGHTS, *INDICES) and any(file.parent.glob("*.json")):
        read_object(path)  # in a model folder a config that is missing is damage; this says so
    return None


def read_object(path: Path) -> Any:
    """Parsed JSON. Raises WeightsError in one line."""
    try:
        return read_json(path)
    except (DataError, OSError, RecursionError) as error:
        cause = error.cause if isinstance(error, DataError) else type(error).__name__
        raise WeightsError(path, cause, "it must lie beside the weights") from None


def read_transform(folder: Path, raw: Any, patch: int, spec: ModelSpec | None) -> Transform:
    """What pictures must go through: preprocessor_config.json, else timm's config, else what the family says."""
    stated = _stated_transform(folder, raw, patch)
    if stated is not None:
        return stated
    side = _whole_patches(224, patch)
    mean, std = (spec.picture_mean, spec.picture_std) if spec else (Transform.mean, Transform.std)
    if spec is not None and isinstance(spec.config, Dinov2Config):
        return Transform(size=side, mode="center", mean=mean, std=std, patch=patch, filter="bicubic")
    return Transform(size=side, mean=mean, std=std, patch=patch)


def states_transform(folder: Path, raw: Any) -> bool:
    """Whether a file beside the weights says what pictures must go through."""
    return _stated_transform(folder, raw, 1) is not None


def _stated_transform(folder: Path, raw: Any, patch: int) -> Transform | None:
    path = folder / "preprocessor_config.json"
    try:
        ours = raw.get("opendino") if isinstance(raw, Mapping) else None
        if isinstance(ours, Mapping) and "transform" in ours:
            return Transform.from_dict(ours["transform"], patch=patch)
        if path.is_file():
            return Transform.from_dict(read_object(path), patch=patch)
        timm = raw.get("pretrained_cfg") if isinstance(raw, Mapping) else None
        if isinstance(timm, Mapping) and "mean" in timm:
            path = folder / "config.json"
            return timm_transform(timm, patch)
    except WeightsError as error:
        if error.thing == str(path):
            raise
        raise WeightsError(path, f"not understood ({error})") from None
    except (UsageError, TypeError, ValueError, AttributeError, KeyError) as error:
        raise WeightsError(path, f"not understood ({error})") from None
    return None


def timm_transform(fields: Mapping[str, Any], patch: int) -> Transform:
    """timm brings the short side to size / crop_pct and cuts the middle, or squeezes where its crop_mode says so."""
    side = _whole_patches(int(fields.get("input_size", (3, 224, 224))[-1]), patch)
    return Transform(
        size=side,
        mode="square" if fields.get("crop_mode") == "squash" else "center",
        mean=tuple(map(float, fields["mean"])),
        std=tuple(map(float, fields["std"])),
        patch=patch,
        filter=fields.get("interpolation", "bicubic"),
        share=side / int(side / float(fields.get("crop_pct", 1.0))),  # timm rounds the short side down
    )


def _whole_patches(side: int, patch: int) -> int:
    return max(side // patch, 1) * patch
