"""C14 (facebookresearch/detectron2 143): one truncated file among 200 never ends a run; listed once an epoch."""

from __future__ import annotations

from pathlib import Path

from opendino.data.config import CropConfig, DataConfig
from opendino.data.loader import Loader
from opendino.data.sources import open_source
from tests.data.drawing import encoded, photo


def test_two_epochs_with_one_truncated_file(tmp_path: Path) -> None:
    for number in range(200):
        data = encoded(photo(number, 24, 24), "JPEG")
        (tmp_path / f"{number:03d}.jpg").write_bytes(data[: len(data) * 6 // 10] if number == 137 else data)
    config = DataConfig(batch_size=20, workers=2, crops=CropConfig(global_px=16, local_px=8, num_locals=1))
    results = list(Loader(open_source(tmp_path), config, None, "cpu").batches(0, 20))
    for epoch in (results[:10], results[10:]):
        bad = [skipped for batch in epoch for skipped in batch.bad]
        assert [skipped.id for skipped in bad] == ["137.jpg"]
        assert "truncated" in bad[0].reason
        shown = [id for batch in epoch for id in batch.ids]
        assert len(shown) == 200 and set(shown) == {f"{number:03d}.jpg" for number in range(200) if number != 137}
