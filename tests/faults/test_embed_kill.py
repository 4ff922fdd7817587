"""`embed` killed at random moments and started again gives the store of an unbroken run: rows, ids, values, order."""

import random
import shutil
import signal
import subprocess
import sys
import time

import pytest

from opendino.features.store import open_store
from tests.features.child import draw_pictures, open_all_shapes, save_vit, start

pytest.importorskip("lance", reason="pylance is not installed: stores not tried")


@pytest.fixture(scope="module")
def given(tmp_path_factory):
    folder = tmp_path_factory.mktemp("kill")
    draw_pictures(folder / "pictures", 26)
    (folder / "pictures" / "a" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n broken")
    return folder / "pictures", save_vit(folder / "model")


def finish(child):
    child.join(120)
    assert child.exitcode == 0


def content(path):
    store = open_store(path)
    return store.table().to_pydict(), [(one.id, one.reason) for one in store.skipped()]


@pytest.fixture(scope="module")
def unbroken(given, tmp_path_factory):
    path = tmp_path_factory.mktemp("unbroken") / "store"
    finish(start(*given, path))
    begun = time.monotonic()
    finish(start(*given, path.with_name("again")))
    return content(path), time.monotonic() - begun


def test_models_open_without_torchs_compiler():
    finish(start(work=open_all_shapes))


def test_two_unbroken_runs_are_equal_and_complete(given, unbroken, tmp_path):
    (table, skipped), _ = unbroken
    assert len(table["id"]) == 26 and table["id"] == sorted(table["id"])
    assert skipped == [("a/broken.png", "truncated")]
    finish(start(*given, tmp_path / "store"))
    assert content(tmp_path / "store") == unbroken[0]


@pytest.mark.parametrize("round", range(5))
def test_killed_at_random_moments(given, unbroken, tmp_path, round):
    """Four kills a round, 20 in all, each somewhere in the life of a run; then one run to the end."""
    expected, seconds = unbroken
    moments, path, killed = random.Random(round), tmp_path / "store", 0
    while killed < 4:
        child = start(*given, path)
        time.sleep(moments.uniform(0, seconds))
        child.kill()
        child.join()
        if child.exitcode == -signal.SIGKILL:
            killed += 1
            continue
        # It ended before its kill: it must be right, and the next one begins anew with an earlier kill.
        assert child.exitcode == 0 and content(path) == expected
        shutil.rmtree(path)
        seconds *= 0.7
    finish(start(*given, path))
    assert content(path) == expected


@pytest.mark.parametrize("fault", ["store.append:1", "store.append:5", "store.appended:1", "store.appended:7"])
def test_killed_around_a_write(given, unbroken, tmp_path, fault):
    child = start(*given, tmp_path / "store", fault=f"{fault}=SIGKILL")
    child.join(120)
    assert child.exitcode == -signal.SIGKILL
    finish(start(*given, tmp_path / "store"))
    assert content(tmp_path / "store") == unbroken[0]


@pytest.mark.slow
def test_the_command_killed_at_twenty_moments(given, tmp_path):
    pictures, model = given
    draw_pictures(pictures, 400, seed=1)

    def command(out):
        line = [
            sys.executable,
            "-m",
            "opendino",
            "embed",
            str(pictures),
            "--model",
            str(model),
            "--out",
            str(out),
            "--dtype",
            "fp32",
        ]
        return subprocess.Popen(line, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    begun = time.monotonic()
    assert command(tmp_path / "whole").wait() == 0
    seconds = time.monotonic() - begun
    moments = random.Random(0)
    for _ in range(20):
        child = command(tmp_path / "store")
        time.sleep(moments.uniform(0, seconds))
        child.kill()
        child.wait()
    assert command(tmp_path / "store").wait() == 0
    assert content(tmp_path / "store") == content(tmp_path / "whole")
