"""Distillation: losses against slow loops, one look of the teacher for all students, each student as if alone."""

import dataclasses
import multiprocessing
import os

import pytest
import torch

from opendino.errors import UsageError
from opendino.losses import sinkhorn
from opendino.models.stochastic_depth import Part
from opendino.train.checkpoint import list_checkpoints
from opendino.train.loop import Watcher
from opendino.train.methods.distillation import DistillConfig
from opendino.train.teacher import resize_images, resize_map, spread_logits
from tests.oracles.losses import dino_loop, ibot_loop, koleo_loop, match_loop
from tests.train.runs import draw_pictures
from tests.train.students import build_job, distil, student_config, tiny_teacher

KINDS = ["vit", "convnext", "conv"]


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    return draw_pictures(tmp_path_factory.mktemp("pictures"), count=10, px=70)


def state(method):
    return {name: value.clone() for name, value in method.state_dict().items()}


def assert_equal(found, expected):
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert torch.equal(found[name], value), name


def plain(config):
    """Without what is drawn in a forward."""
    return dataclasses.replace(config, method=dataclasses.replace(config.method, koleo_weight=0.1))


@pytest.mark.parametrize("kind", ["vit", "convnext"])
def test_heads_objective_equals_the_slow_loops(pictures, kind):
    config = plain(student_config(pictures))
    teacher = tiny_teacher()
    (method,), lessons = build_job(config, [kind], teacher)
    method.student["backbone"].train(False)
    method.student["backbone"].train = lambda mode=True: method.student["backbone"]  # positions are not drawn anew
    batch = next(lessons.batches(2, 3))
    (terms,) = method.losses(batch, 2)
    crops, heads = batch.crops, teacher.heads
    temperature = config.method.temperature_schedule.at(2, config.steps)
    with torch.no_grad():
        seen = teacher.backbone(crops.global_crops)
        q = sinkhorn(spread_logits(heads.dino(seen.cls), heads.spread), temperature).view(2, 4, -1)
        g = method.student["backbone"](crops.global_crops)
        small = method.student["backbone"](crops.local_crops)
        head = method.student["dino_head"]
        dino_global = dino_loop(head(g.cls).view(2, 4, -1).tolist(), q.tolist(), ignore_diagonal=True)
        dino_local = dino_loop(head(small.cls).view(2, 4, -1).tolist(), q.tolist())
        # 2 pairs of globals, 4 of locals with globals
        assert terms.values["dino"].item() == pytest.approx((2 * dino_global + 4 * dino_local) / 6, rel=1e-4)
        koleo = sum(koleo_loop(view.tolist(), group_size=2) for view in g.cls.view(2, 4, -1))
        assert terms.values["koleo"].item() == pytest.approx(koleo, rel=1e-4)
        grid = tuple(g.patches.shape[1:3])
        masks = batch.ibot[grid].masks
        wanted = sinkhorn(heads.ibot(resize_map(seen.patches, grid)[masks]), temperature)
        # The student sees every patch: its outputs at the masked places come from the unmasked forward.
        predicted = method.student["ibot_head"](g.patches[masks])
        crop_of = [crop for crop, mask in enumerate(masks) for _ in range(int(mask.sum()))]
        ibot = ibot_loop(predicted.tolist(), wanted.tolist(), crop_of, 8)
    assert terms.values["ibot"].item() == pytest.approx(ibot, rel=1e-4)
    weighted = terms.values["dino"] + 0.1 * terms.values["koleo"] + terms.values["ibot"]
    assert terms.total.item() == pytest.approx(weighted.item(), rel=1e-5)


@pytest.mark.parametrize("kind", ["vit", "convnext"])
@pytest.mark.parametrize("match", ["cosine", "smooth_l1"])
def test_match_objective_equals_the_slow_loops(pictures, kind, match):
    config = student_config(pictures, objective="match")
    distill = dataclasses.replace(config.distill, match=match, cls_weight=0.5, patch_weight=2.0)
    config = dataclasses.replace(config, distill=distill)
    teacher = tiny_teacher()
    (method,), lessons = build_job(config, [kind], teacher)
    method.student["backbone"].train(False)
    method.student["backbone"].train = lambda mode=True: method.student["backbone"]
    batch = next(lessons.batches(0, 1))
    (terms,) = method.losses(batch, 0)
    with torch.no_grad():
        seen = teacher.backbone(batch.crops.global_crops)
        found = method.student["backbone"](batch.crops.global_crops)
        cls = ((seen.cls - method.cls_mean) / method.cls_std).tolist()
        expected_cls = match_loop(method.student["cls_projector"](found.cls).tolist(), cls, match)
        side = found.patches.shape[1]
        # A grid that divides the teacher's is reached by a triangle filter; equal grids by nothing at all.
        patches = (resize_map(seen.patches, (side, side)) - method.patch_mean) / method.patch_std
        projected = method.student["patch_projector"](found.patches)
        expected = match_loop(projected.flatten(0, 2).tolist(), patches.flatten(0, 2).tolist(), match)
    assert terms.values["match_cls"].item() == pytest.approx(expected_cls, rel=1e-4)
    assert terms.values["match_patches"].item() == pytest.approx(expected, rel=1e-4)
    assert terms.total.item() == pytest.approx(0.5 * expected_cls + 2 * expected, rel=1e-4)


def test_a_map_is_resized_by_averaging_and_keeps_constants_and_slopes():
    y, x = torch.meshgrid(torch.arange(8.0), torch.arange(8.0), indexing="ij")
    tokens = torch.stack([torch.ones(8, 8), y, x], dim=-1)[None]
    small = resize_map(tokens, (2, 2))
    assert torch.allclose(small[..., 0], torch.ones(1, 2, 2))
    # Triangle filter: the borders pull inwards, the middle of the slope stays, and no place is skipped.
    assert small[0, 0, 0, 1] == small[0, 0, 1, 1] and small[0, 1, 0, 1] + small[0, 0, 0, 1] == pytest.approx(7)
    one_hot = torch.zeros(1, 8, 8, 1)
    one_hot[0, 5, 2] = 1
    assert resize_map(one_hot, (2, 2)).min() >= 0 and resize_map(one_hot, (2, 2)).sum() > 0
    assert resize_map(tokens, (8, 8)) is tokens
    large = resize_map(tokens, (16, 16))
    assert large.shape == (1, 16, 16, 3) and torch.allclose(large[..., 0], torch.ones(1, 16, 16))


@pytest.mark.parametrize("objective", ["heads", "match"])
def test_three_students_share_one_look_and_each_equals_itself_alone(pictures, tmp_path, objective):
    config = student_config(pictures, objective=objective)
    looked = []

    def counting():
        teacher = tiny_teacher()
        forward = teacher.backbone.forward
        teacher.backbone.forward = lambda images, **more: looked.append(len(images)) or forward(images, **more)
        return teacher

    together = distil(config, KINDS, tmp_path / "job", counting())
    # 6 steps of 4 pictures, two global views each; 8 more where `build_job` measures them.
    assert sum(looked) - 8 == 6 * 4 * 2
    for kind, method in zip(KINDS, together, strict=True):
        (alone,) = distil(config, [kind], tmp_path / "alone")
        for name, value in alone.state_dict().items():
            torch.testing.assert_close(method.state_dict()[name], value, rtol=1e-5, atol=1e-5, msg=name)


def test_students_see_every_patch(pictures):
    config = student_config(pictures)
    (method,), lessons = build_job(config, ["vit"])
    given = []
    forward = method.student["backbone"].forward_crops
    method.student["backbone"].forward_crops = lambda groups, masks, part: (
        given.append(masks) or forward(groups, masks, part)
    )
    list(method.losses(next(lessons.batches(0, 1)), 0))
    assert given == [[None, None]]


@pytest.mark.parametrize("objective", ["heads", "match"])
def test_micro_batches_add_up_to_the_whole_batch(pictures, objective):
    config = student_config(pictures, objective=objective)
    gradients = []
    for size in (0, 2):
        changed = dataclasses.replace(config, method=dataclasses.replace(config.method, micro_batch=size))
        (method,), lessons = build_job(changed, ["vit"])
        torch.manual_seed(0)
        for terms in method.losses(next(lessons.batches(0, 1)), 0):
            terms.total.backward()
        gradients.append({name: p.grad for name, p in method.student.named_parameters() if p.grad is not None})
    assert gradients[0].keys() == gradients[1].keys()
    for name, value in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], value, rtol=1e-4, atol=1e-6, msg=name)


def test_a_batch_is_the_same_whichever_way_it_is_reached(pictures):
    config = student_config(pictures)
    _, straight = build_job(config, ["vit"])
    _, mixed = build_job(config, ["vit"])
    expected = dict(enumerate(straight.batches(0, 5)))
    ahead, behind = mixed.batches(2, 5), mixed.batches(0, 5)
    order = [(2, ahead), (0, behind), (1, behind), (2, behind), (3, ahead), (3, behind), (4, behind), (4, ahead)]
    for step, stream in order:
        batch = next(stream)
        assert torch.equal(batch.cls, expected[step].cls) and torch.equal(batch.dino, expected[step].dino)
    assert len(mixed._streams) == 1 and len(mixed._newest) == 1


@pytest.mark.parametrize("objective", ["heads", "match"])
def test_bf16_stays_near_fp32(pictures, tmp_path, objective):
    losses = {}
    for precision in ("fp32", "bf16"):
        config = student_config(pictures, steps=2, objective=objective, precision=precision)
        kept = []
        keep = {"vit": lambda step, result, speed, kept=kept: kept.append(result.loss)}
        distil(config, ["vit"], tmp_path / precision, on_step=keep)
        losses[precision] = kept
    assert losses["bf16"] == pytest.approx(losses["fp32"], rel=0.05) and losses["bf16"] != losses["fp32"]


def test_teacher_heads_and_average_get_no_gradient_and_the_average_follows(pictures):
    config = student_config(pictures)
    (method,), lessons = build_job(config, ["conv"])
    teacher = method._teacher[0]
    before = [parameter.clone() for parameter in method.average.parameters()]
    for terms in method.losses(next(lessons.batches(0, 1)), 0):
        terms.total.backward()
    with torch.no_grad():
        for parameter in method.student.parameters():
            parameter += 1
    method.after_step(0)
    for old, new, student in zip(before, method.average.parameters(), method.student.parameters(), strict=True):
        torch.testing.assert_close(new, 0.9 * old + 0.1 * student)
    frozen = [*teacher.backbone.parameters(), *teacher.heads.dino.parameters(), *method.average.parameters()]
    assert all(parameter.grad is None and not parameter.requires_grad for parameter in frozen)
    assert not any("teacher" in name for name in method.state_dict())
    assert method.export() is method.average["backbone"]


def test_probe_changes_nothing(pictures):
    for objective in ("heads", "match"):
        (method,), _ = build_job(student_config(pictures, objective=objective), ["vit"])
        before = state(method)
        probe = method.probe(torch.randn(6, 3, 64, 64))
        assert probe.cls.shape == (6, 64)
        assert (probe.teacher_logits is None) == (objective == "match")
        assert_equal(state(method), before)


def test_kill_9_and_resume_equals_an_unbroken_job(pictures, tmp_path):
    config = student_config(pictures, steps=8, save=dataclasses.replace(student_config(pictures).save, steps=3))
    kinds = ["vit", "conv"]
    unbroken = distil(config, kinds, tmp_path / "unbroken")

    def child():
        os.environ["OPENDINO_FAULT"] = "loop.after_step:11=SIGKILL"
        distil(config, kinds, tmp_path / "killed")

    process = multiprocessing.get_context("fork").Process(target=child)
    process.start()
    process.join()
    assert process.exitcode == -9
    assert [list_checkpoints(tmp_path / "killed" / kind / "checkpoints")[-1][0] for kind in kinds] == [3, 3]
    for one, other in zip(distil(config, kinds, tmp_path / "killed"), unbroken, strict=True):
        assert_equal(state(one), state(other))


def test_a_student_that_joins_later_catches_up_alone(pictures, tmp_path):
    config = student_config(pictures)
    (first,) = distil(config, ["vit"], tmp_path)
    seen = []
    watch = {kind: [Watcher(1, lambda step, method, kind=kind: seen.append(kind))] for kind in ("vit", "conv")}
    both = distil(config, ["vit", "conv"], tmp_path, watchers=watch)
    assert set(seen) == {"conv"}
    assert_equal(state(both[0]), state(first))
    (alone,) = distil(config, ["conv"], tmp_path / "alone")
    assert_equal(state(both[1]), state(alone))


def test_sides_of_their_own(pictures):
    config = student_config(pictures)
    config = dataclasses.replace(config, distill=DistillConfig(student_px=32))
    (method,), lessons = build_job(config, ["vit"])
    batch = next(lessons.batches(0, 1))
    part = Part(0, 4, 4)
    whole, local = method._features(batch, [batch.crops.global_crops, batch.crops.local_crops], part)
    assert whole.patches.shape[1:3] == (4, 4) and local.patches.shape[1:3] == (2, 2)
    images = torch.randn(2, 3, 8, 8)
    assert resize_images(images, 0) is images and resize_images(images, 4).shape[-1] == 4


@pytest.mark.parametrize("objective", ["heads", "match"])
def test_sizes_that_take_turns_are_seen_by_all_in_proportion(pictures, objective):
    config = student_config(pictures, steps=12, objective=objective)
    crops = dataclasses.replace(config.data.crops, mix="64/32:0.5 128/64:0.5")
    config = dataclasses.replace(config, data=dataclasses.replace(config.data, crops=crops))
    config = dataclasses.replace(config, distill=dataclasses.replace(config.distill, student_px=32, teacher_px=128))
    teacher = tiny_teacher()
    seen, forward = [], teacher.backbone.forward
    teacher.backbone.forward = lambda images, **more: seen.append(images.shape[-1]) or forward(images, **more)
    (method,), lessons = build_job(config, ["vit"], teacher)
    expected = {"match_cls", "match_patches"} if objective == "match" else {"dino", "ibot", "koleo"}
    sides = set()
    for step, batch in enumerate(lessons.batches(0, 12)):
        side = batch.crops.global_crops.shape[-1]
        sides.add(side)
        assert seen[-1] == 2 * side and batch.scale == side / 64
        grid = (side // 2 // 8,) * 2
        assert set(batch.ibot if objective == "heads" else batch.patches) <= {grid}
        (terms,) = method.losses(batch, step)
        assert set(terms.values) | {"ibot"} == expected | {"ibot"} and torch.isfinite(terms.total)
    assert sides == {64, 128}


@pytest.mark.parametrize("wrong", [{"teacher_px": -1}, {"cls_weight": 0.0, "patch_weight": 0.0}])
def test_wrong_settings_are_refused(wrong):
    with pytest.raises(UsageError, match="distill"):
        DistillConfig(**wrong)
