"""`opendino evaluate` end to end: every built protocol on its published layout, its files, refusals, and the cache."""

import csv
import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from opendino.cli import main
from opendino.cli.evaluate import evaluate, run
from opendino.data.transform import Transform
from opendino.errors import DataError, UsageError, WeightsError
from opendino.evaluation.examples import MOST
from opendino.evaluation.published import TABLE, published
from opendino.evaluation.record import read_record
from opendino.evaluation.side_by_side import to_lines
from opendino.evaluation.suite import ENTRIES, PROTOCOLS
from opendino.models.family import build_model
from opendino.weights import write_model
from tests.evaluation import layouts, schema


def save_model(folder: Path, seed: int, name: str = "vit_tiny", **changes) -> Path:
    torch.manual_seed(seed)
    model = build_model(name, **changes)
    transform = Transform(size=48, patch=model.patch)
    write_model(folder, model, transform, {"name": name, "licence": "Apache-2.0", "source": "test"})
    return folder


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> list[Path]:
    root = tmp_path_factory.mktemp("models")
    return [save_model(root / f"seed-{seed}", seed, depth=2, patch=8) for seed in (0, 1)]


@pytest.mark.parametrize(
    ("protocol", "build", "settings"), layouts.CASES, ids=lambda one: getattr(one, "__name__", None)
)
def test_every_layout_runs_to_its_files(protocol, build, settings, models, tmp_path):
    root = build(tmp_path / "data")
    done = evaluate(
        protocol,
        model=models[0],
        data=root,
        out=tmp_path / "out",
        settings={name: str(value) for name, value in settings.items()},
        quiet=True,
    )
    assert done.results and not done.failures
    for result in done.results:
        # Ranks and spectra have none: drawing pictures twice lowers them whatever the features are.
        assert result.interval is not None or result.metric.startswith(("rank", "pca", "participation"))
        low, high = result.interval or (result.value, result.value)
        assert low <= result.value <= high and result.n > 0 and result.model_hash and result.split_hash
        assert result.config["licence"] == "Apache-2.0"
    assert read_record(done.out).results == done.results
    raw = json.loads(done.record.read_text())
    schema.check(raw)
    assert raw["units_file"] == "units.csv" and raw["run"]["peak_bytes"] > 1e6 and raw["run"]["seed"] == 0
    (one,) = raw["evaluations"]
    assert one["model"]["params"] > 0 and one["model"]["weights_sha256"] == done.results[0].model_hash
    assert len(one["data"]["listing_sha256"]) == 64 and one["data"]["split"]
    assert set(PROTOCOLS[protocol].settings) <= {*one["protocol"]["settings"], *one["metrics"][0]["settings"]}
    assert all(reference["comparable"] == (not reference["why_not"]) for reference in one["reference"])
    for metric in one["metrics"]:
        choice = metric if "selected" in metric else one
        if choice["selected"] is not None:
            assert choice["selected"]["on"] in ("held-out train", "other half", "valid", "val", "test")
        if choice.get("grid"):
            assert len(choice["grid"]["points"]) == len(choice["grid"]["scores"]) >= 1
    # A number of the paper stands beside one of ours of the same name, or nobody will ever see it.
    known = [row for row in TABLE if (row.protocol, row.dataset) == (protocol, done.results[0].dataset)]
    assert set(known) <= {published(result.protocol, result.dataset, result.metric) for result in done.results}
    assert done.page.read_text().count("<td") >= 5 * len(done.results) and "| --- |" in done.table.read_text()


def test_the_page_draws_what_each_model_found(models, tmp_path):
    root = layouts.voc_boxes(tmp_path / "data")
    page = evaluate("discovery", model=models, data=root, out=tmp_path / "out", quiet=True).page.read_text()
    assert page.count("data:image/jpeg") == MOST * 3 and "what was found" in page
    root = layouts.plain_videos(tmp_path / "videos")
    swept = evaluate("vos", model=models[0], data=root, layers="all", out=tmp_path / "layers", quiet=True)
    assert swept.page.read_text().count("data:image/jpeg") == 2, "one video, at the last layer alone"


def test_boxes_of_squares_are_learned_and_drawn(models, tmp_path):
    root = layouts.coco_parts(tmp_path / "data")
    settings = {"rows": "6", "steps": "400"}
    done = evaluate("det-linear", model=models[0], data=root, out=tmp_path / "out", settings=settings, quiet=True)
    scores = {result.metric: result.value for result in done.results}
    assert scores["ap50"] > 90 and scores["ap50"] >= scores["ap"] > 50, scores
    (one,) = json.loads(done.record.read_text())["evaluations"]
    assert set(one["breakdown"]) == {"ap_by_class", "ap50_by_class", "ap_by_size"}
    assert set(one["breakdown"]["ap50_by_class"]) == {"green", "red"} and set(one["breakdown"]["ap_by_size"]) == {
        "small"
    }
    page = done.page.read_text()
    assert page.count("data:image/jpeg") == MOST * 2 and "of 1 found by the 1 surest box" in page and "green" in page


def test_every_built_protocol_has_a_fixture_and_every_other_a_reason():
    assert {entry.id for entry in ENTRIES if entry.score is not None} == {case[0] for case in layouts.CASES}
    assert all(entry.not_built for entry in ENTRIES if entry.score is None)
    assert len({entry.id for entry in ENTRIES}) == len(ENTRIES)


def test_two_models_stand_beside_each_other_with_their_paired_difference(models, tmp_path):
    root = layouts.labelled_csv(tmp_path / "data")
    done = evaluate("retrieval", model=models, data=root, out=tmp_path / "out", quiet=True)
    lines, names = to_lines([read_record(done.out)])
    assert names == ["seed-0", "seed-1"]
    (line,) = [one for one in lines if one.metric == "map"]
    gain = line.cells["seed-1"].value - line.cells["seed-0"].value
    assert line.gains["seed-1"].value == pytest.approx(gain)
    with open(done.out / "units.csv", newline="") as table:
        values = [
            float(row["value"]) for row in csv.DictReader(table) if row["metric"] == "map" and row["model"] == "seed-0"
        ]
    assert np.mean(values) == pytest.approx(line.cells["seed-0"].value)


def test_features_are_extracted_once_and_kept_by_model_and_transform(models, tmp_path, monkeypatch):
    root, cache = layouts.imagenet(tmp_path / "data"), tmp_path / "cache"
    first = evaluate("knn", model=models[0], data=root, out=tmp_path / "a", cache=cache, quiet=True)
    files = sorted(cache.iterdir())
    assert len(files) == 2
    monkeypatch.setattr("opendino.evaluation.cache.extract", lambda *_, **__: pytest.fail("extracted again"))
    again = evaluate("knn,linear", model=models[0], data=root, out=tmp_path / "b", cache=cache, quiet=True)
    assert again.results[: len(first.results)] == first.results
    monkeypatch.undo()
    evaluate("knn", model=models[0], data=root, out=tmp_path / "c", cache=cache, size=32, quiet=True)
    evaluate("knn", model=models[1], data=root, out=tmp_path / "d", cache=cache, quiet=True)
    assert len(list(cache.iterdir())) == 6
    files[0].write_bytes(b"damaged")
    assert (
        evaluate("knn", model=models[0], data=root, out=tmp_path / "e", cache=cache, quiet=True).results
        == first.results
    )


def test_one_protocol_without_its_data_leaves_the_others_and_says_so(models, tmp_path, capsys):
    root = layouts.imagenet(tmp_path / "data")
    arguments = ["evaluate", "knn,vos", "--model", str(models[0]), "--data", str(root), "--out", str(tmp_path / "out")]
    assert main([*arguments, "--json"]) == 3
    printed = capsys.readouterr()
    assert {one["protocol"]["id"] for one in json.loads(printed.out)["evaluations"]} == {"knn"}
    assert "vos" in printed.err and "expected: DAVIS" in printed.err


def test_results_of_other_inputs_are_not_written_over(models, tmp_path, monkeypatch):
    root = layouts.labelled_csv(tmp_path / "data")
    monkeypatch.chdir(tmp_path)
    done = evaluate("retrieval", model=models[0], data=root, quiet=True)
    assert done.out == Path("evaluation-retrieval")
    before = done.record.read_bytes()
    for change, words in (
        ({"model": models[1]}, "models .* instead of"),
        ({"limit": 11}, "limit none instead of 11"),
        ({"size": 32}, "size none instead of 32; also models"),
        ({"stride": 4}, "models .* instead of"),
        ({"seed": 1}, "seed 0 instead of 1"),
    ):
        with pytest.raises(UsageError, match=words + ".*choose another --out"):
            evaluate("retrieval", data=root, quiet=True, **{"model": models[0], **change})
    assert done.record.read_bytes() == before
    (done.out / "notes.txt").write_text("mine")
    again = evaluate("retrieval", model=str(models[0]), data=str(root), quiet=True)
    assert again.results == done.results and (done.out / "notes.txt").exists()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "results.json").write_text("{}")
    with pytest.raises(UsageError, match="no opendino command wrote there"):
        evaluate("retrieval", model=models[0], data=root, out=tmp_path / "mine", quiet=True)


def test_the_licence_can_be_accepted_and_a_model_be_named(monkeypatch, tmp_path):
    """The flags of every command that opens a model; what a name asks of the network is `weights`' own test."""
    asked = {}

    def refuse(what, **options):
        asked.update(what=what, **options)
        raise WeightsError(what, "not at hand")

    monkeypatch.setattr("opendino.cli.model.locate", refuse)
    argv = ["retrieval", "--model", "vitb16", "--data", str(layouts.labelled_csv(tmp_path / "data"))]
    with pytest.raises(WeightsError, match="vitb16"):
        run([*argv, "--accept-licence"])
    assert asked["what"] == "vitb16" and asked["accept_licence"] is True


def test_missing_data_is_one_line_with_the_layout(models, tmp_path):
    with pytest.raises(DataError, match=r"train.*expected: train/CLASS"):
        evaluate("knn", model=models[0], data=layouts.davis(tmp_path / "data"), out=tmp_path / "out", quiet=True)
    with pytest.raises(DataError, match="no such folder"):
        evaluate("knn", model=models[0], data=tmp_path / "nowhere", out=tmp_path / "out", quiet=True)


@pytest.mark.parametrize(
    ("protocol", "settings", "words"),
    [
        ("knnn", {}, "did you mean knn"),
        ("fasd", {}, "did you mean fast"),
        ("det", {}, "not built"),
        ("knn", {"q": "1"}, "no such setting"),
        ("knn", {"k": "x"}, "must be like"),
    ],
)
def test_wrong_names_are_refused_before_anything_is_read(protocol, settings, words, models, tmp_path):
    root = layouts.imagenet(tmp_path / "data")
    with pytest.raises(UsageError, match=words):
        evaluate(protocol, model=models[0], data=root, settings=settings, out=tmp_path / "out", quiet=True)


def test_layers_are_swept_where_a_protocol_reads_one(models, tmp_path):
    root = layouts.plain_videos(tmp_path / "data")
    done = evaluate(
        "vos", model=models[0], data=root, layers="all", settings={"rows": "6"}, out=tmp_path / "out", quiet=True
    )
    found = {result.metric: result.value for result in done.results}
    assert {"jf_layer_0", "jf_layer_1"} <= found.keys() and len(found) == 6
    by_metric = {line.metric: line for line in to_lines([read_record(done.out)])[0]}
    gain = by_metric["jf_layer_0"].of_layer["seed-0"]
    assert (
        gain.value == pytest.approx(found["jf_layer_0"] - found["jf_layer_1"]) and gain.low <= gain.value <= gain.high
    )
    assert not by_metric["jf_layer_1"].of_layer and "this layer - the last" in done.page.read_text()
    last = evaluate("vos", model=models[0], data=root, settings={"rows": "6"}, out=tmp_path / "last", quiet=True)
    assert found["jf_layer_1"] == pytest.approx(last.results[0].value)
    with pytest.raises(UsageError, match="layers 0 to 1"):
        evaluate("vos", model=models[0], data=root, layers="2", out=tmp_path / "no", quiet=True)


def test_protocols_of_a_suite_that_lack_their_data_share_a_line(tmp_path, capsys):
    root = layouts.imagenet(tmp_path / "data")
    assert main(["evaluate", "--suite", "full", "--data", str(root), "--dry-run"]) == 0
    printed = capsys.readouterr()
    planned = [line.split(":")[0] for line in printed.out.splitlines()]
    assert planned == ["knn", "linear", "linear-grid", "logreg", "few-shot", "health", "invariance"]
    together, retrieval = printed.err.splitlines()
    assert together.startswith("opendino: not scored: no data for finegrained, ood, ") and "geobench;" in together
    assert retrieval.startswith("opendino: not scored: retrieval: ")
    assert main(["evaluate", "--suite", "fast", "--dry-run"]) == 2
    assert "no data given; add --data DIR" in capsys.readouterr().err


def test_a_setting_can_be_meant_for_one_protocol(models, tmp_path):
    root = layouts.imagenet(tmp_path / "data")
    settings = {"k": "3", "retrieval.k": "1"}
    with pytest.raises(UsageError, match=r"retrieval\.k"):
        evaluate("knn,retrieval", model=models[0], data=root, settings=settings, out=tmp_path / "out", quiet=True)
    settings = {"k": "3", "knn.k": "2"}
    done = evaluate("knn", model=models[0], data=root, settings=settings, out=tmp_path / "out", quiet=True)
    assert {result.config["k"] for result in done.results} == {2}


def test_list_and_dry_run_need_no_model(tmp_path, capsys):
    assert main(["evaluate", "--list"]) == 0
    shown = capsys.readouterr().out
    assert all(entry.id in shown for entry in ENTRIES) and "not built" in shown
    assert main(["evaluate", "knn", "--data", str(layouts.imagenet(tmp_path)), "--dry-run"]) == 0
    assert "8 train and 4 val pictures" in capsys.readouterr().out


def test_a_pickle_that_wants_more_than_lists_is_refused(models, tmp_path):
    root = layouts.roxford(tmp_path / "data")
    (root / "gnd_roxford5k.pkl").write_bytes(b"cos\nsystem\n(S'touch hacked'\ntR.")
    with pytest.raises(DataError, match="only plain ones are opened"):
        evaluate("retrieval", model=models[0], data=root, out=tmp_path / "out", quiet=True)


def test_a_conv_backbone_runs_dense_protocols(tmp_path):
    model = save_model(tmp_path / "conv", 0, "conv_mini")
    root = layouts.voc_boxes(tmp_path / "data")
    assert evaluate("discovery", model=model, data=root, out=tmp_path / "out", quiet=True).results[0].n == 9


def test_files_of_a_table_may_be_named_from_the_folder_of_its_name_on(models, tmp_path):
    root = layouts.labelled_csv(tmp_path / "data")
    whole = evaluate("retrieval", model=models[0], data=root, out=tmp_path / "whole", quiet=True)
    text = (root / "places_labels.csv").read_text().replace("pictures/", "")
    (root / "places_labels.csv").write_text(text)
    (root / "pictures").rename(root / "places")
    beside = evaluate("retrieval", model=models[0], data=root, out=tmp_path / "beside", quiet=True)
    assert [one.value for one in beside.results] == [one.value for one in whole.results]
    assert beside.page.read_text().count("data:image/jpeg") == 2 * MOST


def test_boxes_beside_pictures_in_folders_of_parts_are_all_scored(models, tmp_path):
    root = layouts.plain_boxes(tmp_path / "data")
    found = []
    for data in (root, root / "train", root / "val"):
        found.append(evaluate("discovery", model=models[0], data=data, out=tmp_path / data.name / "out", quiet=True))
    # Nine of the ten published files hold a box; one of those nine has lost its file.
    assert [done.results[0].n for done in found] == [8, 5, 3]
    (root / "val" / "images" / "000003.jpg").unlink()
    with pytest.raises(DataError, match=r"000003\.xml: has no picture in images/"):
        evaluate("discovery", model=models[0], data=root, out=tmp_path / "out", quiet=True)


def test_folders_of_parts_are_not_scored_as_classes(models, tmp_path):
    root = layouts.imagenet(tmp_path / "data")
    with pytest.raises(DataError, match=r"holds train and val, parts of a data set and no classes; give one of them"):
        evaluate("retrieval", model=models[0], data=root, out=tmp_path / "out", quiet=True)


def test_models_of_one_name_keep_their_own_units_and_one_given_twice_is_refused(models, tmp_path):
    root = layouts.plain_boxes(tmp_path / "data")
    for number, model in enumerate(models):
        shutil.copytree(model, tmp_path / str(number) / "net")
    named = [tmp_path / "0" / "net", tmp_path / "1" / "net"]
    together = evaluate("discovery", model=named, data=root, out=tmp_path / "out", quiet=True)
    apart = [evaluate("discovery", model=one, data=root, out=tmp_path / one.parent / "o", quiet=True) for one in named]
    lines, columns = to_lines([read_record(together.out)])
    assert [name[:5] for name in columns] == ["net (", "net ("] and len(set(columns)) == 2
    for line in lines:
        first, second = (line.cells[name].value for name in columns)
        assert line.gains[columns[1]].value == pytest.approx(second - first)
        alone = [next(r.value for r in done.results if r.metric == line.metric) for done in apart]
        assert alone == pytest.approx([first, second])
    assert together.page.read_text().count("data:image/jpeg") == 3 * MOST
    with pytest.raises(UsageError, match="is given twice"):
        evaluate("discovery", model=[named[0], named[0]], data=root, out=tmp_path / "twice", quiet=True)


def test_one_model_at_two_settings_has_two_columns_and_is_not_compared(models, tmp_path):
    root = layouts.ade20k(tmp_path / "data")
    for name, k in (("few", "3"), ("many", "9")):
        settings = {"rows": "6", "k": k}
        evaluate("seg-knn", model=models[0], data=root, out=tmp_path / name, settings=settings, quiet=True)
    lines, columns = to_lines([read_record(tmp_path / "few"), read_record(tmp_path / "many")])
    assert columns == ["seed-0, few", "seed-0, many"] and all(len(line.cells) == 2 for line in lines)
    assert {line.note for line in lines} == {"not at the same settings (k 3 / 9)"}
    (tmp_path / "later").mkdir()
    (tmp_path / "many").rename(tmp_path / "later" / "few")
    _, columns = to_lines([read_record(tmp_path / "few"), read_record(tmp_path / "later" / "few")])
    assert columns == ["seed-0, few 1", "seed-0, few 2"]


@pytest.mark.parametrize(
    ("protocol", "settings", "options", "said"),
    [
        ("vos", {"layer": "7"}, {}, "--set layer=7: seed-0 has layers 0 to 1"),
        ("vos", {"layer": "-9"}, {}, "has layers 0 to 1"),
        ("vos", {"k": "0"}, {}, "--set vos k=0: must be 1 at least"),
        ("vos", {"temperature": "0"}, {}, "must be above 0"),
        ("discovery", {"taus": "0.3,nan"}, {}, "must be from -1 to 1"),
        ("seg-linear", {"steps": "-1"}, {}, "must be 1 at least"),
        ("vos", {}, {"limit": -5}, "limit -5: must be at least 1"),
        ("retrieval", {}, {"layers": "all"}, "none of retrieval reads a layer"),
    ],
)
def test_settings_out_of_range_are_refused_before_scoring(protocol, settings, options, said, models, tmp_path):
    build = {"vos": layouts.plain_videos, "discovery": layouts.coco, "seg-linear": layouts.ade20k}
    root = build.get(protocol, layouts.labelled_csv)(tmp_path / "data")
    with pytest.raises(UsageError, match=re.escape(said)):
        evaluate(protocol, model=models[0], data=root, settings=settings, out=tmp_path / "out", quiet=True, **options)
    assert not (tmp_path / "out").exists()


def test_what_cannot_be_scored_is_left_out_by_name_everywhere(models, tmp_path):
    root = layouts.plain_masks(tmp_path / "data")
    mask = sorted((root / "val" / "masks").iterdir())[0]
    with Image.open(mask) as picture:
        picture.resize((8, 8)).save(mask)
    done = evaluate(
        "seg-knn", model=models[0], data=root, settings={"rows": "6", "ignore": "11"}, out=tmp_path / "out", quiet=True
    )
    (words,) = done.warnings
    assert words.startswith("seg-knn: 1 left out: ") and "picture and mask differ in size (48x48 and 8x8)" in words
    assert words in done.table.read_text() and "1 left out" in done.page.read_text()


def test_ctrl_c_keeps_the_protocols_that_were_scored(models, tmp_path, monkeypatch):
    root = layouts.imagenet(tmp_path / "data")
    entry = replace(PROTOCOLS["linear"], score=lambda *_: (_ for _ in ()).throw(KeyboardInterrupt()))
    monkeypatch.setattr("opendino.cli.evaluate.find", lambda _: [PROTOCOLS["knn"], entry])
    with pytest.raises(KeyboardInterrupt):
        evaluate("knn,linear", model=models[0], data=root, out=tmp_path / "out", quiet=True)
    assert {result.protocol for result in read_record(tmp_path / "out").results} == {"knn"}
    assert "stopped" in json.loads((tmp_path / "out" / "results.json").read_text())["failures"]


def test_a_folder_of_data_sets_has_no_classes_and_several_tables_are_not_guessed(models, tmp_path):
    for name in ("birds", "cars"):
        layouts.imagenet(tmp_path / "sets" / name)
    for protocol in ("knn", "retrieval"):
        with pytest.raises(DataError, match=r"holds data sets \(birds, cars\) and no classes; give one of them"):
            evaluate(protocol, model=models[0], data=tmp_path / "sets", out=tmp_path / "out", quiet=True)
    root = layouts.labelled_csv(tmp_path / "tables")
    shutil.copy(root / "places_labels.csv", root / "others_labels.csv")
    with pytest.raises(DataError, match="holds several tables"):
        evaluate("retrieval", model=models[0], data=root, out=tmp_path / "out", quiet=True)


def test_few_shot_says_what_no_class_has(models, tmp_path):
    root = layouts.imagenet(tmp_path / "data")
    settings = {"shots": "1,100", "tries": "1"}
    done = evaluate("few-shot", model=models[0], data=root, settings=settings, out=tmp_path / "out", quiet=True)
    assert [one.metric for one in done.results] == ["top1_1_shot"] and "not scored with 100" in done.warnings[0]
