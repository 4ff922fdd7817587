"""C22 (meta-pytorch/data 1437; ecmwf/anemoi-core 4): a resume neither drops nor repeats pictures of an epoch."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from opendino.data.config import CropConfig, DataConfig
from opendino.data.loader import Crops, Loader
from opendino.data.sources import open_source
from tests.data.drawing import write_photos


def run(folder: Path, start: int, end: int, workers: int) -> list[Crops]:
    config = DataConfig(batch_size=4, workers=workers, crops=CropConfig(global_px=16, local_px=8, num_locals=1))
    return list(Loader(open_source(folder), config, 4, "cpu").batches(start, end))


@pytest.mark.parametrize("workers", [0, 3])
def test_a_stop_inside_an_epoch_changes_nothing(tmp_path: Path, workers: int) -> None:
    """37 files, batch 4: two epochs are 18.5 batches; stopped after step 6 with two workers, resumed with others."""
    write_photos(tmp_path, 37, 16, 16)
    whole = run(tmp_path, 0, 19, workers=0)
    parts = [*run(tmp_path, 0, 6, workers=2), *run(tmp_path, 6, 19, workers=workers)]
    assert [batch.ids for batch in parts] == [batch.ids for batch in whole]
    assert all(torch.equal(a.global_crops, b.global_crops) for a, b in zip(parts, whole, strict=True))
    shown = [id for batch in whole for id in batch.ids]
    assert len(set(shown[:37])) == len(set(shown[37:74])) == 37
