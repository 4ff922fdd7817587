"""Slow: that pretraining learns, as numbers. Half an hour on two cores; settings and all seeds are in LOG.md."""

import json
import os
from pathlib import Path

import pytest
from benchmarks.learning import score

from opendino import demo, load, pretrain
from opendino.data.sources import open_source
from opendino.evaluation.metrics.interval import bootstrap, paired_bootstrap
from opendino.features.extract import extract

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3 * 3600)]
DATA = Path(os.environ.get("OPENDINO_TEST_DATA", Path(__file__).parents[3] / "shared" / "data"))


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_fourteen_thousand_small_pictures(seed, tmp_path):
    """Floor: CLS above pixels (9.0 at most) and its own random start in k-NN, paired; linear likewise."""
    folder = DATA / "class_tinyimagenet"
    if not folder.exists():
        pytest.skip(f"{folder} is not here: set OPENDINO_TEST_DATA")
    out = tmp_path / "run"
    pretrain(
        folder / "train.tar", val=folder / "val.tar", steps=1200, out=out, fields=["--seed", str(seed)], quiet=True
    )
    sources = open_source(folder / "train.tar"), open_source(folder / "val.tar")
    models = [load(out / name) for name in ("model-start", "model")]
    start, end = ([extract(model, source, model.transform) for source in sources] for model in models)
    for probe, floor in (("k-NN", 13.0), ("linear", 19.0)):
        before, after = score("cls", probe, *start)[0], score("cls", probe, *end)[0]
        assert bootstrap(100 * after).low > floor
        assert paired_bootstrap(100 * before, 100 * after).low > 0


@pytest.mark.parametrize("seed", range(5))
def test_the_demo_beats_its_start_pixels_and_colour(seed, tmp_path):
    result = demo(out=tmp_path, seed=seed, quiet=True)
    written = json.loads(result.results.read_text())
    low = written["ci95"]["knn_trained"][0]
    assert all(low > written["ci95"][key][1] for key in ("knn_random", "knn_pixels", "knn_colour"))
