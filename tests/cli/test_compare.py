"""`opendino compare`: columns, paired differences, two models of one name, other pictures, files of another kind."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from opendino.cli import main
from opendino.cli.compare import compare
from opendino.errors import DataError, UsageError
from opendino.evaluation.metrics.interval import Estimate
from opendino.evaluation.protocol import Outcome, Score, mean_score
from opendino.evaluation.record import write_record
from opendino.evaluation.results import Result
from opendino.evaluation.surroundings import Scored
from opendino.pages.results_page import Cell, cell_words, text_table


def write(folder, model, digest, values, split="same", dataset="pets"):
    score: Score = mean_score("top1", values, [f"picture {index}" for index in range(len(values))])
    low_high: Estimate = score.estimate
    config = {"model": model, "unit": "image", "high_is_good": True, "limit": None}
    bounds = (low_high.low, low_high.high)
    result = Result("linear", "ours", dataset, split, len(values), "top1", low_high.value, bounds, digest, config)
    write_record(folder, [Scored([result], Outcome([score]))], {}, {"command": "test"})
    return folder


def test_models_become_columns_with_their_paired_difference(tmp_path):
    before = write(tmp_path / "a", "start", "aa", [0, 0, 100, 100] * 20)
    after = write(tmp_path / "b", "trained", "bb", [0, 100, 100, 100] * 20)
    done = compare([before, after], out=tmp_path / "out")
    assert done.models == ["start", "trained"]
    (line,) = done.lines
    assert (line.cells["start"].value, line.cells["trained"].value) == (50, 75)
    gain = line.gains["trained"]
    assert gain.value == 25 and 0 < gain.low < 25 < gain.high < 50
    assert f"| trained - start: +25.0 [{gain.low:.1f}, {gain.high:.1f}] |" in done.table.read_text()
    assert "| linear | pets | top1 |" in done.table.read_text() and "75.0" in done.page.read_text()


def test_models_of_one_name_are_told_apart_and_other_pictures_are_said(tmp_path):
    before = write(tmp_path / "a", "model", "aaaaaaaa", [0, 100])
    after = write(tmp_path / "b", "model", "bbbbbbbb", [100, 100], split="other")
    done = compare([before, after], out=tmp_path / "out")
    assert done.models == ["model (aaaaaa)", "model (bbbbbb)"]
    assert "do not compare" in done.lines[0].note


def test_below_the_table_stand_the_set_of_every_difference_and_each_remark_once(tmp_path):
    before = write(tmp_path / "a", "start", "aa", [0, 0, 100, 100] * 20)
    after = write(tmp_path / "b", "trained", "bb", [0, 100, 100, 100] * 20)
    lines = compare([before, after], out=tmp_path / "out").lines
    limited = [replace(lines[0], limit=9), replace(lines[0], dataset="cars", limit=9, note="careful")]
    said = text_table(limited, ["start", "trained"]).splitlines()
    assert [line.split() for line in said[4:6]] == [
        f"linear on {name}, top1: trained - start {said[4].split('start')[1].strip()}".split()
        for name in ("pets", "cars")
    ]
    assert said[6:] == [
        "limited to 9 a part: compares with nothing published",
        "careful (linear on cars)",
    ]


@pytest.mark.parametrize(
    ("numbers", "words"),
    [
        ((71.28, 68.0, 74.5), "71.3 [68.0, 74.5]"),
        ((9.871, 3.0, 12.25), "9.9 [3.0, 12.2]"),
        ((0.0123, 0.001, 0.0456), "0.0123 [0.0010, 0.0456]"),
        ((0, 0, 0), "0.0 [0.0, 0.0]"),
        ((5.123, None, None), "5.12"),
    ],
)
def test_a_number_and_its_interval_have_as_many_digits(numbers, words):
    assert cell_words(Cell(*numbers)) == words


def test_a_comparison_of_other_results_stays(tmp_path, monkeypatch):
    before = write(tmp_path / "a", "start", "aa", [0, 100])
    after = write(tmp_path / "b", "trained", "bb", [0, 100])
    monkeypatch.chdir(tmp_path)
    assert compare([before, after]).page == compare(["a", "b"]).page == Path("comparison-a-b/comparison.html")
    assert compare([after, before]).page.parent == Path("comparison-b-a")
    with pytest.raises(UsageError, match=r"holds the output of other inputs .*choose another --out"):
        compare([before], out="comparison-b-a")
    with pytest.raises(UsageError, match="no opendino command wrote there"):
        compare([before, after], out=before)


def test_the_published_number_stands_beside(tmp_path):
    done = compare([write(tmp_path / "a", "mine", "aa", [0, 100], dataset="imagenet")], out=tmp_path / "out")
    assert done.lines[0].published == "88.4 (7B/16; DINOv2 g 87.3; table 7)"


def test_command_line_and_refusals(tmp_path, capsys):
    folder = write(tmp_path / "a", "mine|<script>", "aa", [0, 100])
    assert main(["compare", str(folder), "--out", str(tmp_path / "out"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["protocol"] == "linear"
    assert "mine|<script>" not in (tmp_path / "out" / "comparison.html").read_text()
    with pytest.raises(UsageError):
        compare([])
    (tmp_path / "results.json").write_text("[]")
    with pytest.raises(DataError, match="no results file"):
        compare([tmp_path])
    with pytest.raises(DataError, match=r"nowhere: holds no results\.json; give folders"):
        compare([tmp_path / "nowhere"])
