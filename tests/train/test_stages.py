"""Stages that go on from a run: what they start with, the published schedules, golden curves, exact resume."""

import dataclasses
import json
import multiprocessing
import os
import tempfile
from pathlib import Path

import pytest
import torch

from opendino.data.config import CropConfig
from opendino.errors import DataError, UsageError
from opendino.recipes import STAGE_RECIPES
from opendino.recipes.highres import highres_sizes
from opendino.recipes.situation import Situation
from opendino.recipes.vitl16_imagenet import vitl16_imagenet
from opendino.train.checkpoint import list_checkpoints
from opendino.train.config import SaveConfig
from opendino.train.methods.gram_teacher import GramTeacher
from opendino.train.start import checkpoint_at, newest_checkpoint, teacher_backbone
from tests.train.runs import draw_pictures, run_to, tiny_config
from tests.train.stages import run_stage, stage_config
from tests.train.test_resume import assert_equal, rows, state

GOLDEN = Path(__file__).parents[1] / "assets" / "golden_stages.json"
STEPS = 100


@pytest.fixture(scope="module")
def before(tmp_path_factory):
    """A run of 10 steps that kept steps 5 and 10."""
    folder = tmp_path_factory.mktemp("before")
    config = tiny_config(draw_pictures(folder / "pictures", count=10))
    run_to(config, folder / "run")
    return config, folder / "run"


def short_stage(name, before, steps=10):
    config = stage_config(name, before[0], steps)
    gram = dataclasses.replace(config.method.gram, refresh_every=3 if name == "gram" else 0)
    return dataclasses.replace(
        config,
        method=dataclasses.replace(config.method, gram=gram),
        save=SaveConfig(minutes=0, steps=5, milestones=1),
    )


def untrained(config):
    """A stage with learning rate 0, so that what it began with can be looked at."""
    return dataclasses.replace(
        config, steps=1, optim=dataclasses.replace(config.optim, lr=1e-30, lr_final=0.0, weight_decay=0.0)
    )


def test_gram_goes_on_with_student_average_heads_queue_and_moments(before, tmp_path):
    config, run = short_stage("gram", before), before[1]
    run_stage(untrained(config), tmp_path, run, anchor_step=5)
    began = dict(checkpoint_at(tmp_path, 1).tensors())
    last, early = newest_checkpoint(run).tensors(), teacher_backbone(checkpoint_at(run, 5).tensors())
    for name, value in last.items():
        if name.startswith("method.student"):
            torch.testing.assert_close(began[name], value, msg=name)
    assert any(name.startswith("optimizer.exp_avg.backbone") for name in began)
    for name, value in early.items():
        assert torch.equal(began[f"method.gram_teacher.backbone.{name}"], value)
    assert not torch.equal(early["cls_token"], teacher_backbone(last)["cls_token"])


def test_the_first_checkpoint_holds_the_whole_state_of_the_run(before, tmp_path):
    def look(step, method):
        if step == 0:
            (found,) = [path for step, path in list_checkpoints(tmp_path / "checkpoints")]
            seen.append(found.name)

    from opendino.train.loop import Watcher

    seen = []
    run_stage(short_stage("gram", before), tmp_path, before[1], 5, watchers=[Watcher(100, look)])
    assert seen == ["step-00000000"]


def test_high_resolution_starts_from_the_average_on_both_sides_without_moments(before, tmp_path):
    run = before[1]
    run_stage(untrained(short_stage("highres", before)), tmp_path, run, anchor_step=10)
    began, last = checkpoint_at(tmp_path, 1).tensors(), newest_checkpoint(run).tensors()
    for name, value in last.items():
        if name.startswith("method.teacher"):
            torch.testing.assert_close(began[name.replace("teacher", "student", 1)], value, msg=name)
            torch.testing.assert_close(began[name], value, msg=name)


@pytest.mark.parametrize("name", STAGE_RECIPES)
def test_killed_and_gone_on_equals_an_unbroken_stage(before, tmp_path, name):
    """Sizes that take turns, refreshes and the frozen teacher included, though the run before is gone by then."""
    config, run = short_stage(name, before), before[1]
    unbroken = run_stage(config, tmp_path / "unbroken", run, anchor_step=5)

    def child():
        os.environ["OPENDINO_FAULT"] = "loop.after_step:8=SIGKILL"
        run_stage(config, tmp_path / "killed", run, anchor_step=5)

    process = multiprocessing.get_context("fork").Process(target=child)
    process.start()
    process.join()
    assert process.exitcode == -9
    resumed = run_stage(config, tmp_path / "killed", Path("gone"), anchor_step=5)
    assert_equal(state(resumed), state(unbroken))
    assert rows(tmp_path / "killed") == rows(tmp_path / "unbroken")
    assert int(unbroken.gram_teacher.refreshes) == (3 if name == "gram" else 0)


def test_another_model_or_head_is_refused_by_name(before, tmp_path):
    config = short_stage("gram", before)
    other = dataclasses.replace(config, method=dataclasses.replace(config.method, prototypes=20))
    with pytest.raises(UsageError, match=r"other weights than the stage \(.*a stage keeps model, heads and queue"):
        run_stage(other, tmp_path, before[1], anchor_step=5)


def test_a_damaged_start_is_refused(before, tmp_path):
    run = tmp_path / "run"
    run_to(dataclasses.replace(before[0], steps=2), run)
    newest = newest_checkpoint(run)
    raw = bytearray((newest.path / "state.safetensors").read_bytes())
    raw[len(raw) // 2] ^= 1
    (newest.path / "state.safetensors").write_bytes(raw)
    with pytest.raises(DataError, match=r"is damaged .*name another checkpoint"):
        run_stage(short_stage("gram", before), tmp_path / "stage", run, anchor_step=2)


# --- the published table ---


def published(batch=4096):
    """A run like the 7B's: 1,000,000 steps of constant rate at 256 and 112 px of patch 16."""
    config = vitl16_imagenet(Situation(10**9, 1200, 1_000_000, "cuda"))
    crops = dataclasses.replace(config.data.crops, global_px=256, local_px=112)
    return dataclasses.replace(
        config,
        method=dataclasses.replace(config.method, momentum=0.994, momentum_final=0.994),
        optim=dataclasses.replace(config.optim, lr=4e-4, lr_final=4e-4, schedule="constant"),
        data=dataclasses.replace(config.data, batch_size=batch, crops=crops),
    )


def test_the_gram_stage_of_a_published_run_is_the_published_one():
    config = STAGE_RECIPES["gram"]["gram"](Situation(10**9, 1200, 0, "cuda", before=published()))
    assert config.steps == 200_000 and config.optim.lr == pytest.approx(2.4e-4)
    assert config.method.momentum == config.method.momentum_final == pytest.approx(0.999)
    assert config.method.temperature_schedule.at(0, config.steps) == 0.07
    assert config.data.crops.gram_px == 512
    assert config.optim.lr_schedule.at(0, config.steps) == config.optim.lr_schedule.at(199_999, 200_000)
    teacher = GramTeacher(torch.nn.Linear(1, 1), config.method.gram, config.steps)
    assert [teacher.weight(step) for step in (0, 999, 1000, 199_999)] == pytest.approx([0, 2, 2, 2])
    assert [teacher.local_weight(step) for step in (0, 999, 1000)] == pytest.approx([1, 0.5, 0.5])
    taken = []
    for step in range(9_999, 60_000, 10_000):
        before = int(teacher.refreshes)
        teacher.after_step(step, torch.nn.Linear(1, 1))
        taken += [step + 1] * (int(teacher.refreshes) - before)
    assert taken == [10_000, 20_000, 30_000]


def test_the_high_resolution_stage_of_a_published_run_is_the_published_one():
    situation = Situation(10**9, 1200, 30_000, "cuda", before=published())
    config = STAGE_RECIPES["highres"]["highres"](situation)
    assert config.data.batch_size == 2048
    assert config.optim.lr == pytest.approx(7.0711e-5, rel=1e-4)
    schedule = config.optim.lr_schedule
    ramp = [schedule.at(step, 30_000) for step in (0, 5_000, 10_000, 29_999)]
    assert ramp == pytest.approx([0, 3.5355e-5, 7.0711e-5, 7.0711e-5], rel=1e-4)
    assert config.method.momentum == pytest.approx(0.999)
    assert (config.method.gram.weight, config.method.gram.local_weight) == (1.5, 0.5)
    sizes = [(one.global_px, one.local_px, one.gram_px, one.share) for one in config.data.crops.sizes]
    assert sizes == [
        (512, 112, 768, 0.3),
        (768, 112, 1152, 0.3),
        (768, 160, 1152, 0.3),  # published 168 px: 10 patches of 16, and 8 px that its model drops
        (768, 224, 1152, 0.05),
        (768, 336, 1152, 0.05),
    ]


def test_sizes_beyond_the_pictures_are_left_out_or_refused():
    assert [one.global_px for one in highres_sizes(32, 16, 8, 95)] == [64]
    assert [one.global_px for one in highres_sizes(32, 16, 8, 96)] == [64, 96, 96, 96, 96]
    with pytest.raises(UsageError, match="have 60 px, and the smallest high resolution of a run at 32 px is 64 px"):
        highres_sizes(32, 16, 8, 60)


# --- golden curves ---


def hundred_steps(folder):
    """Losses of 100 steps of each stage, at sizes that cost 20 ms a step; all that is random or kept takes part."""
    config = tiny_config(draw_pictures(folder / "pictures", count=10))
    config = dataclasses.replace(
        config,
        model=dataclasses.replace(config.model, depth=1),
        data=dataclasses.replace(config.data, batch_size=3, crops=CropConfig(global_px=16, local_px=8, num_locals=1)),
    )
    run_to(config, folder / "run")
    curves = {}
    for name in STAGE_RECIPES:
        results = []
        stage = dataclasses.replace(
            stage_config(name, config, STEPS, picture_px=48), save=SaveConfig(minutes=0, milestones=0)
        )
        watch = lambda step, result, speed, kept=results: kept.append(result)  # noqa: E731
        run_stage(stage, folder / name, folder / "run", anchor_step=5, on_step=watch)
        curves[name] = [{"loss": r.loss, "grad_norm": r.grad_norm, **r.values} for r in results]
    return curves


def test_a_hundred_steps_of_each_stage_equal_the_committed_ones(tmp_path):
    """To renew after a change that is meant to change training: `python -m tests.train.test_stages`."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        curves = hundred_steps(tmp_path)
    finally:
        torch.set_num_threads(threads)
    golden = json.loads(GOLDEN.read_text())
    for name in STAGE_RECIPES:
        assert len(curves[name]) == len(golden[name]) == STEPS
        for step, (row, expected) in enumerate(zip(curves[name], golden[name], strict=True)):
            # Rounding grows from step to step; a mistake in a term shows in the first ones.
            tight = 1e-4 if step < 20 else 5e-3
            assert row == pytest.approx(expected, rel=tight, abs=1e-5), f"{name}, step {step}"


if __name__ == "__main__":
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        GOLDEN.write_text(json.dumps(hundred_steps(Path(folder))) + "\n")
