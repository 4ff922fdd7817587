"""Protocols on a backbone that trains: rows and lines, what goes wrong said before or without ending the run."""

import os
import signal

import pytest

from opendino.cli.pretrain import pretrain
from opendino.cli.protocol_watch import plan_protocols
from opendino.errors import DataError, StoppedError, UsageError
from opendino.evaluation import classification
from opendino.monitor.metrics import read_rows
from tests.evaluation import layouts
from tests.train.runs import draw_pictures

SMALL = [
    *("--optim.warmup", "1", "--data.batch-size", "4", "--data.crops.global-px", "32", "--data.crops.local-px", "16"),
    *("--watch.picture-every", "1.0", "--watch.health-every", "1.0", "--watch.knn-every", "1.0", "--read-px", "32"),
]


def train_with(tmp_path, protocols, **options):
    pictures = draw_pictures(tmp_path / "pictures", count=8)
    fields = [*SMALL, "--watch.protocols", protocols, "--watch.protocols-every", "2"]
    return pretrain(pictures, steps=4, out=tmp_path / "run", fields=fields, quiet=True, **options)


def test_the_recipe_names_protocols_and_they_run_every_n_steps(tmp_path):
    classes, places = layouts.imagenet(tmp_path / "classes"), layouts.labelled_csv(tmp_path / "places")
    train_with(tmp_path, f"knn={classes}, retrieval={places}")
    rows = [row for row in read_rows(tmp_path / "run" / "metrics.jsonl") if row["kind"] == "protocol"]
    assert {row["protocol"] for row in rows} == {"knn", "retrieval"}
    assert sorted({row["step"] for row in rows}) == [0, 2, 4]
    for row in rows:
        assert row["low"] <= row["value"] <= row["high"] and row["n"] > 0 and row["dataset"]


@pytest.mark.parametrize(
    ("protocols", "error", "words"),
    [
        ("vos", UsageError, "must be PROTOCOL=DATA"),
        ("vso=x", UsageError, "did you mean vos"),
        ("vos=nowhere", DataError, "no such folder"),
    ],
)
def test_what_is_wrong_is_said_before_anything_is_written(tmp_path, protocols, error, words):
    with pytest.raises(error, match=words):
        train_with(tmp_path, protocols)
    assert not (tmp_path / "run").exists()


def test_no_protocols_are_none():
    assert plan_protocols("", 10, 0) == ()


def test_a_protocol_that_fails_does_not_end_the_run(tmp_path):
    videos = layouts.plain_videos(tmp_path / "videos")
    for mask in sorted(videos.glob("*/masks/*"))[1:2]:
        mask.write_bytes(b"no picture")
    done = train_with(tmp_path, f"vos={videos}")
    assert done.steps == 4
    rows = read_rows(tmp_path / "run" / "incidents.jsonl")
    assert [row["step"] for row in rows if row["kind"] == "protocol not scored"] == [0, 2, 4]


def test_a_stop_while_heads_are_fitted_saves_the_run(tmp_path, monkeypatch):
    classes = layouts.imagenet(tmp_path / "classes")
    fitted = classification.fit_heads
    calls = []

    def stop_in_the_second(*arguments, **options):
        calls.append(0)
        if len(calls) == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        return fitted(*arguments, **options)

    monkeypatch.setattr(classification, "fit_heads", stop_in_the_second)
    with pytest.raises(StoppedError, match="step 2 of 4"):
        train_with(tmp_path, f"linear-grid={classes}")
    monkeypatch.undo()
    assert train_with(tmp_path, f"linear-grid={classes}").steps == 4
    rows = [row for row in read_rows(tmp_path / "run" / "metrics.jsonl") if row["kind"] == "step"]
    assert rows[-1]["step"] == 4
