"""Backbones outside the family, by timm, frozen: what others trained, to embed with and to compare with.

`timm:NAME` takes timm's own weights, `timm:NAME=FILE` those of a file. timm builds what its registry knows and runs no
code that comes with weights.
"""

from __future__ import annotations

import difflib
import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from opendino.errors import DataError, UsageError, WeightsError
from opendino.models.contract import Features
from opendino.weights.folder import timm_transform
from opendino.weights.read import read_tensors
from opendino.weights.where import say_on_stderr

PREFIX = "timm:"
_LEFT_OUT = re.compile(
    r"^(head|head_dist|aux_head|fc|classifier|last_linear|fc_norm)\b|(position_index|attn_mask|_tracked|_coords_table)$"
)
"""Of a file: classifiers, which the network is built without, and tables that it makes itself."""


class TimmBackbone(nn.Module):
    """A timm model that answers as `models.contract.Backbone` does, but for masks, training crops and attention.

    Patches are its last feature map. CLS is its class token, where that goes through the final norm; else its own
    embedding, what its classifier would see, or the mean of the map where that embedding has another width.
    """

    num_registers = 0
    strides: tuple[int, ...] = ()

    def __init__(self, network: Any) -> None:
        super().__init__()
        self.network = network
        self.dim: int = network.num_features
        self.patch: int = network.feature_info[-1]["reduction"]
        self.num_layers: int = len(network.feature_info)

    def forward(self, images: Tensor, *, mask: Tensor | None = None, pad: bool = False) -> Features:
        """[B, 3, H, W] -> Features. Raises DataError for sides that the model does not take."""
        if mask is not None:
            raise UsageError("mask", "models of timm are only used frozen, with nothing hidden")
        return self._run(images, None, pad=pad)[-1]

    def intermediate(self, images: Tensor, layers: Sequence[int], norm: bool = True) -> list[Features]:
        """Features after the given layers, or stages of a network of stages; their CLS is the mean of the map."""
        return self._run(images, sorted(layers), norm=norm)

    def attention(self, images: Tensor, layer: int) -> Tensor:
        raise UsageError("attention", "is not read from models of timm", "show pca and similarity work")

    def _run(self, images: Tensor, layers: list[int] | None, *, norm: bool = True, pad: bool = False) -> list[Features]:
        height, width = images.shape[-2:]
        if pad:
            images = F.pad(images, (0, -width % self.patch, 0, -height % self.patch))
        last = self.num_layers - 1
        try:
            final, maps = self.network.forward_intermediates(
                images, indices=layers or [last], norm=norm and self._norms, output_fmt="NCHW"
            )
        except (AssertionError, RuntimeError) as error:
            if isinstance(error, torch.OutOfMemoryError) or "allocate" in str(error):
                raise
            own = self.network.pretrained_cfg["input_size"][-1]
            fix = f"it may take {own}x{own} alone: embed --crop, and protocols on CLS"
            raise DataError(f"pictures of {width}x{height}", "the model does not take them", fix) from error
        found = []
        for layer, each in zip(layers or [last], maps, strict=True):
            patches = each.permute(0, 2, 3, 1)
            # Some end with a layer that belongs to no stage, or with a norm.
            if layer == last and final.ndim == 4 and (norm or patches.shape[-1] != self.dim):
                patches = final if getattr(self.network, "output_fmt", "NCHW") == "NHWC" else final.permute(0, 2, 3, 1)
            cls = self._embedding(final, patches) if layers is None else patches.mean((1, 2))
            found.append(Features(cls, cls.new_empty(len(cls), 0, cls.shape[1]), patches))
        return found

    def _embedding(self, final: Tensor, patches: Tensor) -> Tensor:
        own_norm = getattr(self.network, "fc_norm", None)
        if getattr(self.network, "cls_token", None) is not None and isinstance(own_norm, nn.Identity):
            return final[:, 0]  # timm pools patches of DINOv3 by default; the class token is what it was trained with
        if getattr(self.network, "head_hidden_size", self.dim) != self.dim:
            return patches.mean((1, 2))
        embedding: Tensor = self.network.forward_head(final, pre_logits=True)
        return embedding

    @property
    def _norms(self) -> bool:
        """Whether the network has a final norm that its intermediate maps can go through: those of tokens."""
        return self.network.feature_info[0]["reduction"] == self.patch


def is_timm(what: object) -> bool:
    """Whether a model is named as one of timm's."""
    return isinstance(what, str) and what.startswith(PREFIX)


def load_timm(what: str, device: str | torch.device, overrides: Mapping[str, Any]) -> TimmBackbone:
    """The model of `timm:NAME` or `timm:NAME=FILE`, frozen, with `.transform` and `.card`.

    Raises:
        UsageError: options that are for the family. WeightsError: timm is missing, does not know the name, cannot get
            the weights, or they do not fit.
    """
    if overrides:
        raise UsageError(what, f"takes no {', '.join(overrides)}", "they are for models of the family")
    try:
        import timm
    except (ImportError, RuntimeError) as error:
        cause = "is not installed" if isinstance(error, ModuleNotFoundError) else f"cannot be imported ({error})"
        raise WeightsError("timm", cause, "pip install 'opendino[timm]'") from None
    name, given, file = what.removeprefix(PREFIX).partition("=")
    if given and not file:
        raise UsageError(what, "names no file after =")
    if ":" not in name and not timm.is_model(name):
        near = difflib.get_close_matches(name, timm.list_models(), n=1)
        raise WeightsError(what, "timm knows no such model", f"did you mean {PREFIX}{near[0]}?" if near else "")
    network = _create(timm, name, what, pretrained=not file)
    if file:
        _fill(network, Path(file))
    if not hasattr(network, "forward_intermediates") or not len(getattr(network, "feature_info", ())):
        raise WeightsError(what, "timm gives no feature maps of this model")
    network.requires_grad_(False)
    model = TimmBackbone(network).eval()
    settings = timm.data.resolve_model_data_config(network)
    transform = timm_transform(settings, model.patch)
    if transform.size != settings["input_size"][-1]:
        patches = f"{transform.size} are whole patches of {model.patch}"
        say_on_stderr(f"{PREFIX}{name} was trained at {settings['input_size'][-1]} px; {patches}")
    _require_grid(model, transform.size, what)
    # torch's stubs type every attribute of a module as a tensor or a module.
    model.transform = transform  # type: ignore[assignment]
    licence = network.pretrained_cfg.get("license") or "not stated"
    source = f"{PREFIX}{name}={Path(file).resolve()}" if file else what
    card = {"name": name, "licence": "not stated" if file else licence, "source": source, "layout": "timm"}
    model.card = card  # type: ignore[assignment]
    return model.to(device)


def _require_grid(model: TimmBackbone, size: int, what: str) -> None:
    """Some networks end in several maps, or in one whose cells are no patches of the picture."""
    wanted = (size // model.patch, size // model.patch, model.dim)
    try:
        with torch.no_grad():
            found = tuple(model(torch.zeros(1, 3, size, size)).patches.shape[1:])
    except (DataError, AttributeError, TypeError, ValueError):
        found = ()
    if found != wanted:
        raise WeightsError(what, "its last feature map is no grid of patches", "other networks of timm are")


def _create(timm: Any, name: str, what: str, pretrained: bool) -> Any:
    """Sizes other than its own are taken where the network can."""
    for changes in ({"dynamic_img_size": True}, {}):
        try:
            with _quiet("huggingface_hub", "timm"):
                return timm.create_model(name, pretrained=pretrained, num_classes=0, **changes)
        except TypeError:
            continue
        except Exception as error:  # timm's, its hub's and its transport's, which differ between versions
            fix = f"weights of a file: {what}=FILE" if pretrained else ""
            said = (str(error) or type(error).__name__).splitlines()[0][:200]
            raise WeightsError(what, f"timm cannot open it ({said})", fix) from None
    raise WeightsError(what, "timm cannot build it")


@contextmanager
def _quiet(*loggers: str) -> Iterator[None]:
    """What libraries say of each try is left out: the error at the end tells it once."""
    levels = {name: logging.getLogger(name).level for name in loggers}
    for name in loggers:
        logging.getLogger(name).setLevel(logging.ERROR)
    try:
        yield
    finally:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)


def _fill(network: nn.Module, file: Path) -> None:
    """All tensors of the network from a file, plain or below one prefix, as training scripts save them; those of its
    classifier, which it was built without, are left out.
    """
    if not file.is_file():
        raise WeightsError(file, "no such file")
    tensors = read_tensors(file)
    wanted = network.state_dict()
    first = next(iter(wanted))
    prefixes = ["", *(name.removesuffix(first) for name in tensors if name.endswith(f".{first}"))]
    absent = {
        prefix: [
            name
            for name, tensor in wanted.items()
            if prefix + name not in tensors or tensors[prefix + name].shape != tensor.shape
        ]
        for prefix in prefixes
    }
    best = min(prefixes, key=lambda prefix: len(absent[prefix]))
    if absent[best]:
        cause = f"{len(absent[best])} of {len(wanted)} tensors do not fit, {absent[best][0]} first"
        raise WeightsError(file, cause)
    if len(fitting := [prefix for prefix in prefixes if not absent[prefix]]) > 1:
        raise WeightsError(file, f"holds {len(fitting)} models ({', '.join(fitting)})", "keep one of them in the file")
    theirs = {name.removeprefix(best) for name in tensors if name.startswith(best)}
    if more := sorted(name for name in theirs - wanted.keys() if not _LEFT_OUT.search(name)):
        cause = f"holds {len(more)} tensors more than this network, {more[0]} first"
        raise WeightsError(file, cause, "name the network that they are of")
    network.load_state_dict({name: tensors[best + name] for name in wanted})
