"""The append-only logs: whole lines, cut back exactly, readable by anything that reads JSON."""

import json

import torch

from opendino.monitor.incidents import IncidentLog
from opendino.monitor.metrics import MetricsLog, read_rows


def test_rows_come_back_with_plain_numbers(tmp_path):
    log = MetricsLog(tmp_path / "metrics.jsonl")
    log.append("step", 10, loss=torch.tensor(1.5), losses={"dino": float("nan"), "koleo": float("inf")})
    (row,) = log.rows()
    assert row == {"kind": "step", "step": 10, "loss": 1.5, "losses": {"dino": None, "koleo": None}}


def test_truncate_forgets_exactly_what_came_later(tmp_path):
    log = MetricsLog(tmp_path / "metrics.jsonl")
    assert log.offset == 0
    log.append("step", 1, loss=1.0)
    offset = log.offset
    log.append("step", 2, loss=2.0)
    again = MetricsLog(log.path)
    again.truncate(offset)
    again.append("step", 2, loss=3.0)
    assert [row["loss"] for row in again.rows()] == [1.0, 3.0]


def test_truncate_never_lengthens(tmp_path):
    log = MetricsLog(tmp_path / "metrics.jsonl")
    log.truncate(100)
    log.append("step", 1, loss=1.0)
    before = log.path.read_bytes()
    log.truncate(10_000)
    assert log.path.read_bytes() == before


def test_a_cut_last_line_is_skipped_by_readers_and_removed_by_the_writer(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'{"kind":"step","step":1}\n{"kind":"st')
    assert len(read_rows(path)) == 1
    MetricsLog(path).append("step", 2)
    assert [json.loads(line)["step"] for line in path.read_text().splitlines()] == [1, 2]


def test_missing_file_is_an_empty_log(tmp_path):
    assert read_rows(tmp_path / "none.jsonl") == []


def test_incidents_keep_odd_names(tmp_path):
    log = IncidentLog(tmp_path / "incidents.jsonl")
    log.append("skipped picture", 3, "cut", ids=["a b\n.jpg", "日本.png", "\udcff.jpg"])
    (row,) = log.rows()
    assert (row["kind"], row["step"], row["words"]) == ("skipped picture", 3, "cut")
    assert row["ids"][:2] == ["a b\n.jpg", "日本.png"] and len(row["ids"]) == 3
