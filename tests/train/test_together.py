"""Runs side by side: each as it would be alone, whatever the others do."""

import contextlib
import dataclasses
import signal

import pytest
import torch

from opendino.errors import OpendinoError, StoppedError
from opendino.train.checkpoint import list_checkpoints
from opendino.train.loop import Watcher
from opendino.train.run import open_run
from opendino.train.together import Training, train_together
from tests.train.runs import build, draw_pictures, run_to, tiny_config


@pytest.fixture(scope="module")
def configs(tmp_path_factory):
    """Two runs that differ in what is drawn: seed, and drop path on or off."""
    first = tiny_config(draw_pictures(tmp_path_factory.mktemp("pictures"), count=10), steps=6)
    other = dataclasses.replace(first.model, drop_path=0.0)
    return [first, dataclasses.replace(first, seed=1, model=other)]


@pytest.fixture(scope="module")
def alone(configs, tmp_path_factory):
    return [run_to(config, tmp_path_factory.mktemp("alone")).state_dict() for config in configs]


def together(configs, out, watchers=((), ())):
    with contextlib.ExitStack() as stack:
        trainings = [
            Training(
                config, *build(config), stack.enter_context(open_run(out / f"run{place}")), watchers=watchers[place]
            )
            for place, config in enumerate(configs)
        ]
        train_together(trainings, out)
        return [training.method.state_dict() for training in trainings]


def steps_of(out):
    return [list_checkpoints(out / f"run{place}" / "checkpoints")[-1][0] for place in range(2)]


def assert_equal(found, expected):
    for a, b in zip(found, expected, strict=True):
        assert all(torch.equal(torch.nan_to_num(a[name]), torch.nan_to_num(b[name])) for name in b)


def test_each_equals_itself_alone(configs, alone, tmp_path):
    assert_equal(together(configs, tmp_path), alone)


def test_steps_take_turns(configs, tmp_path):
    seen = []
    watchers = [[Watcher(1, lambda step, method, place=place: seen.append((step, place)))] for place in range(2)]
    together(configs, tmp_path, watchers)
    assert seen == [(step, place) for step in range(7) for place in range(2)]


@pytest.mark.parametrize("who", [0, 1])
def test_a_signal_saves_all_and_the_same_job_goes_on(configs, alone, tmp_path, who):
    def interrupt(step, method):
        if step == 3:
            signal.raise_signal(signal.SIGTERM)

    watchers = [(), ()]
    watchers[who] = [Watcher(1, interrupt)]
    with pytest.raises(StoppedError, match="SIGTERM, every student saved"):
        together(configs, tmp_path, watchers)
    assert steps_of(tmp_path) == ([3, 2] if who == 0 else [3, 3])
    assert_equal(together(configs, tmp_path), alone)


def test_one_that_fails_leaves_the_others_saved(configs, alone, tmp_path):
    def fail(step, method):
        if step == 3:
            raise OpendinoError("watcher", "failed")

    with pytest.raises(OpendinoError, match="watcher: failed"):
        together(configs, tmp_path, ([Watcher(1, fail)], ()))
    assert not list_checkpoints(tmp_path / "run0" / "checkpoints")
    assert list_checkpoints(tmp_path / "run1" / "checkpoints")[-1][0] == 2
    assert_equal(together(configs, tmp_path), alone)


def test_one_that_is_behind_catches_up(configs, alone, tmp_path):
    run_to(configs[0], tmp_path / "run0")
    assert_equal(together(configs, tmp_path), alone)
