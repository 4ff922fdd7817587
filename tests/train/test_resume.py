"""Exact resume: a run cut anywhere and gone on with equals an unbroken one, bit for bit."""

import dataclasses
import json
import multiprocessing
import os
import random
import signal
import time

import pytest
import torch

from opendino import files
from opendino.errors import DataError, StoppedError, UsageError
from opendino.files import check_directory
from opendino.train.checkpoint import list_checkpoints
from opendino.train.config import ModelConfig
from opendino.train.loop import ENDED, Watcher
from opendino.train.run import open_run
from tests.train.runs import draw_pictures, run_to, tiny_config


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    return draw_pictures(tmp_path_factory.mktemp("pictures"), count=10)


@pytest.fixture(scope="module")
def unbroken(pictures, tmp_path_factory):
    out = tmp_path_factory.mktemp("unbroken")
    method = run_to(tiny_config(pictures), out)
    return state(method), rows(out)


def state(method):
    return {name: value.clone() for name, value in method.state_dict().items()}


def rows(out):
    kept = []
    for line in (out / "metrics.jsonl").read_text().splitlines():
        row = json.loads(line)
        kept.append({k: v for k, v in row.items() if k not in ("time_s", "images_per_s")})
    return kept


def assert_equal(a, b):
    assert a.keys() == b.keys()
    for name in a:
        assert torch.equal(torch.nan_to_num(a[name]), torch.nan_to_num(b[name])), name


def start_process(config, out, fault=""):
    """A training process of its own, to be killed for real; forked, since a fresh `import torch` takes seconds."""

    def child():
        os.environ["OPENDINO_FAULT"] = fault
        run_to(config, out)

    process = multiprocessing.get_context("fork").Process(target=child)
    process.start()
    return process


@pytest.mark.parametrize("workers", [0, 1, 4])
def test_kill_9_then_resume_equals_an_unbroken_run(pictures, unbroken, tmp_path, workers):
    config = tiny_config(pictures)
    config = dataclasses.replace(config, data=dataclasses.replace(config.data, workers=workers))
    process = start_process(config, tmp_path, fault="loop.after_step:8=SIGKILL")
    process.join()
    assert process.exitcode == -9
    assert [step for step, _ in list_checkpoints(tmp_path / "checkpoints")] == [5]
    method = run_to(config, tmp_path)
    assert_equal(state(method), unbroken[0])
    assert rows(tmp_path) == unbroken[1]


@pytest.mark.parametrize(
    "point",
    [
        "checkpoint.before_tensors:2",
        "checkpoint.after_tensors:2",
        "commit.before_fsync:2",
        "commit.before_manifest:2",
        "file.write:2",
        "commit.before_rename:2",
        "commit.after_rename:2",
    ],
)
def test_killed_inside_a_save_loses_at_most_one_interval(pictures, unbroken, tmp_path, point):
    process = start_process(tiny_config(pictures), tmp_path, fault=f"{point}=SIGKILL")
    process.join()
    assert process.exitcode == -9
    for _, path in list_checkpoints(tmp_path / "checkpoints"):
        assert check_directory(path) is None
    assert_equal(state(run_to(tiny_config(pictures), tmp_path)), unbroken[0])
    assert not list((tmp_path / "checkpoints").glob("*.tmp-*"))


def test_a_signal_saves_and_the_same_command_goes_on(pictures, unbroken, tmp_path):
    def interrupt(step, method):
        if step == 3:
            signal.raise_signal(signal.SIGTERM)

    with pytest.raises(StoppedError, match="step 3 of 10"):
        run_to(tiny_config(pictures), tmp_path, watchers=[Watcher(1, interrupt)])
    assert_equal(state(run_to(tiny_config(pictures), tmp_path)), unbroken[0])


def test_a_convolution_that_lies_channels_last_resumes_bit_for_bit(pictures, tmp_path):
    config = tiny_config(pictures)
    model = ModelConfig(name="conv_mini")
    config = dataclasses.replace(config, model=model, method=dataclasses.replace(config.method, ibot_weight=0.0))
    whole = state(run_to(config, tmp_path / "whole"))
    stop = Watcher(1, lambda step, method: signal.raise_signal(signal.SIGTERM) if step == 4 else None)
    with pytest.raises(StoppedError):
        run_to(config, tmp_path / "parts", watchers=[stop])
    assert_equal(state(run_to(config, tmp_path / "parts")), whole)


def test_watchers_change_nothing(pictures, unbroken, tmp_path):
    def meddle(step, method):
        torch.rand(3)
        method.probe(torch.randn(4, 3, 32, 32))

    assert_equal(state(run_to(tiny_config(pictures), tmp_path, watchers=[Watcher(2, meddle)])), unbroken[0])


def test_a_full_disk_does_not_end_the_run(pictures, unbroken, tmp_path, monkeypatch):
    monkeypatch.setenv("OPENDINO_FAULT", "commit.before_manifest:1=ENOSPC")
    files._passages.clear()
    assert_equal(state(run_to(tiny_config(pictures), tmp_path)), unbroken[0])
    assert [step for step, _ in list_checkpoints(tmp_path / "checkpoints")] == [10]
    assert "save failed" in (tmp_path / "incidents.jsonl").read_text()


def test_a_damaged_checkpoint_is_set_aside_and_the_one_before_loads(pictures, unbroken, tmp_path):
    run_to(dataclasses.replace(tiny_config(pictures)), tmp_path)
    newest = list_checkpoints(tmp_path / "checkpoints")[-1][1] / "state.safetensors"
    raw = bytearray(newest.read_bytes())
    raw[len(raw) // 2] ^= 1
    newest.write_bytes(raw)
    assert_equal(state(run_to(tiny_config(pictures), tmp_path)), unbroken[0])
    assert (tmp_path / "checkpoints" / "step-00000010.damaged").exists()
    assert "damaged checkpoint" in (tmp_path / "incidents.jsonl").read_text()


def test_all_checkpoints_damaged_is_refused(pictures, tmp_path):
    run_to(tiny_config(pictures), tmp_path)
    for _, path in list_checkpoints(tmp_path / "checkpoints"):
        (path / "MANIFEST.json").write_text("{")
    with pytest.raises(DataError, match="every checkpoint is damaged"):
        run_to(tiny_config(pictures), tmp_path)


def test_a_second_trainer_is_refused(tmp_path):
    refused = pytest.raises(UsageError, match=f"in use by process {os.getpid()}")
    with open_run(tmp_path / "run"), refused, open_run(tmp_path / "run"):
        pass


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(20))
def test_kill_at_a_random_moment(pictures, unbroken, tmp_path, seed):
    process = start_process(tiny_config(pictures), tmp_path)
    time.sleep(random.Random(seed).uniform(0.2, 2))
    process.kill()
    process.join()
    assert_equal(state(run_to(tiny_config(pictures), tmp_path)), unbroken[0])


def test_a_second_signal_ends_it_at_once_and_the_last_checkpoint_loads(pictures, unbroken, tmp_path):
    def interrupt(step, method):
        if step == 7:
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(StoppedError, match="stopped by SIGINT without saving; the same command goes on from the last"):
        run_to(tiny_config(pictures), tmp_path, watchers=[Watcher(1, interrupt)])
    assert [step for step, _ in list_checkpoints(tmp_path / "checkpoints")] == [5]
    assert_equal(state(run_to(tiny_config(pictures), tmp_path)), unbroken[0])


@pytest.mark.parametrize("grace_s", [0.0, 0.3])
def test_no_time_to_save_keeps_the_previous_checkpoint(pictures, unbroken, tmp_path, grace_s):
    def interrupt(step, method):
        if step == 7:
            signal.raise_signal(signal.SIGTERM)
            time.sleep(30)

    config = tiny_config(pictures)
    hurried = dataclasses.replace(config, save=dataclasses.replace(config.save, grace_s=grace_s))
    began = time.monotonic()
    with pytest.raises(StoppedError, match="stopped by SIGTERM without saving"):
        run_to(hurried, tmp_path, watchers=[Watcher(1, interrupt)])
    assert time.monotonic() - began < 10
    assert [step for step, _ in list_checkpoints(tmp_path / "checkpoints")] == [5]
    assert_equal(state(run_to(config, tmp_path)), unbroken[0])


def test_a_save_that_takes_longer_than_the_grace_is_given_up(pictures, unbroken, tmp_path, monkeypatch):
    from opendino.train import checkpoint

    config = tiny_config(pictures)
    hurried = dataclasses.replace(config, save=dataclasses.replace(config.save, grace_s=0.3))
    write = checkpoint.save_file

    def slow(tensors, path):
        write(tensors, path)
        if "step-00000007" in str(path):
            time.sleep(30)

    monkeypatch.setattr(checkpoint, "save_file", slow)
    interrupt = Watcher(1, lambda step, method: signal.raise_signal(signal.SIGUSR1) if step == 7 else None)
    with pytest.raises(StoppedError, match="stopped by SIGUSR1 without saving"):
        run_to(hurried, tmp_path, watchers=[interrupt])
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["step-00000005"]
    monkeypatch.undo()
    assert_equal(state(run_to(config, tmp_path)), unbroken[0])


def test_training_outside_the_main_thread_works_without_signals(pictures, unbroken, tmp_path):
    import threading

    found = []
    thread = threading.Thread(target=lambda: found.append(run_to(tiny_config(pictures), tmp_path)))
    thread.start()
    thread.join()
    assert_equal(state(found[0]), unbroken[0])


def test_a_watcher_ends_a_run_and_a_resume_finds_it_ended(pictures, unbroken, tmp_path):
    """Killed between the decision and the save, it decides the same again."""

    def run(out, fault=""):
        carry = {}
        enough = Watcher(1, lambda step, method: carry.update({ENDED: "enough"} if step == 7 else {}))
        os.environ["OPENDINO_FAULT"] = fault
        try:
            return run_to(tiny_config(pictures), out, watchers=[enough], carry=carry), carry
        finally:
            del os.environ["OPENDINO_FAULT"]

    whole, carry = run(tmp_path / "whole")
    assert carry == {ENDED: "enough"}
    assert list_checkpoints(tmp_path / "whole" / "checkpoints")[-1][0] == 7
    process = multiprocessing.get_context("fork").Process(
        target=run, args=(tmp_path / "cut", "checkpoint.before_tensors:2=SIGKILL")
    )
    process.start()
    process.join()
    assert process.exitcode == -9
    assert [step for step, _ in list_checkpoints(tmp_path / "cut" / "checkpoints")] == [5]
    assert_equal(state(run(tmp_path / "cut")[0]), state(whole))
    before = rows(tmp_path / "cut")
    assert_equal(state(run(tmp_path / "cut")[0]), state(whole))
    assert rows(tmp_path / "cut") == before == rows(tmp_path / "whole")
