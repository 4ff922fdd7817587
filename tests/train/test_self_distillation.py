"""The objective put together: parts, weights, micro-batches, targets and averages."""

import dataclasses

import pytest
import torch

from opendino.data.loader import Crops
from opendino.errors import UsageError
from opendino.losses import koleo_loss, sinkhorn
from opendino.models.family import build_model
from opendino.train.methods.self_distillation import SelfDistillation, SelfDistillationConfig

CONFIG = SelfDistillationConfig(prototypes=12, hidden=24, bottleneck=8, ibot_prototypes=10, koleo_group=2)
B = 4


def crops(seed=0, masked=(0, 3, 5)):
    generator = torch.Generator().manual_seed(seed)
    masks = torch.zeros(2 * B, 4, 4, dtype=torch.bool)
    for crop in masked:
        masks[crop].view(-1)[torch.randperm(16, generator=generator)[: 3 + crop]] = True
    return Crops(
        global_crops=torch.randn(2 * B, 3, 32, 32, generator=generator),
        local_crops=torch.randn(3 * B, 3, 16, 16, generator=generator),
        gram_crops=None,
        masks=masks,
        positions=torch.arange(B),
        ids=tuple("abcd"),
        bad=(),
    )


def method(config=CONFIG, steps=10, **model):
    torch.manual_seed(0)
    model = {"dim": 64, "depth": 2, "heads": 1, "hidden": 64, "registers": 1, "rope_rescale": None, **model}
    built = SelfDistillation(build_model("vit_tiny", **model), config, steps)
    with torch.no_grad():  # a teacher of its own, so that roles cannot be mixed up unseen
        for parameter in built.teacher.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    return built


def test_total_equals_the_formula_written_out():
    built, batch = method(), crops()
    (terms,) = built.losses(batch, step=4)
    config, student, teacher = CONFIG, built.student, built.teacher
    temperature = built.scalars(4)["teacher_temperature"]
    g = student["backbone"](batch.global_crops, mask=batch.masks)
    small = student["backbone"](batch.local_crops)
    target = teacher["backbone"](batch.global_crops)
    q = sinkhorn(teacher["dino_head"](target.cls), temperature).view(2, B, -1)

    def cross_entropy(logits, probs):
        return -(probs * (logits / 0.1).log_softmax(-1)).sum(-1)

    first, second = student["dino_head"](g.cls).view(2, B, -1)
    dino_global = (cross_entropy(first, q[1]) + cross_entropy(second, q[0])).mean() / 2
    local = student["dino_head"](small.cls).view(3, 1, B, -1)
    dino_local = cross_entropy(local, q[None]).mean()
    weights = (1 / batch.masks.sum((1, 2)).clamp_min(1))[:, None, None].expand(2 * B, 4, 4)[batch.masks]
    balanced = sinkhorn(teacher["ibot_head"](target.patches[batch.masks]), temperature)
    ibot = (cross_entropy(student["ibot_head"](g.patches[batch.masks]), balanced) * weights).sum() / (2 * B)
    koleo = koleo_loss(g.cls[:B], group_size=2) + koleo_loss(g.cls[B:], group_size=2)
    # 2 pairs of globals and 6 of locals against globals share the weight of the DINO term.
    expected = dino_global * 2 / 8 + dino_local * 6 / 8 + config.ibot_weight * ibot + config.koleo_weight * koleo
    assert terms.total.item() == pytest.approx(expected.item(), rel=1e-5)
    assert terms.values["ibot"].item() == pytest.approx(ibot.item(), rel=1e-5)


@pytest.mark.parametrize("size", [1, 2, 3])
def test_micro_batches_add_up_to_the_whole_batch(size):
    # Everything random is on. KoLeo needs its groups whole, so it is compared for their size alone.
    config = dataclasses.replace(CONFIG, koleo_weight=0.1 if size == 2 else 0.0)
    model = {"drop_path": 0.4, "rope_rescale": 2.0, "rope_jitter": 1.5, "rope_shift": 0.1, "layer_scale": 1.0}
    whole, parts = method(config, **model), method(dataclasses.replace(config, micro_batch=size), **model)
    values = []
    for built in (whole, parts):
        # At its start, 0, a mask token that no branch has touched has no direction, and its gradient no bounds.
        torch.nn.init.constant_(built.student["backbone"].mask_token[:, ::2], 0.5)
        torch.manual_seed(3)
        total = dict.fromkeys(("dino", "ibot", "koleo"), 0.0)
        for terms in built.losses(crops(), 0):
            terms.total.backward()
            total |= {name: total[name] + value.item() for name, value in terms.values.items()}
        values.append(total)
    assert values[0] == pytest.approx(values[1], rel=1e-5)
    for (name, a), b in zip(whole.student.named_parameters(), parts.student.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad, rtol=1e-5, atol=1e-5, msg=name)


def test_four_micro_batches_of_16_equal_a_batch_of_64():
    config = dataclasses.replace(CONFIG, koleo_group=16)
    model = {"drop_path": 0.2, "rope_rescale": 2.0, "rope_jitter": 1.5, "layer_scale": 1.0, "depth": 4}
    generator = torch.Generator().manual_seed(0)
    batch = Crops(
        global_crops=torch.randn(128, 3, 16, 16, generator=generator),
        local_crops=torch.randn(64, 3, 8, 8, generator=generator),
        gram_crops=None,
        masks=torch.rand(128, 2, 2, generator=generator) < 0.3,
        positions=torch.arange(64),
        ids=tuple(map(str, range(64))),
        bad=(),
    )
    found = []
    for size in (0, 16):
        built = method(dataclasses.replace(config, micro_batch=size), **model)
        torch.nn.init.constant_(built.student["backbone"].mask_token[:, ::2], 0.5)
        # CLS that are nearly one, as at their start or where every attention is dropped, have no nearest neighbour.
        with torch.no_grad():
            for parameter in built.student["backbone"].blocks.parameters():
                parameter.mul_(5)
        torch.manual_seed(3)
        loss = 0.0
        for terms in built.losses(batch, 0):
            terms.total.backward()
            loss += terms.total.item()
        found.append((loss, [parameter.grad for parameter in built.student.parameters()]))
    assert found[0][0] == pytest.approx(found[1][0], rel=1e-5)
    torch.testing.assert_close(found[0][1], found[1][1], rtol=1e-5, atol=1e-5)


def test_micro_batches_that_cut_through_koleo_groups_are_refused():
    config = SelfDistillationConfig(micro_batch=24, koleo_group=16)
    with pytest.raises(UsageError, match=r"24.*48.*--method.micro-batch 16"):
        config.check_batch(48)
    dataclasses.replace(config, koleo_weight=0.0).check_batch(48)
    dataclasses.replace(config, micro_batch=16).check_batch(64)
    with pytest.raises(UsageError, match="micro_batch 16"):  # the last 8 of 40 join the group before
        dataclasses.replace(config, micro_batch=16).check_batch(40)


def test_batch_norm_in_micro_batches_is_said_before_the_start():
    assert not list(method(dataclasses.replace(CONFIG, micro_batch=2)).remarks(4))
    (remark,) = method(dataclasses.replace(CONFIG, micro_batch=2, head_batch_norm=True)).remarks(4)
    assert "batch norm" in remark and "2 pictures" in remark


def test_a_batch_of_one_switches_the_spreading_term_off_and_stays_finite():
    batch = crops(masked=())
    one = dataclasses.replace(
        batch,
        global_crops=batch.global_crops[:2],
        local_crops=batch.local_crops[:3],
        masks=batch.masks[:2],
    )
    (terms,) = method().losses(one, 0)
    assert torch.isfinite(terms.total) and "koleo" not in terms.values


def test_no_masks_no_ibot_term():
    (terms,) = method().losses(crops(masked=()), 0)
    assert "ibot" not in terms.values


def test_teacher_gets_no_gradient_and_follows_as_an_average():
    built = method()
    for terms in built.losses(crops(), 0):
        terms.total.backward()
    assert all(parameter.grad is None for parameter in built.teacher.parameters())
    before = [parameter.clone() for parameter in built.teacher.parameters()]
    built.after_step(0)
    for old, new, student in zip(before, built.teacher.parameters(), built.student.parameters(), strict=True):
        torch.testing.assert_close(new, 0.992 * old + 0.008 * student)


def test_the_queue_keeps_the_newest_rows_and_leaves_the_balance_to_more_samples():
    built = method(dataclasses.replace(CONFIG, queue=12))
    assert built.queue.isnan().all()
    list(built.losses(crops(0), 0))
    first = built.queue[: 2 * B].clone()
    assert not first.isnan().any() and built.queue[2 * B :].isnan().all()
    list(built.losses(crops(1), 1))
    torch.testing.assert_close(built.queue[2 * B :], first[:4])


def test_spread_sets_the_scale_of_the_targets_whatever_the_head_gives():
    built = method(dataclasses.replace(CONFIG, target_spread=0.2))
    for scale in (1e-3, 10.0):
        spread = built._spread(torch.randn(50, 12) * scale + 5)
        assert spread.std().item() == pytest.approx(0.2, rel=1e-3)
        assert spread.mean(0).abs().max() < 1e-3


def test_probe_changes_nothing_and_export_is_the_averaged_backbone():
    built = method()
    state = {name: value.clone() for name, value in built.state_dict().items()}
    probe = built.probe(torch.randn(6, 3, 32, 32))
    assert probe.cls.shape == (6, 64) and probe.patches.shape == (6, 16, 64)
    assert probe.teacher_logits.shape == probe.student_logits.shape == (6, 12)
    assert all(torch.equal(value, built.state_dict()[name]) for name, value in state.items())
    assert built.export() is built.teacher["backbone"] and not built.export().training


def test_batch_norm_of_the_teacher_uses_the_batch_at_hand():
    torch.manual_seed(0)
    config = dataclasses.replace(CONFIG, ibot_weight=0.0)
    built = SelfDistillation(build_model("conv_mini", stem_width=8, width=8, dim=16, inner=8), config, 10)
    batch = dataclasses.replace(crops(), masks=None)
    (before,) = built.losses(batch, 0)
    for norm in built.teacher.modules():
        if isinstance(norm, torch.nn.BatchNorm2d):
            norm.running_mean.fill_(3.0)
    (after,) = built.losses(batch, 0)
    assert before.total.item() == pytest.approx(after.total.item(), rel=1e-6)
