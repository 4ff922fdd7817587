"""Decoders that may take any time or crash have a process of their own: what it gives, how it ends, whom it serves."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from opendino.data.images import Crashed, ImageError, TooSlow, apart, limited_time, read
from tests.data.drawing import encoded, photo
from tests.data.test_heif import heic
from tests.data.test_image_families import dicom

FAULTY = """
import functools, hashlib, os, sys
from opendino.data.images import apart
reader = sys.modules["opendino.data.images.read"]
apart.limited_time = functools.partial(apart.limited_time, 0)
def decode(data, name, reading):
    if name == "endless":
        hashlib.pbkdf2_hmac("sha256", b"", b"", 10**9)
    if name == "crash":
        os.kill(os.getpid(), 9)
    print("what a library prints is no answer")
    return sound(data, name, reading)
sound, reader.read_stored = reader.read_stored, decode
apart.serve()
"""


@pytest.fixture(autouse=True)
def _own_child() -> Iterator[None]:
    """No child of another test answers."""
    apart._here.__dict__.clear()
    yield
    apart._here.__dict__.clear()


def files() -> dict[str, bytes]:
    return {
        "jp2": encoded(photo(1), "JPEG2000"),
        "avif": encoded(photo(1), "AVIF"),
        "heic": heic(photo(1)),
        "dicom": dicom(photo(1)[:, :, 0].astype(np.uint16)[None]),
    }


@pytest.mark.parametrize("kind", ["jp2", "avif", "heic", "dicom"])
def test_both_processes_give_the_same(kind: str) -> None:
    data = files()[kind]
    beside = read(data)
    with limited_time(60):
        here = read(data)
    assert np.array_equal(beside.array, here.array) and (beside.mode, beside.bits) == (here.mode, here.bits)
    assert beside.meta == here.meta
    for damaged in (data[: len(data) // 2], data[:200]):
        with pytest.raises(ImageError) as apart_error:
            read(damaged, name="x")
        with limited_time(60), pytest.raises(ImageError) as error:
            read(damaged, name="x")
        assert (type(apart_error.value), str(apart_error.value)) == (type(error.value), str(error.value))


def test_an_endless_picture_and_a_crash_cost_themselves_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(apart, "_CODE", FAULTY)
    data = encoded(photo(1), "JPEG2000")
    for name, error, reason in (("endless", TooSlow, "too-slow"), ("crash", Crashed, "crash")):
        with pytest.raises(error) as caught:
            read(data, name=name)
        assert caught.value.reason == reason and caught.value.thing == name
        assert read(data).array.shape == (48, 64, 3)


def test_many_scans_are_decoded_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    data = encoded(photo(1), "JPEG", progressive=True)
    scan = data[data.rindex(b"\xff\xda") : -2]
    monkeypatch.setattr(apart, "_CODE", FAULTY)
    with pytest.raises(TooSlow, match="stopped after"):
        read(data[:-2] + 30 * scan + data[-2:], name="endless")
    assert read(data, name="endless").array.shape == (48, 64, 3)  # a usual number of scans is read here


def test_an_interrupted_question_is_not_answered_to_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = encoded(photo(1), "JPEG2000"), encoded(photo(2), "JPEG2000")

    def interrupt(pipe: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(apart, "_receive", interrupt)
        with pytest.raises(KeyboardInterrupt):
            read(first)
    with limited_time(60):
        expected = read(second).array
    assert np.array_equal(read(second).array, expected)


def test_threads_and_forks_have_their_own() -> None:
    data = [encoded(photo(number), "JPEG2000") for number in range(8)]
    with limited_time(60):
        expected = [read(one).array for one in data]

    def serving(one: bytes) -> tuple[np.ndarray, int]:
        array = read(one).array
        return array, apart._here.child._process.pid

    with ThreadPoolExecutor(2) as threads:
        found = list(threads.map(serving, data))
    assert all(np.array_equal(array, wanted) for (array, _), wanted in zip(found, expected, strict=True))
    assert os.getpid() not in {pid for _, pid in found}
    read(data[0])
    child = os.fork()
    if child == 0:  # no pytest in the fork
        right = np.array_equal(read(data[1]).array, expected[1])
        os._exit(0 if right and apart._here.child.parent == os.getpid() else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert np.array_equal(read(data[2]).array, expected[2])


def test_a_thread_that_ends_takes_its_child_along() -> None:
    children = []

    def work() -> None:
        read(encoded(photo(1), "JPEG2000"))
        children.append(apart._here.child._process.pid)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert os.waitstatus_to_exitcode(os.waitpid(children[0], 0)[1]) == 0
