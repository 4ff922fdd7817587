"""The run directory: what lies where, who holds it, and how a run is found again."""

from __future__ import annotations

import gzip
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from opendino.errors import OpendinoError, UsageError
from opendino.files import exclusive, sweep_temporary, write_atomic, write_json
from opendino.train.config import RunConfig, load_config, to_dict
from opendino.train.lease import Lease, hold_lease


@dataclass(frozen=True)
class RunDirectory:
    """Paths of one run; see ARCHITECTURE section 6 for the layout."""

    path: Path
    lease: Lease | None = None

    def check_held(self) -> None:
        """Raise OpendinoError when a trainer on another machine has taken the directory over."""
        if self.lease is not None:
            self.lease.check()

    @property
    def config_file(self) -> Path:
        return self.path / "config.json"

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def metrics_file(self) -> Path:
        return self.path / "metrics.jsonl"

    @property
    def incidents_file(self) -> Path:
        return self.path / "incidents.jsonl"

    @property
    def pictures(self) -> Path:
        return self.path / "pictures"

    @property
    def listing_file(self) -> Path:
        return self.path / "listing.txt.gz"

    @property
    def model(self) -> Path:
        return self.path / "model"

    @property
    def best_model(self) -> Path:
        return self.path / "model-best"

    def config(self) -> RunConfig | None:
        """The saved config; None for a run that has not begun."""
        return load_config(self.config_file) if self.config_file.exists() else None

    def listing(self) -> list[str]:
        """Ids of the pictures that the run began with; empty for a run of before they were kept."""
        if not self.listing_file.exists():
            return []
        return gzip.decompress(self.listing_file.read_bytes()).decode().splitlines()

    def write_listing(self, ids: Iterable[str]) -> None:
        write_atomic(self.listing_file, gzip.compress("\n".join(ids).encode(), mtime=0))

    def write_config(self, config: RunConfig) -> None:
        write_json(self.config_file, to_dict(config))


@contextmanager
def open_run(path: Path, *, take_over: bool = False) -> Iterator[RunDirectory]:
    """Make the directory, lock it for the time of the block, and clear what a killed writer left.

    take_over: also from a trainer on another machine that was not heard of for ten minutes.
    Raises UsageError when another process trains in it or it holds other things than a run, OpendinoError when it
    cannot be written.
    """
    run = RunDirectory(path)
    if path.is_dir() and not (path / "run.lock").exists() and any(path.iterdir()):
        raise UsageError(path, "holds other files and no run", "choose another --out, or an empty folder")
    if path.is_file():
        raise UsageError(path, "is a file, where a run needs a folder", "choose another --out")
    try:
        run.checkpoints.mkdir(parents=True, exist_ok=True)
        run.pictures.mkdir(exist_ok=True)
    except OSError as error:
        raise OpendinoError(path, f"cannot be made ({error.strerror})", "choose another --out") from None
    with exclusive(path / "run.lock"), hold_lease(path / "run.lease", take_over=take_over) as lease:
        sweep_temporary(run.checkpoints)
        sweep_temporary(path)
        yield replace(run, lease=lease)
