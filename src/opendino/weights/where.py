"""Where weights come from: a path; else, by name, a file at hand, Hugging Face, or the open mirror, in this order.

A model is taken for the one that was asked for only when its file or folder carries that name and its content has that
shape. One line on standard error says what was taken and why.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from opendino.errors import WeightsError
from opendino.models.dinov2 import Dinov2Config
from opendino.models.family import FAMILY, ModelSpec, nearest
from opendino.weights.folder import TRAINED_MODELS, WEIGHTS
from opendino.weights.hub import Refused, Unreachable, cache_home, download, has_token, hub_cache
from opendino.weights.licences import accepted
from opendino.weights.opened import Opened, open_weights
from opendino.weights.shapes import is_named

Download = Callable[[str], Path]
Say = Callable[[str], None]

# Without a name: the strongest at hand that runs on an ordinary machine; 7B only when there is nothing else.
_BEST_FIRST = (
    *("vith16plus", "vitl16", "vitb16", "vits16plus", "vits16"),
    *("convnext_large", "convnext_base", "convnext_small", "convnext_tiny"),
    *("vitl16_sat", "vit7b16", "vit7b16_sat"),
    *("dinov2_vitl14_reg", "dinov2_vitb14_reg", "dinov2_vitl14", "dinov2_vitb14", "dinov2_vits14_reg", "dinov2_vits14"),
    *("dinov2_vitg14_reg", "dinov2_vitg14"),
)
_OPEN_DEFAULT = "dinov2_vitb14_reg"


@dataclass(frozen=True)
class Origin:
    """path: a weights file or model folder. name: the family member that it is, where a name was looked for.

    opened: its content, where looking for the name has read it already.
    """

    path: Path
    name: str | None = None
    source: str | None = None
    opened: Opened | None = None


def say_on_stderr(line: str) -> None:
    print(f"opendino: {line}", file=sys.stderr)


def locate(
    what: Path | str | None,
    *,
    accept_licence: bool = False,
    download: Download = download,
    say: Say = say_on_stderr,
) -> Origin:
    """Find the weights of a path, a name, or, for None, the best at hand.

    A path that exists wins over a name. Raises WeightsError in one line that tells the ways on.
    """
    if what is None:
        return _best(download, say)
    if Path(what).exists() or str(what) not in FAMILY:
        if re.fullmatch(r"\w+", str(what)) and not Path(what).exists():
            raise WeightsError(what, "no such file, folder or model", nearest(str(what), list(FAMILY)))
        return Origin(Path(what))
    spec = FAMILY[str(what)]
    if spec.repository is None:
        raise WeightsError(spec.name, "has no released weights", "opendino pretrain PICTURES/ --model " + spec.name)
    return at_hand(spec, say) or _from_network(spec, accept_licence, download, say)


def at_hand(spec: ModelSpec, say: Say = say_on_stderr, why: str = "") -> Origin | None:
    """The weights of a model in the folders that are searched, or None; `why` comes before the line that is said."""
    for place, path in candidates(spec):
        found = _check(path, spec)
        if isinstance(found, str):
            say(f"{path} is called {spec.name} but {found}: passed over")
            continue
        say(f"{why}{spec.name} from {path} ({place}; {spec.licence})")
        return Origin(path, spec.name, f"{spec.source}; read from {path.name}", found)
    return None


def search_folders() -> list[tuple[str, Path]]:
    """Folders that are searched, in order, with the words for each."""
    torch_home = Path(os.environ.get("TORCH_HOME") or cache_home() / "torch")
    chosen = os.environ.get("OPENDINO_WEIGHTS", "")
    folders = [("at hand in OPENDINO_WEIGHTS", Path(part)) for part in chosen.split(os.pathsep) if part]
    folders.append(("at hand in opendino's cache", own_folder()))
    folders.append(("at hand in torch's cache", torch_home / "hub" / "checkpoints"))
    return folders


def own_folder() -> Path:
    """Where to put weights by hand; OPENDINO_WEIGHTS may name more folders."""
    return cache_home() / "opendino" / "weights"


def candidates(spec: ModelSpec) -> Iterator[tuple[str, Path]]:
    """Files and folders that carry the name of a model, official, Hugging Face's, timm's or ours."""
    names = file_names(spec)
    for place, folder in search_folders():
        if folder.is_dir():
            for entry in sorted(folder.iterdir()):
                stem = entry.name.lower() if entry.is_dir() else entry.stem.lower()
                if any(stem == name or stem.startswith(f"{name}-") for name in names):
                    yield place, entry
    for repository in (spec.repository, spec.mirror):
        if repository is not None:
            snapshots = hub_cache() / f"models--{repository.replace('/', '--')}" / "snapshots"
            for snapshot in sorted(snapshots.glob("*"), key=lambda path: path.stat().st_mtime, reverse=True):
                if any(snapshot.glob("*.safetensors")) or any(snapshot.glob("*.bin")):
                    yield "at hand in Hugging Face's cache", snapshot


def file_names(spec: ModelSpec) -> list[str]:
    """Names without endings; an official file has `-` and eight digits of its hash behind."""
    data = "sat493m" if spec.name.endswith("_sat") else "lvd1689m"
    if isinstance(spec.config, Dinov2Config):
        official = f"{spec.name.removesuffix('_reg')}{'_reg4' if spec.name.endswith('_reg') else ''}_pretrain"
    else:
        official = f"dinov3_{spec.name.removesuffix('_sat')}_pretrain_{data}"
    hubs = [repository.split("/")[1].lower() for repository in (spec.repository, spec.mirror) if repository]
    return [spec.name, official, *hubs]


def _check(path: Path, spec: ModelSpec) -> Opened | str:
    """The content of a file, or in words what keeps it from being the model that its name says."""
    try:
        opened = open_weights(path)
    except WeightsError as error:
        return f"cannot be used ({error.cause})"
    card = opened.raw.get("opendino", {}).get("card", {}) if isinstance(opened.raw, dict) else {}
    if not is_named(opened.names, spec.name):
        return f"holds {' or '.join(opened.names) or 'a model of no known size'}"
    if not opened.coverage.whole:
        return f"is incomplete ({opened.coverage})"
    if card.get("name") not in (None, spec.name):
        return f"its card says {str(card.get('name'))[:60]}"
    return opened


def newest_run(folder: Path = Path("runs")) -> Path | None:
    """The run in a folder of runs, by default the one that commands make here, that wrote trained weights last."""
    trained = (
        (file.stat().st_mtime, run)
        for run in (folder.iterdir() if folder.is_dir() else ())
        for file in (run / name / WEIGHTS for name in TRAINED_MODELS)
        if file.is_file()
    )
    return max(trained, default=(0.0, None))[1]


def _best(download: Download, say: Say) -> Origin:
    """Released weights before a run of one's own, which mostly saw fewer pictures; that before a download."""
    run = newest_run()
    for name in _BEST_FIRST:
        if found := at_hand(FAMILY[name], say, "no model named; the best at hand is "):
            if run is not None:
                say(f"--model {run} takes your newest run instead")
            return found
    if run is not None:
        say(f"no model named and no released weights at hand; {run} is the newest run here")
        return Origin(run)
    spec = FAMILY[_OPEN_DEFAULT]
    try:
        path = download(spec.repository or "")
    except (Unreachable, Refused) as error:
        ways = (
            "(1) --model with a run, a folder or a file of yours (opendino demo makes one); "
            f"(2) go online: {spec.name} ({spec.licence}) then comes from huggingface.co/{spec.repository}; "
            f"(3) fetch that elsewhere and put it, named {spec.name}, into {own_folder()}"
        )
        raise WeightsError("no model named", f"no weights at hand and {error}", ways) from None
    say(f"no model named and none at hand; {spec.name} from huggingface.co/{spec.repository} ({spec.licence})")
    return Origin(path, spec.name, f"huggingface.co/{spec.repository}")


def _from_network(spec: ModelSpec, accept_licence: bool, download: Download, say: Say) -> Origin:
    assert spec.repository is not None
    why = "open to all"
    if spec.gated and not has_token():
        why = "no Hugging Face token"
    else:
        try:
            path = download(spec.repository)
            say(f"{spec.name} from huggingface.co/{spec.repository} ({spec.licence})")
            return Origin(path, spec.name, f"huggingface.co/{spec.repository}")
        except Refused as error:
            why = f"Hugging Face refuses this account ({error})"
        except Unreachable as error:
            raise WeightsError(spec.name, f"no weights at hand and {error}", _three_ways(spec)) from None
    if spec.mirror is None:
        raise WeightsError(spec.name, why, _three_ways(spec))
    if not accepted(spec.licence, ask=f"the open mirror {spec.mirror} has {spec.name}", given=accept_licence):
        raise WeightsError(spec.name, f"no weights at hand, {why}", _three_ways(spec))
    try:
        path = download(spec.mirror)
    except (Refused, Unreachable) as error:
        raise WeightsError(spec.name, f"no weights at hand, {why}, and {error}", _three_ways(spec)) from None
    say(f"{spec.name} from the open mirror huggingface.co/{spec.mirror}, since {why} ({spec.licence})")
    return Origin(path, spec.name, f"huggingface.co/{spec.mirror}, a mirror of {spec.repository}")


def _three_ways(spec: ModelSpec) -> str:
    """The ways on, in one line: by hand, with a token, by the mirror (or, for an open model, online)."""
    by_hand = f"(1) put {file_names(spec)[1]}.pth, or a model folder named {spec.name}, into {own_folder()}"
    if not spec.gated:
        return f"{by_hand}; (2) go online: huggingface.co/{spec.repository} is open; (3) name another model"
    page = f"(2) ask at huggingface.co/{spec.repository}, then run `hf auth login`"
    return f"{by_hand}; {page}; (3) accept the {spec.licence} with --accept-licence and take {spec.mirror}"
