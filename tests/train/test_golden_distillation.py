"""A refactor proves an equal curve: 100 steps of tiny students against committed losses, at every tenth step.

To renew after a change that is meant to change training: `python -m tests.train.test_golden_distillation`; say why.
"""

import dataclasses
import json
import tempfile
from pathlib import Path

import pytest
import torch

from tests.train.runs import draw_pictures
from tests.train.students import distil, student_config

GOLDEN = Path(__file__).parents[1] / "assets" / "golden_distillation.json"
KINDS = ["vit", "convnext"]


def hundred_steps(folder, objective):
    """Rows of every tenth step by student, of a job of both."""
    pictures = draw_pictures(folder / "pictures", count=8, px=64)
    config = student_config(pictures, steps=100, objective=objective)
    save = dataclasses.replace(config.save, steps=0)
    config = dataclasses.replace(config, save=save, data=dataclasses.replace(config.data, batch_size=2, cache_mb=10))
    results = {kind: [] for kind in KINDS}
    keep = {kind: lambda step, result, speed, kind=kind: results[kind].append(result) for kind in KINDS}
    distil(config, KINDS, folder / objective, on_step=keep)
    return {
        kind: [{"loss": r.loss, "grad_norm": r.grad_norm, **r.values} for r in rows[9::10]]
        for kind, rows in results.items()
    }


@pytest.mark.parametrize("objective", ["heads", "match"])
def test_hundred_steps_equal_the_committed_ones(tmp_path, objective):
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        found = hundred_steps(tmp_path, objective)
    finally:
        torch.set_num_threads(threads)
    golden = json.loads(GOLDEN.read_text())[objective]
    assert found.keys() == golden.keys() == set(KINDS)
    for kind in KINDS:
        assert len(found[kind]) == len(golden[kind]) == 10
        for row, expected in zip(found[kind], golden[kind], strict=True):
            assert row == pytest.approx(expected, rel=2e-3, abs=1e-5), kind
    first, last = (golden["vit"][place]["loss"] for place in (0, -1))
    assert last < first  # the curve is one of learning


if __name__ == "__main__":
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        rows = {objective: hundred_steps(Path(folder), objective) for objective in ("heads", "match")}
        GOLDEN.write_text(json.dumps(rows, indent=1) + "\n")
