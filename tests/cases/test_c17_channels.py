"""C17 (facebookresearch/dinov2 PR 131; huggingface/pytorch-image-models PR 2780): other channels than three."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from opendino.cli.check import check
from opendino.data.sources import open_source
from tests.data.drawing import encoded, photo


def test_grey_and_alpha_by_rule_more_bands_by_name(tmp_path: Path) -> None:
    tifffile = pytest.importorskip("tifffile")
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    array = photo(2, 40, 40)
    alpha = np.full((40, 40), 255, np.uint8)
    (pictures / "grey.png").write_bytes(encoded(array[:, :, 0], "PNG"))
    (pictures / "grey-alpha.png").write_bytes(encoded(np.dstack([array[:, :, 0], alpha]), "PNG"))
    (pictures / "rgba.png").write_bytes(encoded(np.dstack([array, alpha]), "PNG"))
    bands = {4: np.dstack([array, array[:, :, 0]]), 6: np.dstack([array, array])}
    for count, values in bands.items():
        options = {"photometric": "minisblack", "planarconfig": "contig"}
        tifffile.imwrite(pictures / f"bands-{count}.tif", values, extrasamples=[0] * (count - 1), **options)
    result = check(pictures, out=tmp_path / "out")
    assert result.summary.bad["unsupported"].ids == ("bands-4.tif", "bands-6.tif")
    assert "has 4 bands; say which of 0 to 3: --bands 0 1 2, or " in " ".join(result.advice)

    before = open_source(pictures).fingerprint
    (pictures / "opendino-reading.json").write_text(json.dumps({"bands": [2, 1, 0]}))
    source = open_source(pictures)
    assert source.fingerprint != before
    for index in range(2):
        assert np.array_equal(source.read(index).array, array[:, :, ::-1])
