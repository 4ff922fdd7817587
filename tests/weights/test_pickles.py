"""Hostile PyTorch files: more than 50 kinds, each refused in one line, none executed, none fills memory."""

import builtins
import io
import os
import pickle
import resource
import runpy
import struct
import subprocess
import sys
import tarfile
import zipfile
from collections import OrderedDict

import pytest
import torch

from opendino.errors import WeightsError
from opendino.weights import load
from opendino.weights.pickles import MAX_TENSORS, read_pickle


class Calls:
    """Pickles to a call of a function, which a plain unpickler would make."""

    def __init__(self, function, *arguments, state=None):
        self.reduced = (function, arguments, state) if state is not None else (function, arguments)

    def __reduce__(self):
        return self.reduced


def callers(canary):
    """Ways to make a file appear, by library; every one works with pickle.load (a test below runs some)."""
    touch, code = f"touch {canary}", f"open({str(canary)!r}, 'w')"
    return {
        "os.system": Calls(os.system, touch),
        "os.popen": Calls(os.popen, touch),
        "os.mkdir": Calls(os.mkdir, str(canary)),
        "os.open": Calls(os.open, str(canary), os.O_CREAT),
        "posix.mknod": Calls(os.mknod, str(canary)),
        "os.putenv": Calls(os.putenv, "OPENDINO_CANARY", "1"),
        "os.symlink": Calls(os.symlink, "/", str(canary)),
        "os.execv": Calls(os.execv, "/bin/touch", ["touch", str(canary)]),
        "os.kill": Calls(os.kill, os.getpid(), 9),
        "os.posix_spawn": Calls(os.posix_spawn, "/bin/touch", ["touch", str(canary)], {}),
        "subprocess.Popen": Calls(subprocess.Popen, ["touch", str(canary)]),
        "subprocess.check_output": Calls(subprocess.check_output, ["touch", str(canary)]),
        "subprocess.run": Calls(subprocess.run, ["touch", str(canary)]),
        "builtins.eval": Calls(eval, code),
        "builtins.exec": Calls(exec, code),
        "builtins.open": Calls(open, str(canary), "w"),
        "builtins.compile": Calls(compile, code, "x", "exec"),
        "builtins.__import__": Calls(__import__, "this"),
        "builtins.getattr": Calls(getattr, "x", "join"),
        "builtins.print": Calls(print, "hello"),
        "builtins.exit": Calls(sys.exit, 3),
        "builtins.map": Calls(map, eval, [code]),
        "builtins.input": Calls(builtins.input, "password? "),
        "runpy": Calls(runpy.run_module, "this"),
        "pickle.loads": Calls(pickle.loads, pickle.dumps(Calls(os.system, touch))),
        "torch.load": Calls(torch.load, str(canary)),
        "torch.hub": Calls(torch.hub.load, "a/b", "c"),
        "torch.save": Calls(torch.save, 3, str(canary)),
        "io.FileIO": Calls(io.FileIO, str(canary), "w"),
        "tarfile.open": Calls(tarfile.open, str(canary), "w"),
        "zipfile.ZipFile": Calls(zipfile.ZipFile, str(canary), "w"),
        "build": Calls(OrderedDict, state={"x": Calls(os.system, touch)}),
        "nested dict": {"model": {"a": {"b": Calls(os.system, touch)}}},
        "in a list": {"model": [1, 2, Calls(os.system, touch)]},
        "as a key": {(1, Calls(os.system, touch)): 1},
        "beside tensors": {"cls_token": torch.zeros(2), "z": Calls(os.system, touch)},
        "in an OrderedDict": OrderedDict(a=Calls(os.system, touch)),
        "argument of a call": Calls(OrderedDict, [("a", Calls(os.system, touch))]),
    }


NAMES = list(callers("canary"))


def saved(content, path, form):
    if form == "plain":
        path.write_bytes(pickle.dumps(content, protocol=2))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=form == "zip")


@pytest.fixture
def canary(tmp_path):
    yield tmp_path / "canary"
    assert not (tmp_path / "canary").exists()
    assert "OPENDINO_CANARY" not in os.environ


def refused(path, *words):
    with pytest.raises(WeightsError) as caught:
        load(path)
    line = str(caught.value)
    assert "\n" not in line and len(line) < 700 and str(path) in line
    assert all(word in line for word in words), line
    return line


@pytest.mark.parametrize("form", ["zip", "legacy", "plain"])
@pytest.mark.parametrize("name", NAMES)
def test_calls_are_never_made(name, form, tmp_path, canary):
    """Fault F62."""
    saved(callers(canary)[name], tmp_path / "weights.pth", form)
    refused(tmp_path / "weights.pth", "refused")


def test_the_canary_sings_when_an_unpickler_runs():
    """Guards the test above: the same bytes do run elsewhere."""
    code = (
        "import pickle, sys, tempfile, pathlib; from tests.weights.test_pickles import callers\n"
        "for name in ('os.system', 'os.mkdir', 'builtins.open', 'builtins.eval', 'beside tensors'):\n"
        "    canary = pathlib.Path(tempfile.mkdtemp()) / 'canary'\n"
        "    pickle.loads(pickle.dumps(callers(canary)[name], protocol=2)); assert canary.exists(), name\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def rewritten(path, change):
    """A torch archive with its members changed: change(name, bytes) -> list of (name, bytes, compression)."""
    with zipfile.ZipFile(path) as archive:
        members = [(info.filename, archive.read(info)) for info in archive.infolist()]
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members:
            for new_name, new_content, kind in change(name, content):
                archive.writestr(zipfile.ZipInfo(new_name), new_content, compress_type=kind)


STORED, DEFLATED = zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED


def opcodes(*parts):
    return b"\x80\x02" + b"".join(parts) + b"."


RAW = {
    "empty": b"",
    "one byte": b"\x80",
    "stop": opcodes(),
    "endless memo": b"\x80\x02" + b"}q\x00" * 1000,
    "huge binput": opcodes(b"}r\xff\xff\xff\x7f"),
    "huge string": opcodes(b"X\xff\xff\xff\x7fabc"),
    "huge bytes": opcodes(b"\x8e" + struct.pack("<Q", 2**62)),
    "huge long": opcodes(b"\x8b\xff\xff\xff\x7f"),
    "persistent id": opcodes(b"X\x01\x00\x00\x00aQ"),
    "global of posix": opcodes(b"cposix\nsystem\nX\x02\x00\x00\x00ls\x85R"),
    "stack global": b"\x80\x04\x8c\x05posix\x8c\x06system\x93\x8c\x02ls\x85R.",
    "inst": b"(X\x02\x00\x00\x00lsiposix\nsystem\n.",
    "obj": b"\x80\x02(cposix\nsystem\nX\x02\x00\x00\x00lso.",
    "extension": opcodes(b"\x82\x01"),
    "magic alone": pickle.dumps(0x1950A86A20F9469CFC6C, 2),
    "python 2 text": b"cos\nsystem\n(S'ls'\ntR.",
    "deep lists": b"\x80\x02" + b"]" * 100_000 + b"a" * 99_999 + b".",
    "tar": None,
}


@pytest.mark.parametrize("name", RAW)
def test_bytes_that_no_library_writes(name, tmp_path, canary):
    path = tmp_path / "weights.pth"
    if RAW[name] is None:
        with tarfile.open(path, "w") as archive:
            archive.add(__file__, "pickle")
    else:
        path.write_bytes(RAW[name])
    refused(path)


def doubled_dict(depth=40):
    """2^40 values in a few hundred bytes."""
    value = {"t": torch.zeros(1)}
    for _ in range(depth):
        value = {"a": value, "b": value}
    return value


def wide_dict(levels=7, width=40):
    value = {"t": torch.zeros(1)}
    for _ in range(levels):
        value = {str(index): value for index in range(width)}
    return value


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (doubled_dict(), ["nests"]),
        (wide_dict(), ["more than 100000 tensors"]),
        ({"a": torch.zeros(1).expand(10**12)}, ["larger than the file"]),
        ({"a": torch.zeros(2, 2).to_sparse()}, ["refused"]),
        ({"a" * 600: torch.zeros(1)}, ["long name"]),
        ({"a": torch.zeros(*[1] * 12)}, ["dimensions"]),
        ({"a": torch.empty(4, device="meta")}, ["refused"]),
        ([torch.zeros(2)], ["without tensors"]),
        ({"epoch": 3}, ["without tensors"]),
        ({1: torch.zeros(2)}, ["without tensors"]),
        (torch.nn.Linear(2, 2), ["asks to run torch.nn.modules.linear.Linear"]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) and value and isinstance(value[0], str) else "content",
)
def test_tensors_that_are_none_or_unfold_without_end(content, words, tmp_path):
    torch.save(content, tmp_path / "weights.pth")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    refused(tmp_path / "weights.pth", *words)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300_000  # KiB


def test_too_many_tensors(tmp_path):
    one = torch.zeros(1)
    torch.save({str(index): one for index in range(MAX_TENSORS + 1)}, tmp_path / "weights.pth")
    refused(tmp_path / "weights.pth", "more than")


ARCHIVES = {
    "compressed": lambda name, content: [(name, content, DEFLATED)],
    "bomb": lambda name, content: [(name, content if "data" not in name else b"\0" * 50_000_000, DEFLATED)],
    "twins": lambda name, content: [(name, content, STORED)] * (2 if name.endswith("data.pkl") else 1),
    "a path": lambda name, content: [(name, content, STORED), ("../x", b"", STORED)],
    "absolute": lambda name, content: [(name, content, STORED), ("/etc/x", b"", STORED)],
    "script": lambda name, content: [(name, content, STORED), ("w/code/x.py", b"", STORED)],
    "constants": lambda name, content: [(name, content, STORED), ("weights/constants.pkl", b"", STORED)],
    "no torch archive": lambda name, content: [("a.txt", b"x", STORED)] if name.endswith("data.pkl") else [],
    "no pickle": lambda name, content: [] if name.endswith("data.pkl") else [(name, content, STORED)],
    "storage missing": lambda name, content: [] if name.endswith("data/0") else [(name, content, STORED)],
    "storage cut": lambda name, content: [(name, content[:4] if name.endswith("data/0") else content, STORED)],
}


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("name", ARCHIVES)
def test_archives_that_torch_does_not_write(name, tmp_path, canary):
    path = tmp_path / "weights.pth"
    torch.save({"a": torch.arange(1000.0)}, path)
    rewritten(path, ARCHIVES[name])
    refused(path)


def test_a_cut_or_flipped_file_never_brings_more_than_an_error(tmp_path):
    path = tmp_path / "weights.pth"
    torch.save({f"blocks.{index}": torch.randn(8, 8) for index in range(4)}, path)
    whole = path.read_bytes()
    generator = torch.Generator().manual_seed(0)
    for round_ in range(200):
        broken = bytearray(whole)
        if round_ % 2:
            del broken[int(torch.randint(len(whole), (1,), generator=generator)) :]
        else:
            for _ in range(3):
                broken[int(torch.randint(len(whole), (1,), generator=generator))] ^= 1 << (round_ // 2 % 8)
        path.write_bytes(bytes(broken))
        try:
            read_pickle(path)
        except WeightsError as error:
            assert "\n" not in str(error)


def test_plain_files_of_both_formats_are_read(tmp_path):
    tensors = {"a": torch.randn(3), "b": torch.nn.Parameter(torch.randn(2, 2))}
    for new in (True, False):
        torch.save({"model": tensors, "epoch": 3}, tmp_path / "w.pth", _use_new_zipfile_serialization=new)
        found = read_pickle(tmp_path / "w.pth")
        assert found.keys() == {"model.a", "model.b"} and not found["model.b"].requires_grad
        assert torch.equal(found["model.a"], tensors["a"])
