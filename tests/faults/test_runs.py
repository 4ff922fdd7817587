"""Faults of a whole run: kills while it resumes, logs on a full device, clocks, pictures that vanish, folders that may
not be written, slow storage, settings that changed (F5, F20, F23, F34, F52, F91).
"""

import copy
import dataclasses
import logging
import multiprocessing
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
import torch

from opendino.data.folder import FolderSource
from opendino.errors import DataError, OpendinoError, StoppedError
from opendino.files import check_directory
from opendino.monitor import metrics
from opendino.monitor.metrics import read_rows
from opendino.train.checkpoint import list_checkpoints
from opendino.train.config import FILLED_FIELDS, FREE_FIELDS, RunConfig, differences, flatten, to_dict
from opendino.train.loop import Watcher
from opendino.train.run import open_run
from tests.train.runs import draw_pictures, run_to, tiny_config


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    return draw_pictures(tmp_path_factory.mktemp("pictures"), count=10)


@pytest.fixture(scope="module")
def unbroken(pictures, tmp_path_factory):
    return weights(run_to(tiny_config(pictures), tmp_path_factory.mktemp("unbroken")))


def weights(method):
    return {name: torch.nan_to_num(value.clone()) for name, value in method.state_dict().items()}


def assert_equal(a, b):
    assert a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def in_a_child(work):
    """The exit code of `work` in a process of its own, forked: a fresh `import torch` takes seconds."""
    process = multiprocessing.get_context("fork").Process(target=work)
    process.start()
    process.join()
    return process.exitcode


def test_f5_killed_three_times_while_it_resumes(pictures, unbroken, tmp_path):
    config = tiny_config(pictures)
    for fault in ("loop.after_step:7=SIGKILL", *["checkpoint.before_load=SIGKILL"] * 2, "loop.after_step=SIGKILL"):

        def child(fault=fault):
            os.environ["OPENDINO_FAULT"] = fault
            run_to(config, tmp_path)

        assert in_a_child(child) == -signal.SIGKILL, fault
    assert_equal(weights(run_to(config, tmp_path)), unbroken)


@pytest.mark.parametrize("passage", [1, 2])
def test_f2_killed_while_old_checkpoints_are_removed(pictures, tmp_path, passage):
    config = tiny_config(pictures, steps=12)
    config = dataclasses.replace(config, save=dataclasses.replace(config.save, steps=2))

    def child():
        os.environ["OPENDINO_FAULT"] = f"prune.after_rename:{passage}=SIGKILL"
        run_to(config, tmp_path)

    assert in_a_child(child) == -signal.SIGKILL
    checkpoints = list_checkpoints(tmp_path / "checkpoints")
    assert checkpoints[-1][0] == 4 + 2 * passage and all(check_directory(path) is None for _, path in checkpoints)
    run_to(config, tmp_path)
    assert [step for step, _ in list_checkpoints(tmp_path / "checkpoints")] == [10, 12]
    assert not list((tmp_path / "checkpoints").glob("*.tmp-*"))


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_f20_logs_on_a_full_device_end_nothing_and_are_said_once_each(pictures, unbroken, tmp_path, caplog):
    metrics._unwritable.clear()
    (tmp_path / "run.lock").touch()  # a run was here before
    for name in ("metrics.jsonl", "incidents.jsonl"):
        (tmp_path / name).symlink_to("/dev/full")
    with caplog.at_level(logging.WARNING, "opendino"):
        assert_equal(weights(run_to(tiny_config(pictures), tmp_path)), unbroken)
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == 1 and "metrics.jsonl: cannot be written (No space left on device)" in said[0]


@pytest.mark.parametrize("jump", [86_400.0, -86_400.0])
def test_f34_a_clock_that_jumps_changes_nothing(pictures, unbroken, tmp_path, monkeypatch, jump):
    now = time.time

    def jumping(step, method):
        if step == 3:
            monkeypatch.setattr(time, "time", lambda: now() + jump)

    config = tiny_config(pictures)
    config = dataclasses.replace(config, save=dataclasses.replace(config.save, minutes=30.0))
    assert_equal(weights(run_to(config, tmp_path, watchers=[Watcher(1, jumping)])), unbroken)
    assert [step for step, _ in list_checkpoints(tmp_path / "checkpoints")] == [5, 10]
    assert all(0 <= row["time_s"] < 3600 for row in read_rows(tmp_path / "metrics.jsonl"))


def test_f52_a_picture_that_vanishes_is_listed_and_the_run_ends(tmp_path):
    pictures = draw_pictures(tmp_path / "pictures", count=10)

    def lose(step, method):
        if step == 2:
            (pictures / "0003.png").unlink()

    run_to(tiny_config(pictures), tmp_path / "run", watchers=[Watcher(1, lose)])
    rows = [row for row in read_rows(tmp_path / "run" / "incidents.jsonl") if row["kind"] == "skipped picture"]
    assert [row["ids"] for row in rows] == [["0003.png"]] and "vanished" in rows[0]["words"].lower()


def test_f52_a_folder_that_vanishes_is_one_line_and_the_checkpoint_stays(tmp_path):
    pictures = draw_pictures(tmp_path / "pictures", count=10)

    def lose(step, method):
        if step == 7:
            shutil.rmtree(pictures)

    with pytest.raises(DataError, match="cannot be read"):
        run_to(tiny_config(pictures), tmp_path / "run", watchers=[Watcher(1, lose)])
    assert [step for step, _ in list_checkpoints(tmp_path / "run" / "checkpoints")] == [5]


def test_slow_storage_changes_nothing_but_time(pictures, unbroken, tmp_path, monkeypatch):
    read, rng = FolderSource.read, random.Random(0)

    def slow(self, index):
        time.sleep(rng.uniform(0, 0.02))
        return read(self, index)

    monkeypatch.setattr(FolderSource, "read", slow)
    assert_equal(weights(run_to(tiny_config(pictures), tmp_path)), unbroken)


def test_a_folder_that_may_not_be_written_is_one_line():
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "locked"
        folder.mkdir()
        folder.chmod(0o555)
        Path(place).chmod(0o755)

        def child():
            if os.getuid() == 0:  # permissions do not bind root
                os.setuid(65534)
            with pytest.raises(OpendinoError, match=r"run: cannot be made \(Permission denied\); choose another --out"):
                open_run(folder / "run").__enter__()

        assert in_a_child(child) == 0


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(20))
def test_f91_ctrl_c_at_any_moment_of_the_command_leaves_no_trace(pictures, tmp_path, seed):
    code = "import sys; from opendino.cli import main; sys.exit(main(sys.argv[1:]))"
    command = [sys.executable, "-c", code, "pretrain", str(pictures), "--steps", "40", "--out", str(tmp_path / "run")]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    time.sleep(random.Random(seed).uniform(0.5, 12))
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=100)
    assert process.returncode in (75, 0) and "Traceback" not in said, f"seed {seed}: {said}"
    assert subprocess.run(command, capture_output=True).returncode == 0


OTHER_VALUES = {"recipe": "another", "minutes": 7.0, "precision": "bf16", "model.name": "vits16"}


def changed(config, name):
    """The config with another value in one field, by dotted name, past what checks would refuse."""
    first, _, rest = name.partition(".")
    value = getattr(config, first)
    other = changed(value, rest) if rest else OTHER_VALUES.get(name)
    if other is None:
        if isinstance(value, bool) or value is None:
            other = not value
        elif isinstance(value, str):
            other = {"cosine": "constant"}.get(value, value + "x")
        elif isinstance(value, tuple):
            other = tuple(item * 0.9 for item in value)
        else:
            other = value + 1 if isinstance(value, int) else value * 0.9 or 0.5
    object.__setattr__(fresh := copy.copy(config), first, other)
    return fresh


FIELDS = [name for name, _ in flatten(to_dict(RunConfig())) if name not in ("reasons", *FILLED_FIELDS)]


@pytest.mark.parametrize("name", FIELDS)
def test_f23_each_field_is_free_or_allowed_or_identity(name):
    found = differences(RunConfig(), changed(RunConfig(), name))
    if name.startswith(FREE_FIELDS):
        assert not found.allowed and not found.identity
    else:
        (words,) = found.allowed + found.identity
        assert words.startswith(f"{name}: ") and " -> " in words
        exact = ("steps", "minutes", "precision", "compile", "method.micro_batch")
        allowed = name in exact or name.startswith(("optim.", "method.momentum"))
        assert bool(found.allowed) == (allowed and name != "optim.muon_lr")


def test_f6_signals_at_any_step_save_that_step(pictures, unbroken, tmp_path):
    for seed, number in enumerate((signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)):
        at = random.Random(seed).randrange(1, 9)
        out = tmp_path / number.name

        def interrupt(step, method, at=at, number=number):
            if step == at:
                signal.raise_signal(number)

        with pytest.raises(StoppedError, match=f"stopped at step {at} of 10 by {number.name}, saved"):
            run_to(tiny_config(pictures), out, watchers=[Watcher(1, interrupt)])
        assert list_checkpoints(out / "checkpoints")[-1][0] == at
        assert_equal(weights(run_to(tiny_config(pictures), out)), unbroken)
