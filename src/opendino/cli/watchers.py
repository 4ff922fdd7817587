"""What looks at a run while it trains: health in words, k-NN, PCA pictures, the report, the best weights."""

from __future__ import annotations

import copy
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from torch import Tensor, nn

from opendino.data.sources import Source
from opendino.data.transform import Transform
from opendino.errors import DataError
from opendino.evaluation.probes import KnnProbe
from opendino.monitor.health import Health, alarms, in_words, measure
from opendino.monitor.incidents import IncidentLog
from opendino.monitor.metrics import MetricsLog
from opendino.pages.pca import Basis, pca_maps, picture_sheet
from opendino.pages.report import write_report
from opendino.train.config import RunConfig
from opendino.train.loop import Watcher
from opendino.train.method import Method
from opendino.train.run import RunDirectory
from opendino.train.schedules import to_steps
from opendino.weights import write_model

PROBE_IMAGES = 64
PICTURE_IMAGES = 6


def read_evenly(source: Source, transform: Transform, count: int) -> Tensor:
    """Up to `count` readable pictures spread evenly over the source, [n, 3, H, W], normalised."""
    step = max(1, len(source) // count)
    images: list[Tensor] = []
    for index in range(0, len(source), step):
        try:
            images.append(transform.apply(source.read(index)))
        except DataError:
            continue  # listed when training or scoring meets it; the probe takes the next
        if len(images) == count:
            break
    if len(images) < 2:
        raise DataError("pictures", f"only {len(images)} of those tried can be read", "look at them with a viewer")
    return torch.stack(images)
