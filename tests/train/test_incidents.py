"""What a run does about steps that are not finite, about USR2 and about a disk that stays full."""

import dataclasses
import json
import signal

import pytest
import torch

from opendino.errors import OpendinoError
from opendino.train import loop, saves
from opendino.train.checkpoint import list_checkpoints
from opendino.train.loop import Watcher, train
from opendino.train.run import open_run
from tests.train.runs import build, draw_pictures, run_to, tiny_config


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    return draw_pictures(tmp_path_factory.mktemp("pictures"), count=10)


class Poisoned:
    """A loader whose batches of some steps hold NaN."""

    def __init__(self, loader, bad):
        self.loader, self.bad, self.served = loader, bad, []

    def batches(self, start, end):
        for step, crops in enumerate(self.loader.batches(start, end), start):
            self.served.append(step)
            if step in self.bad:
                crops = dataclasses.replace(crops, global_crops=crops.global_crops * float("nan"))
            yield crops


def train_poisoned(config, out, bad):
    method, loader = build(config)
    poisoned = Poisoned(loader, bad)
    with open_run(out) as run:
        train(config, method, poisoned, run)
    return method, poisoned.served


def incidents(out, kind):
    rows = [json.loads(line) for line in (out / "incidents.jsonl").read_text().splitlines()]
    return [row for row in rows if row["kind"] == kind]


def test_a_non_finite_step_is_left_out_and_its_pictures_are_named(pictures, tmp_path):
    method, _ = train_poisoned(tiny_config(pictures, steps=6), tmp_path, bad={2})
    assert all(torch.isfinite(value).all() for name, value in method.state_dict().items() if "queue" not in name)
    (row,) = incidents(tmp_path, "non-finite step")
    assert row["step"] == 3 and len(row["ids"]) == 4


def test_many_roll_the_run_back_past_their_pictures_once(pictures, tmp_path):
    config = tiny_config(pictures, steps=20)
    method, served = train_poisoned(config, tmp_path, bad=set(range(6, 16)))
    assert served == list(range(31))  # steps 5 to 15 of the data are passed over, 20 are trained on
    (row,) = incidents(tmp_path, "rolled back")
    assert row["step"] == 16 and row["words"].startswith("back to step 5;")
    assert all(torch.isfinite(value).all() for name, value in method.state_dict().items() if "queue" not in name)
    steps = [json.loads(line)["step"] for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert steps == list(range(1, 21))


def test_a_second_time_it_stops_in_words(pictures, tmp_path):
    with pytest.raises(OpendinoError, match=r"10 of the last 1,000 steps.*lower optim.lr"):
        train_poisoned(tiny_config(pictures, steps=40), tmp_path, bad=set(range(6, 100)))
    assert len(incidents(tmp_path, "rolled back")) == 1
    assert list_checkpoints(tmp_path / "checkpoints")


def test_without_a_checkpoint_it_stops_at_once(pictures, tmp_path):
    config = tiny_config(pictures, steps=40)
    config = dataclasses.replace(config, save=dataclasses.replace(config.save, steps=0))
    with pytest.raises(OpendinoError, match="not finite"):
        train_poisoned(config, tmp_path, bad=set(range(100)))


def test_few_bad_steps_far_apart_are_no_alarm(pictures, tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "MAX_BAD_STEPS", 2)
    monkeypatch.setattr(loop, "BAD_WINDOW", 3)
    train_poisoned(tiny_config(pictures, steps=10), tmp_path, bad={1, 5})
    assert not incidents(tmp_path, "rolled back")


def test_usr2_saves_and_the_run_goes_on(pictures, tmp_path):
    def ask(step, method):
        if step == 3:
            signal.raise_signal(signal.SIGUSR2)
        if step == 4 and [saved for saved, _ in list_checkpoints(tmp_path / "checkpoints")] == [3]:
            (tmp_path / "saved-3").touch()

    run_to(tiny_config(pictures, steps=10), tmp_path, watchers=[Watcher(1, ask)])
    assert (tmp_path / "saved-3").exists()


def test_a_disk_that_stays_full_ends_the_run(pictures, tmp_path, monkeypatch):
    def full(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(saves, "save_checkpoint", full)
    monkeypatch.setattr(saves, "MAX_UNSAVED_MINUTES", -1.0)
    with pytest.raises(OpendinoError, match=r"cannot save .*No space"):
        run_to(tiny_config(pictures, steps=20), tmp_path)
    assert incidents(tmp_path, "save failed")[0]["step"] == 5
