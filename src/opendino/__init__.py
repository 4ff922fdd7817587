"""opendino: DINOv3-style self-supervised learning on your own pictures.

Every command is a function of the same name here; each is imported on first use, so `import opendino` loads no torch.
"""

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_PUBLIC = {
    "load": "opendino.weights",
    "read": "opendino.data.images",
    "check": "opendino.cli.check",
    "pretrain": "opendino.cli.pretrain",
    "adapt": "opendino.cli.adapt",
    "distill": "opendino.cli.distill",
    "demo": "opendino.cli.demo",
    "show": "opendino.cli.show",
    "evaluate": "opendino.cli.evaluate",
    "compare": "opendino.cli.compare",
    "track": "opendino.cli.track",
    "embed": "opendino.cli.embed",
    "search": "opendino.cli.search",
    "try_": "opendino.cli.try_",
    "open_store": "opendino.features.store",
    "list_models": "opendino.cli.models",
    "read_passport": "opendino.weights",
    "doctor": "opendino.cli.doctor",
}
__all__ = [*_PUBLIC, "__version__"]


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'opendino' has no attribute {name!r}")
    return getattr(import_module(_PUBLIC[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
