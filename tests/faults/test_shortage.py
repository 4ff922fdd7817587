"""What the machine has too little of is one line with what to lower: F33 (open files), F92 (memory), F10 (going on)."""

import errno
import os
import re
import subprocess
import sys

import pytest
import torch

from opendino.cli import main
from opendino.cli.shortage import FIXES, shortage
from opendino.train.config import RunConfig, flatten, to_dict
from tests.train.runs import draw_pictures

GPU = (
    "CUDA out of memory. Tried to allocate 20.00 GiB. GPU 0 has a total capacity of 79.1 GiB of which 3.52 GiB is free."
)
HOST = "[enforce fail at alloc_cpu.cpp:124] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to allocate 42949672960 bytes. Error code 12"  # noqa: E501


@pytest.mark.parametrize(
    ("error", "verb", "said"),
    [
        (
            torch.OutOfMemoryError(GPU),
            "pretrain",
            "out of GPU memory: 20.00 GiB more were needed, 3.52 GiB are free; the",
        ),
        (RuntimeError(HOST), "evaluate", "out of memory: 40.0 GiB more were needed; lower --size"),
        (
            RuntimeError(HOST.replace("42949672960", "4000000")),
            "embed",
            "out of memory: 3.8 MiB more were needed; take --tile",
        ),
        (MemoryError(), "track", "out of memory; close other programs"),
        (OSError(errno.EMFILE, "Too many open files"), "pretrain", "too many open files; raise the limit (ulimit -n"),
        (RuntimeError("Too many open files. Communication with the workers"), "adapt", "too many open files; raise"),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), "pretrain", None),
        (OSError(errno.ENOSPC, "No space left"), "pretrain", None),
    ],
)
def test_shortages_are_told_from_bugs(error, verb, said):
    words = shortage(error, verb)
    assert words is None if said is None else words.startswith(said)


@pytest.mark.parametrize("verb", list(FIXES))
def test_what_is_advised_can_be_typed(verb, capsys):
    with pytest.raises(SystemExit):
        main([verb, "--help"])
    fields = {f"--{name.replace('_', '-')}" for name, _ in flatten(to_dict(RunConfig()))}
    trains = verb in ("pretrain", "distill", "adapt")
    known = set(re.findall(r"--[a-z][\w.-]*", capsys.readouterr().out)) | (fields if trains else set())
    assert set(re.findall(r"--[a-z][\w.-]*", FIXES[verb])) <= known


def test_f92_an_allocator_that_fails_in_a_step_is_one_line_and_the_same_command_goes_on_in_parts(
    tmp_path, monkeypatch, capsys
):
    pictures = draw_pictures(tmp_path / "pictures")
    command = ["pretrain", str(pictures), "--model", "vit_tiny", "--steps", "4", "--out", str(tmp_path / "run")]
    command += ["--save-steps", "1", "--data.batch-size", "8", "--method.koleo-group", "2"]
    command += ["--watch.picture-every", "1.0", "--watch.knn-every", "1.0"]
    real, calls = torch.Tensor.backward, []

    def backward(*arguments, **named):
        calls.append(0)
        if len(calls) == 3:
            raise torch.OutOfMemoryError(GPU)
        return real(*arguments, **named)

    monkeypatch.setattr(torch.Tensor, "backward", backward)
    assert main(command) == 1
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert said.startswith("opendino: out of GPU memory: 20.00 GiB") and "--method.micro-batch N --allow" in said
    monkeypatch.undo()
    assert main([*command, "--method.micro-batch", "4"]) == 2
    assert "method.micro_batch: 0 -> 4" in capsys.readouterr().err
    assert main([*command, "--method.micro-batch", "4", "--allow", "--checkpoint"]) == 0
    assert "from step 2: goes on with method.micro_batch: 0 -> 4" in capsys.readouterr().err


def test_f33_too_few_open_files_is_one_line(tmp_path):
    resource = pytest.importorskip("resource")
    pictures = draw_pictures(tmp_path / "pictures")
    command = [sys.executable, "-m", "opendino", "pretrain", str(pictures), "--steps", "2", "--model", "vit_tiny"]
    done = subprocess.run(
        [*command, "--out", str(tmp_path / "run"), "--data.workers", "4"],
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (36, 36)),
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 1 and "opendino: too many open files; raise the limit (ulimit -n 4096)" in done.stderr
