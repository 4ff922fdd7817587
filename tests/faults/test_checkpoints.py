"""Faults of saving and of what was saved: full disks, damaged bytes, power failures (F3, F13, F17, F18, F25 to F27).

A failure prints the seed that repeats it.
"""

import dataclasses
import os
import random
import resource
import shutil
import signal

import pytest
import torch

from opendino import files
from opendino.errors import DataError, OpendinoError
from opendino.files import check_directory, commit_directory
from opendino.train import checkpoint
from opendino.train.checkpoint import list_checkpoints, load_checkpoint, save_checkpoint
from opendino.train.optim import build_optimizer
from tests.train.runs import build, draw_pictures, run_to, tiny_config


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    return draw_pictures(tmp_path_factory.mktemp("pictures"), count=8)


@pytest.fixture(scope="module")
def finished(pictures, tmp_path_factory):
    """A run with checkpoints of steps 5 and 10."""
    out = tmp_path_factory.mktemp("run")
    run_to(tiny_config(pictures), out)
    return out / "checkpoints"


def fresh(pictures):
    config = tiny_config(pictures)
    method, _ = build(config)
    return method, build_optimizer(method.trained(), config.optim)


def newest(folder):
    return list_checkpoints(folder)[-1][1]


@pytest.mark.parametrize("file", ["state.safetensors", "MANIFEST.json"])
def test_f25_every_flipped_bit_is_found(finished, tmp_path, file):
    folder = tmp_path / "copy"
    shutil.copytree(newest(finished), folder)
    original = (folder / file).read_bytes()
    rng = random.Random(25)
    for _ in range(100):
        bit = rng.randrange(8 * len(original))
        flipped = bytearray(original)
        flipped[bit // 8] ^= 1 << bit % 8
        (folder / file).write_bytes(flipped)
        assert check_directory(folder) is not None, f"bit {bit} of {file}"


def cut(folder, rng):
    file = rng.choice(["state.safetensors", "MANIFEST.json"])
    size = (folder / file).stat().st_size
    os.truncate(folder / file, rng.randrange(size))


def remove(folder, rng):
    (folder / rng.choice(["state.safetensors", "MANIFEST.json"])).unlink()


def empty(folder, rng):
    (folder / "MANIFEST.json").write_bytes(b"")


def swap(folder, rng):
    other = next(path for _, path in list_checkpoints(folder.parent) if path != folder)
    shutil.copy(other / "state.safetensors", folder / "state.safetensors")


@pytest.mark.parametrize("damage", [cut, remove, empty, swap])
@pytest.mark.parametrize("seed", range(5))
def test_f26_a_damaged_newest_is_set_aside_and_the_one_before_loads(pictures, finished, tmp_path, damage, seed):
    folder = tmp_path / "checkpoints"
    shutil.copytree(finished, folder)
    damage(newest(folder), random.Random(seed))
    resumed = load_checkpoint(folder, *fresh(pictures))
    assert resumed is not None and resumed.step == 5 and len(resumed.damaged) == 1
    assert (folder / "step-00000010.damaged").is_dir()


def test_f27_all_damaged_is_refused_with_the_list_of_what_was_tried(pictures, finished, tmp_path):
    folder = tmp_path / "checkpoints"
    shutil.copytree(finished, folder)
    for _, path in list_checkpoints(folder):
        raw = bytearray((path / "state.safetensors").read_bytes())
        raw[-1] ^= 1
        (path / "state.safetensors").write_bytes(raw)
    with pytest.raises(DataError, match=r"step-00000010: .*hash.*step-00000005: .*hash"):
        load_checkpoint(folder, *fresh(pictures))


def test_f13_what_is_not_finite_is_never_committed(pictures, tmp_path):
    method, optimizer = fresh(pictures)
    with torch.no_grad():
        next(method.parameters())[0] = float("nan")
    with pytest.raises(OpendinoError, match="holds NaN or infinity at step 7"):
        save_checkpoint(tmp_path, 7, method, optimizer, {})
    assert list(tmp_path.iterdir()) == []


POINTS = (
    *("checkpoint.before_tensors", "checkpoint.after_tensors", "commit.before_fsync", "commit.before_manifest"),
    *("file.write", "commit.before_rename"),
)


@pytest.mark.parametrize("error", ["ENOSPC", "EDQUOT", "EIO"])
@pytest.mark.parametrize("point", POINTS)
def test_f17_a_refusing_disk_leaves_all_as_it_was(pictures, finished, tmp_path, monkeypatch, point, error):
    folder = tmp_path / "checkpoints"
    shutil.copytree(finished, folder)
    monkeypatch.setenv("OPENDINO_FAULT", f"{point}={error}")
    files._passages.clear()
    with pytest.raises(OSError):
        save_checkpoint(folder, 11, *fresh(pictures), {})
    assert sorted(path.name for path in folder.iterdir()) == ["step-00000005", "step-00000010"]
    assert all(check_directory(path) is None for path in folder.iterdir())


def test_f18_a_real_limit_of_the_kernel_while_tensors_are_written(pictures, tmp_path):
    """The error comes from the kernel, through the library that writes tensors, not from a raised exception."""
    method, optimizer = fresh(pictures)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
    try:
        with pytest.raises(OSError):
            save_checkpoint(tmp_path, 7, method, optimizer, {})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, before)
    assert list(tmp_path.iterdir()) == []


def test_what_reads_back_otherwise_than_written_is_no_checkpoint_and_nothing_is_pruned(pictures, tmp_path, monkeypatch):
    write, writes = checkpoint.save_file, []

    def lying_disk(tensors, path):
        write(tensors, path)
        writes.append(path)

    def rotting(folder):
        if len(writes) == 4 and folder.name == "step-00000020":
            return "state.safetensors differs"
        return check_directory(folder)

    monkeypatch.setattr(checkpoint, "save_file", lying_disk)
    monkeypatch.setattr(checkpoint, "check_directory", rotting)
    config = dataclasses.replace(tiny_config(pictures), steps=25)
    config = dataclasses.replace(config, save=dataclasses.replace(config.save, milestones=1))
    run_to(config, tmp_path)
    assert [step for step, _ in list_checkpoints(tmp_path / "checkpoints")] == [15, 25]
    assert "read back otherwise than written" in (tmp_path / "incidents.jsonl").read_text()


def test_no_room_for_a_checkpoint_is_said_before_the_first_step(pictures, tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint, "free_bytes", lambda path: 1000)
    with pytest.raises(OpendinoError, match=r"a checkpoint needs .* MB, 0 MB are free; free some space"):
        run_to(tiny_config(pictures), tmp_path)
    assert not (tmp_path / "metrics.jsonl").exists()


def test_the_expected_size_is_that_of_a_checkpoint(pictures, finished):
    expected = checkpoint.expected_bytes(fresh(pictures)[0])
    assert expected == pytest.approx((newest(finished) / "state.safetensors").stat().st_size, rel=0.15)


class PowerFailures:
    """Records the durable operations of a commit and builds, after each one, the states a power failure could leave.

    Until a file is fsynced its content may be whole, torn at 512 bytes or empty; until a folder is fsynced, the last
    renames in it may be undone. Renames are seen in order.
    """

    def __init__(self, root, scratch, monkeypatch):
        self.root, self.scratch, self.synced, self.states = root, scratch, set(), []
        real_fsync, real_rename, real_replace = os.fsync, os.rename, os.replace

        def fsync(descriptor):
            self.snapshot()
            real_fsync(descriptor)
            number = os.fstat(descriptor).st_ino
            self.synced |= {path for path in root.rglob("*") if path.stat().st_ino == number}
            self.snapshot()

        def moving(move):
            def moved(source, target):
                self.snapshot()
                inside = {path for path in self.synced if path == source or source in path.parents}
                move(source, target)
                self.synced -= inside | {target}
                self.synced |= {target / path.relative_to(source) for path in inside}
                self.snapshot()

            return moved

        monkeypatch.setattr(os, "fsync", fsync)
        monkeypatch.setattr(os, "rename", moving(real_rename))
        monkeypatch.setattr(os, "replace", moving(real_replace))

    def snapshot(self):
        unsynced = [path for path in self.root.rglob("*") if path.is_file() and path not in self.synced]
        for tear in (None, 0, 512):
            state = self.scratch / f"{len(self.states):04d}"
            shutil.copytree(self.root, state)
            for path in unsynced if tear is not None else []:
                os.truncate(state / path.relative_to(self.root), min(tear, path.stat().st_size))
            self.states.append(state)


def test_f3_every_state_that_a_power_failure_can_leave_is_old_or_new(tmp_path, monkeypatch):
    root = tmp_path / "run"
    root.mkdir()
    payload = random.Random(3).randbytes(5000)
    with commit_directory(root / "step-00000001", {"step": 1}) as folder:
        (folder / "a").write_bytes(payload)
    with monkeypatch.context() as patched:
        failures = PowerFailures(root, tmp_path / "states", patched)
        failures.synced |= set((root / "step-00000001").iterdir())
        with commit_directory(root / "step-00000002", {"step": 2}) as folder:
            (folder / "a").write_bytes(payload[::-1])
            (folder / "b").write_bytes(payload)
    assert len(failures.states) > 20
    for state in failures.states:
        assert check_directory(state / "step-00000001") is None
        for _, path in list_checkpoints(state):
            assert check_directory(path) is None, f"{state}: {path.name}"
            assert (path / "a").read_bytes() == (payload if path.name.endswith("1") else payload[::-1])
