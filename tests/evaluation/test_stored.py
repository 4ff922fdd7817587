"""Stored features in the place of a backbone: the numbers of the model itself, of no other picture."""

import json
import shutil

import pytest
import torch

from opendino import load
from opendino.cli import main
from opendino.cli.embed import embed
from opendino.cli.evaluate import evaluate
from opendino.data.sources import open_source
from opendino.data.transform import Transform
from opendino.errors import DataError, UsageError
from opendino.evaluation.cache import features
from opendino.evaluation.protocol import Job, Subject
from opendino.evaluation.stored import stored_subject
from opendino.models.family import build_model
from opendino.weights import write_model
from tests.data.drawing import write_photos
from tests.evaluation import layouts, schema

pytest.importorskip("lance")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A model, its store of all pictures of a set, the set, and a copy whose files have other names."""
    root = tmp_path_factory.mktemp("stored")
    torch.manual_seed(0)
    backbone, model, data = build_model("vit_tiny", depth=2, patch=8), root / "net", layouts.imagenet(root / "data")
    card = {"name": "vit_tiny", "licence": "Apache-2.0", "source": "test"}
    write_model(model, backbone, Transform(size=48, patch=8, mode="center"), card)
    embed(data, model, root / "store", crop=True, dtype="fp32")
    renamed = root / "renamed"
    shutil.copytree(data, renamed)
    for file in sorted((renamed / "val").rglob("*.JPEG")):
        file.rename(file.with_name(f"x{file.name}"))
    return model, f"features:{root / 'store'}", data, renamed


def test_a_store_scores_as_its_model_does_whatever_the_files_are_called(made, tmp_path):
    model, store, data, renamed = made
    direct = evaluate("knn,linear", model=model, data=data, out=tmp_path / "direct", quiet=True)
    stored = evaluate("knn,linear", model=store, data=renamed, out=tmp_path / "stored", quiet=True)
    found, wanted = (
        [(one.metric, one.n, one.value, *one.interval) for one in side.results] for side in (stored, direct)
    )
    assert [one[:2] for one in found] == [one[:2] for one in wanted]
    assert [one[2:] for one in found] == [pytest.approx(one[2:]) for one in wanted]
    raw = json.loads(stored.record.read_text())
    schema.check(raw)
    (first, _) = raw["evaluations"]
    assert first["features"]["layers"] is None and first["model"]["name"] == "vit_tiny in store"
    assert stored.results[0].config["licence"] == "Apache-2.0"


def test_its_features_are_those_that_the_model_gives(made):
    model, store, data, renamed = made
    direct = Subject(load(model), load(model).transform, "net", "")
    sources = open_source(data / "val"), open_source(renamed / "val")
    job = Job(data)
    wanted = features(direct, sources[0], job, "val")
    found = features(stored_subject(store), sources[1], job, "val")
    by_pixels = [[part.read(index).array.tobytes() for index in range(len(part))] for part in sources]
    order = [by_pixels[1].index(pixels) for pixels in by_pixels[0]]
    torch.testing.assert_close(found.cls[order], wanted.cls, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(found.pooled[order], wanted.pooled, atol=1e-5, rtol=1e-4)


def test_stores_that_differ_are_told_apart_and_other_readings_refused(made, tmp_path):
    model, store, data, _ = made
    embed(data, model, tmp_path / "store", crop=False, dtype="fp32")
    whole = f"features:{tmp_path / 'store'}"
    done = evaluate("knn", model=[store, whole], data=data, out=tmp_path / "out", quiet=True)
    assert len({result.config["model"] for result in done.results}) == 2
    (data / "val" / "opendino-reading.json").write_text('{"bands": [0, 0, 0]}')
    try:
        with pytest.raises(DataError, match="made with another reading"):
            evaluate("knn", model=store, data=data, out=tmp_path / "other", quiet=True)
    finally:
        (data / "val" / "opendino-reading.json").unlink()
    objects = layouts.objectnet(tmp_path / "objects")
    with pytest.raises(DataError, match="in its own way, a store has none"):
        evaluate("ood-objectnet", model=store, data=objects, out=tmp_path / "objects-scored", quiet=True)


def test_pictures_that_the_store_lacks_are_left_out_by_name(made, tmp_path):
    model, _, data, _ = made
    part = tmp_path / "part"
    shutil.copytree(data, part)
    gone = sorted((part / "val").rglob("*.JPEG"))[0]
    gone.unlink()
    embed(part, model, tmp_path / "store", crop=True)
    store = f"features:{tmp_path / 'store'}"
    done = evaluate("knn", model=store, data=data, out=tmp_path / "out", quiet=True)
    assert any("1 left out" in one and gone.name in one and "not in the store" in one for one in done.warnings)
    tables = layouts.labelled_csv(tmp_path / "tables")
    with pytest.raises(DataError, match="left out: not in the store, and 7 more pictures; retrieval needs every"):
        evaluate("retrieval", model=store, data=tables, out=tmp_path / "tables-scored", quiet=True)
    for folder in ("train", "val"):
        for kind in ("cats", "dogs"):
            write_photos(tmp_path / "photos" / folder / kind, 3)
    with pytest.raises(DataError, match="holds none of"):
        evaluate("knn", model=store, data=tmp_path / "photos", out=tmp_path / "photos-scored", quiet=True)


def test_what_a_store_cannot_do_is_said(made, tmp_path, capsys):
    _, store, data, _ = made
    both = {"": data, "seg-linear": layouts.ade20k(tmp_path / "masks")}
    done = evaluate("knn,seg-linear", model=store, data=both, out=tmp_path / "out", quiet=True)
    assert done.results and "a store has none" in next(iter(done.failures.values()))
    for changes in ({"size": 96}, {"stride": 4}):
        with pytest.raises(UsageError, match="takes no"):
            evaluate("knn", model=store, data=data, out=tmp_path / "no", quiet=True, **changes)
    command = ["evaluate", "knn", "--model", f"features:{data}", "--data", str(data), "--out", str(tmp_path / "x")]
    assert main(command) == DataError.exit_code
    assert "is no feature store" in capsys.readouterr().err
