"""Gram anchoring in a run: its term, its weight over the published steps, copies, refreshes, and what is refused."""

import dataclasses

import pytest
import torch

from opendino.data.config import CropConfig, DataConfig
from opendino.errors import UsageError
from opendino.losses import gram_loss
from opendino.models.family import build_model
from opendino.train.config import RunConfig
from opendino.train.methods.gram_teacher import GramConfig, GramTeacher
from opendino.train.methods.self_distillation import SelfDistillation, SelfDistillationConfig
from tests.train.test_self_distillation import CONFIG, B, crops, method

GRAM = dataclasses.replace(CONFIG, koleo_weight=0.0, gram=GramConfig(weight=2.0))


def gram_crops(seed=3):
    larger = torch.randn(2 * B, 3, 64, 64, generator=torch.Generator().manual_seed(seed))
    return dataclasses.replace(crops(), gram_crops=larger)


def moved(built):
    """Weights of the frozen teacher unlike all others, so that roles cannot be mixed up unseen."""
    torch.manual_seed(9)
    with torch.no_grad():
        for parameter in built.gram_teacher.backbone.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return built


@pytest.mark.parametrize("patches", ["all", "masked", "visible"])
def test_the_term_compares_masked_global_crops_with_the_frozen_teachers_larger_ones(patches):
    level = "image" if patches == "all" else "batch"
    gram = GramConfig(weight=2.0, local_weight=0.5, patches=patches, level=level)
    built, batch = moved(method(dataclasses.replace(GRAM, gram=gram))), gram_crops()
    (terms,) = built.losses(batch, 4)
    student = built.student["backbone"](batch.global_crops, mask=batch.masks).patches
    anchor = built.gram_teacher.backbone(batch.gram_crops).patches
    assert student.shape[1:3] == (4, 4) and anchor.shape[1:3] == (8, 8)
    chosen = {"all": None, "masked": batch.masks, "visible": ~batch.masks}[patches]
    expected = gram_loss(student, anchor, level=level, chosen=chosen)
    assert terms.values["gram"].item() == pytest.approx(expected.item(), rel=1e-4)
    (plain,) = method(dataclasses.replace(GRAM, gram=GramConfig())).losses(batch, 4)
    (halved,) = moved(method(dataclasses.replace(GRAM, gram=dataclasses.replace(gram, weight=1e-12)))).losses(batch, 4)
    assert halved.values["dino"] < plain.values["dino"]  # 6 of 8 pairs weigh half
    assert terms.total.item() == pytest.approx((halved.total + 2 * expected).item(), rel=1e-4)


def test_the_average_as_gram_teacher_needs_no_copy_and_no_crops():
    built = method(dataclasses.replace(GRAM, gram=GramConfig(weight=1.0, teacher="average")))
    batch = crops()
    (terms,) = built.losses(batch, 0)
    student = built.student["backbone"](batch.global_crops, mask=batch.masks).patches
    expected = gram_loss(student, built.teacher["backbone"](batch.global_crops).patches)
    assert terms.values["gram"].item() == pytest.approx(expected.item(), rel=1e-4)
    assert not [name for name in built.state_dict() if "gram" in name]


def test_micro_batches_add_up():
    whole, parts = (moved(method(dataclasses.replace(GRAM, micro_batch=size))) for size in (0, 1))
    for built in (whole, parts):
        for terms in built.losses(gram_crops(), 0):
            terms.total.backward()
    for (name, a), b in zip(whole.student.named_parameters(), parts.student.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad, rtol=1e-4, atol=1e-6, msg=name)
    assert all(parameter.grad is None for parameter in whole.gram_teacher.parameters())


def test_without_gram_there_is_not_one_tensor_more():
    built = method()
    assert built.gram_teacher is None and not [name for name in built.state_dict() if "gram" in name]
    assert not [name for name in built.scalars(0) if "gram" in name or "local" in name]


def test_weights_at_the_published_steps():
    """7B: 0 until 1M, half a cosine to 2.0 in 1,000 steps; local crops 1 -> 0.5 at the same time. High resolution: 1.5
    and 0.5 from the first step."""
    config = GramConfig(weight=2.0, start=1_000_000, ramp=1_000, local_weight=0.5)
    teacher = GramTeacher(torch.nn.Linear(1, 1), config, 1_200_000)
    steps = [0, 999_999, 1_000_000, 1_000_999, 1_001_000, 1_199_999]
    assert [teacher.weight(step) for step in steps] == pytest.approx([0, 0, 0, 2, 2, 2])
    assert [teacher.local_weight(step) for step in steps] == pytest.approx([1, 1, 1, 0.5, 0.5, 0.5])
    assert teacher.weight(1_000_499) + teacher.weight(1_000_500) == pytest.approx(2.0)
    highres = GramTeacher(torch.nn.Linear(1, 1), GramConfig(weight=1.5, local_weight=0.5), 30_000)
    assert highres.weight(0) == 1.5 and highres.local_weight(0) == 0.5


def test_refreshes_at_the_published_steps():
    """Copies once 1,010,000, 1,020,000 and 1,030,000 steps are done, three at most; here in thousands of steps."""
    average = torch.nn.Linear(1, 1)
    teacher = GramTeacher(average, GramConfig(weight=2.0, refresh_every=10, first_refresh=1010), 1200)
    taken = []
    for step in range(1200):
        before = teacher.backbone.weight.clone()
        with torch.no_grad():
            average.weight.fill_(step)
        teacher.after_step(step, average)
        if not torch.equal(before, teacher.backbone.weight):
            taken.append(step + 1)
    assert taken == [1010, 1020, 1030] and int(teacher.refreshes) == 3


def test_a_first_copy_that_a_failed_step_left_out_is_taken_later_and_once():
    average = torch.nn.Linear(1, 1)
    config = GramConfig(weight=2.0, start=10, copy_at=10, refresh_every=5, max_refreshes=1)
    teacher = GramTeacher(average, config, 100)
    taken = []
    for step in [*range(9), *range(11, 40)]:  # steps 9 and 10 were not finite
        with torch.no_grad():
            average.weight.fill_(step)
        before = float(teacher.backbone.weight)
        teacher.after_step(step, average)
        if float(teacher.backbone.weight) != before:
            taken.append(step + 1)
    assert taken == [12, 15]


def test_a_copy_takes_buffers_too():
    torch.manual_seed(0)
    config = dataclasses.replace(GRAM, ibot_weight=0.0, gram=GramConfig(weight=1.0, copy_at=1, start=1))
    built = SelfDistillation(build_model("conv_mini", stem_width=8, width=8, dim=16, inner=8), config, 10)
    for _, buffer in built.teacher["backbone"].named_buffers():
        buffer.add_(3)
    built.after_step(0)
    average, frozen = built.teacher["backbone"].state_dict(), built.gram_teacher.backbone.state_dict()
    assert all(torch.equal(average[name], frozen[name]) for name in average)


def test_a_student_of_convolutions_anchors_by_the_statistics_of_the_batch():
    torch.manual_seed(0)
    config = dataclasses.replace(GRAM, ibot_weight=0.0)
    built = SelfDistillation(build_model("conv_mini", stem_width=8, width=8, dim=16, inner=8), config, 10)
    batch = dataclasses.replace(gram_crops(), masks=None)
    (before,) = built.losses(batch, 0)
    for module in built.gram_teacher.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.fill_(3.0)
    (after,) = built.losses(batch, 0)
    assert before.values["gram"].item() == pytest.approx(after.values["gram"].item(), rel=1e-5)


@pytest.mark.parametrize(
    ("gram", "data", "changes", "words"),
    [
        ({"weight": 2.0}, {}, {}, r"gram_px: has no crops for the Gram teacher; add --data.crops.gram-px 448"),
        ({}, {"gram_px": 448}, {}, r"has Gram crops, but there is no Gram term; add --method.gram.weight 2"),
        ({"weight": 2.0}, {"mix": "64/32/96:1 96/32:1"}, {}, r"crops.mix: has no crops for the Gram teacher"),
        ({"weight": 1.0, "patches": "masked"}, {}, {}, r"need level batch.*--method.gram.level batch"),
        (
            {"weight": 1.0, "patches": "masked", "level": "batch"},
            {"gram_px": 448},
            {"ibot_weight": 0.0},
            r"student that sees no masks; a convolution has no tokens to mask",
        ),
        ({"weight": 1.0, "teacher": "average", "refresh_every": 5}, {}, {}, r"never copied or refreshed"),
        ({"local_weight": 0.5}, {}, {}, r"local_weight: is 0.5 without a Gram term"),
        ({"weight": -1.0}, {}, {}, r"method.gram.weight: must be 0 or more, got -1"),
    ],
)
def test_options_that_exclude_each_other_are_refused_in_words(gram, data, changes, words):
    with pytest.raises(UsageError, match=words):
        RunConfig(
            method=SelfDistillationConfig(gram=GramConfig(**gram), **changes), data=DataConfig(crops=CropConfig(**data))
        )


def test_micro_batches_of_level_batch_are_refused():
    config = SelfDistillationConfig(koleo_weight=0.0, micro_batch=4, gram=GramConfig(weight=1.0, level="batch"))
    with pytest.raises(UsageError, match=r"micro_batch 4: .*level batch; use --method.gram.level image"):
        config.check_batch(8)
    config.check_batch(4)


def test_a_weight_that_rises_before_the_copy_is_refused():
    with pytest.raises(UsageError, match=r"copy_at: the weight rises from 0.1, before the teacher is copied at 0.2"):
        GramTeacher(torch.nn.Linear(1, 1), GramConfig(weight=1.0, start=0.1, copy_at=0.2), 100)
