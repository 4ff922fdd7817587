"""The child process that reads pickles: what comes back, what it may use, and how its end is told."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch

from opendino.errors import WeightsError
from opendino.weights import apart
from opendino.weights.pickles import read_pickle
from opendino.weights.read import read_tensors
from tests.weights.test_pickles import callers, saved

pytestmark = pytest.mark.usefixtures("_apart")


@pytest.mark.parametrize("form", ["zip", "legacy"])
def test_tensors_come_back_bit_for_bit(form, tmp_path):
    shared = torch.randn(4, 6)
    tensors = {
        "plain": torch.randn(3, 5),
        "half": torch.randn(3).bfloat16(),
        "whole": torch.arange(4),
        "scalar": torch.tensor(2.5),
        "empty": torch.zeros(0, 3),
        "turned": shared.T,
        "twin": shared,
        "part": shared[1:3, 2:],
    }
    saved({"model": tensors, "epoch": 3}, tmp_path / "w.pth", form)
    before = set(os.listdir(tmp_path))
    found = read_tensors(tmp_path / "w.pth")
    assert found.keys() == {f"model.{name}" for name in tensors} and set(os.listdir(tmp_path)) == before
    for name, tensor in tensors.items():
        assert found[f"model.{name}"].dtype == tensor.dtype and torch.equal(found[f"model.{name}"], tensor)


def test_this_process_never_unpickles(tmp_path, monkeypatch):
    torch.save({"a": torch.zeros(2)}, tmp_path / "w.pth")
    monkeypatch.setattr(torch, "load", lambda *_, **__: pytest.fail("unpickled here"))
    assert read_tensors(tmp_path / "w.pth").keys() == {"a"}


def test_a_call_is_refused_with_its_name(tmp_path):
    """Fault F62, through the child."""
    saved(callers(tmp_path / "canary")["os.system"], tmp_path / "w.pth", "zip")
    with pytest.raises(WeightsError, match=r"asks to run posix.system: refused, nothing was run; take a .safetensors"):
        read_tensors(tmp_path / "w.pth")
    assert not (tmp_path / "canary").exists()


def run_in_child(code, tmp_path):
    """A child as `read_apart` makes it, with `code` in the place of reading."""
    lines = f"import sys; sys.path[:0] = {sys.path}\nfrom opendino.weights import apart\n{code}"
    return subprocess.run([sys.executable, "-c", lines], capture_output=True, text=True, cwd=tmp_path, timeout=120)


@pytest.mark.skipif(sys.platform != "linux", reason="memory limits are set by Linux alone")
def test_storages_larger_than_the_file_do_not_fill_memory(tmp_path):
    """Fault F63: allowed operations, huge storage; the legacy format allocates before it reads."""
    path = tmp_path / "w.pth"
    torch.save({"a": torch.zeros(4)}, path, _use_new_zipfile_serialization=False)
    small, huge = b"K\x04Nt", b"\x8a\x05\x00\x00\x00\x00\x01Nt"  # 4 numbers, 2^32 of them
    raw = path.read_bytes()
    assert small in raw
    path.write_bytes(raw.replace(small, huge))
    with pytest.raises(WeightsError, match="refused") as caught:
        read_tensors(path)
    assert "\n" not in str(caught.value)
    code = (
        "apart._limit(1000)\n"
        "import torch\n"
        "try: torch.empty(2**31, dtype=torch.uint8).fill_(1)\n"
        # Not ru_maxrss: a child begins with that of the process that started it.
        "except RuntimeError: print(next(x for x in open('/proc/self/status') if 'VmHWM' in x).split()[1])\n"
    )
    assert int(run_in_child(code, tmp_path).stdout) < 1_000_000  # KiB, torch itself among them


def test_the_child_starts_nothing_and_calls_nobody(tmp_path):
    code = """
import os, socket, subprocess
sys.addaudithook(apart._guard)
call = lambda: socket.create_connection(("127.0.0.1", 9))
for act in (lambda: os.system("true"), lambda: subprocess.run(["true"]), lambda: os.execv("/bin/true", ["true"]), call):
    try:
        act()
    except RuntimeError as error:
        print(error)
"""
    said = [line.split()[0] for line in run_in_child(code, tmp_path).stdout.splitlines()]
    assert said[:3] == ["os.system", "subprocess.Popen", "os.exec"] and said[3].startswith("socket.")


@pytest.mark.parametrize(
    ("code", "seconds", "words"),
    [
        ("import os; os.kill(os.getpid(), 11)", 60, "ended the process that read it .signal 11."),
        ("raise SystemError('odd')", 60, "ended the process that read it .SystemError: odd."),
        ("import time; time.sleep(60)", 2, "takes more than 2 s"),
    ],
)
def test_how_a_child_ends_is_told_in_one_line(code, seconds, words, tmp_path, monkeypatch):
    torch.save({"a": torch.zeros(2)}, tmp_path / "w.pth")
    monkeypatch.setattr(apart, "LEAST_SECONDS", seconds)
    (tmp_path / "python").write_text(f'#!/bin/sh\nexec {os.path.realpath(sys.executable)} -c "{code}"\n')
    (tmp_path / "python").chmod(0o755)
    monkeypatch.setattr(apart.sys, "executable", str(tmp_path / "python"))
    with pytest.raises(WeightsError, match=words):
        read_tensors(tmp_path / "w.pth")


def test_many_names_for_one_storage_do_not_fill_the_disk(tmp_path):
    one = torch.zeros(100_000)
    torch.save({str(index): one for index in range(50)}, tmp_path / "w.pth")
    assert len(read_pickle(tmp_path / "w.pth")) == 50
    with pytest.raises(WeightsError, match="more than the file explains"):
        apart.convert(tmp_path / "w.pth", tmp_path / "out")
    assert not (tmp_path / "out").exists()
