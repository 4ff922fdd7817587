"""A refactor proves an equal curve: 20 steps of a tiny run against committed losses and gradient norms.

To renew after a change that is meant to change training: `python -m tests.train.test_golden`; say why in the commit.
"""

import json
import tempfile
from pathlib import Path

import pytest
import torch

from tests.train.runs import draw_pictures, run_to, tiny_config

GOLDEN = Path(__file__).parents[1] / "assets" / "golden_run.json"


def twenty_steps(folder):
    results = []
    config = tiny_config(draw_pictures(folder / "pictures", count=10), steps=20)
    run_to(config, folder / "run", on_step=lambda step, result, speed: results.append(result))
    return [{"loss": r.loss, "grad_norm": r.grad_norm, **r.values} for r in results]


def test_twenty_steps_equal_the_committed_ones(tmp_path):
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        rows = twenty_steps(tmp_path)
    finally:
        torch.set_num_threads(threads)
    golden = json.loads(GOLDEN.read_text())
    assert len(rows) == len(golden) == 20
    for step, (row, expected) in enumerate(zip(rows, golden, strict=True)):
        assert row == pytest.approx(expected, rel=1e-4, abs=1e-6), f"step {step}"


if __name__ == "__main__":
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        GOLDEN.write_text(json.dumps(twenty_steps(Path(folder)), indent=1) + "\n")
