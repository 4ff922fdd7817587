"""C10 (facebookresearch/dinov2 298, 173): a batch larger than the data must not give an endless or empty epoch."""

from __future__ import annotations

from pathlib import Path

from opendino.data.config import CropConfig, DataConfig
from opendino.data.loader import Loader
from opendino.data.sources import open_source
from tests.data.drawing import write_photos


def test_three_photos_fill_batches_of_the_default_size(tmp_path: Path) -> None:
    write_photos(tmp_path, 3)
    config = DataConfig(crops=CropConfig(global_px=32, local_px=16, num_locals=1))
    assert config.batch_size > 3
    results = list(Loader(open_source(tmp_path), config, 16, "cpu").batches(0, 2))
    assert [len(batch.global_crops) for batch in results] == [2 * config.batch_size] * 2
    assert {id for batch in results for id in batch.ids} == {"photo-00.png", "photo-01.png", "photo-02.png"}
