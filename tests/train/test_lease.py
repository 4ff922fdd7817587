"""Who holds a run directory, told across machines: each lease left behind gets its verdict (faults F21, F22, F34)."""

import json
import os
import socket
import time

import pytest

from opendino.errors import OpendinoError, UsageError
from opendino.train import lease as leases
from opendino.train.checkpoint import list_checkpoints
from opendino.train.lease import STALE_S, hold_lease
from opendino.train.loop import Watcher
from opendino.train.run import open_run
from tests.train.runs import draw_pictures, run_to, tiny_config


def leave(path, age_s=0.0, **said):
    """A lease as a dead or distant trainer left it."""
    other = {"host": "elsewhere", "pid": 4711, "boot": "another", "started": "", "token": "theirs"}
    path.write_text(json.dumps({**other, **said}))
    then = time.time() - age_s
    os.utime(path, (then, then))
    return path


def test_it_names_its_holder_while_held_and_is_gone_afterwards(tmp_path):
    with hold_lease(tmp_path / "run.lease") as lease:
        said = json.loads((tmp_path / "run.lease").read_text())
        assert said["host"] == socket.gethostname() and said["pid"] == os.getpid() and said["started"]
        lease.check()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "said",
    [
        {"host": socket.gethostname(), "boot": leases._boot_id()},
        {"host": socket.gethostname(), "boot": "before the restart"},
        {"host": socket.gethostname(), "pid": os.getpid()},
        {"host": socket.gethostname(), "pid": 1},
    ],
    ids=["same boot", "rebooted", "own pid again", "pid of another process"],
)
def test_what_this_machine_left_is_of_a_dead_process(tmp_path, said):
    leave(tmp_path / "run.lease", **said)
    with hold_lease(tmp_path / "run.lease") as lease:
        lease.check()


def test_a_renamed_machine_knows_itself_by_its_boot(tmp_path):
    leave(tmp_path / "run.lease", boot=leases._boot_id())
    with hold_lease(tmp_path / "run.lease"):
        pass


@pytest.mark.parametrize("take_over", [False, True])
def test_another_machine_that_lives_is_refused_in_any_case(tmp_path, take_over):
    path = leave(tmp_path / "run.lease", age_s=STALE_S / 2)
    before = path.read_text()
    with pytest.raises(UsageError, match=r"in use by process 4711 on elsewhere, which was heard of 300 s ago; wait"):
        hold_lease(path, take_over=take_over).__enter__()
    assert [file.name for file in tmp_path.iterdir()] == ["run.lease"] and path.read_text() == before


def test_another_machine_that_is_silent_is_taken_over_only_when_asked(tmp_path):
    path = leave(tmp_path / "run.lease", age_s=STALE_S + 60)
    with pytest.raises(UsageError, match=r"not heard of for 11 min; if it is dead, add --take-over"):
        hold_lease(path).__enter__()
    with hold_lease(path, take_over=True) as lease:
        lease.check()


def test_a_cut_lease_is_of_an_unknown_machine(tmp_path):
    (tmp_path / "run.lease").write_text('{"host": "els')
    with pytest.raises(UsageError, match="an unknown machine"):
        hold_lease(tmp_path / "run.lease").__enter__()


@pytest.mark.parametrize("jump", [86_400, -86_400])
def test_a_clock_that_jumps_makes_no_lease_old_or_young(tmp_path, monkeypatch, jump):
    path = leave(tmp_path / "run.lease", age_s=10)
    now = time.time
    monkeypatch.setattr(time, "time", lambda: now() + jump)
    with pytest.raises(UsageError, match="which was heard of 10 s ago"):
        hold_lease(path, take_over=True).__enter__()


def test_it_is_renewed_while_held(tmp_path, monkeypatch):
    monkeypatch.setattr(leases, "HEARTBEAT_S", 0.01)
    path = tmp_path / "run.lease"
    with hold_lease(path):
        os.utime(path, (1, 1))
        deadline = time.monotonic() + 5
        while path.stat().st_mtime == 1 and time.monotonic() < deadline:
            time.sleep(0.01)
        assert path.stat().st_mtime > 1


def test_a_trainer_that_was_taken_over_writes_no_checkpoint_and_leaves_the_lease(tmp_path):
    pictures = draw_pictures(tmp_path / "pictures", count=8)

    def take_over(step, method):
        if step == 7:
            leave(tmp_path / "run" / "run.lease")

    with pytest.raises(OpendinoError, match="was taken over by process 4711 on elsewhere"):
        run_to(tiny_config(pictures), tmp_path / "run", watchers=[Watcher(1, take_over)])
    assert [step for step, _ in list_checkpoints(tmp_path / "run" / "checkpoints")] == [5]
    assert json.loads((tmp_path / "run" / "run.lease").read_text())["token"] == "theirs"


def test_a_second_trainer_here_is_refused_by_the_lock_and_the_first_is_unharmed(tmp_path):
    with open_run(tmp_path / "run") as run:
        with pytest.raises(UsageError, match="in use by"), open_run(tmp_path / "run", take_over=True):
            pass
        run.check_held()
