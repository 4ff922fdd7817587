"""Heads on frozen features: the one loop against a slow loop of plain torch, one pass for all, faults kept apart."""

import os
import signal

import pytest
import torch
import torch.nn.functional as F

from opendino.errors import ShapeError, StoppedError
from opendino.models.linear_heads import LinearHeads
from opendino.train.methods import head_fitting
from opendino.train.methods.head_fitting import Recipe, RowBatches, Setting, fit_heads

SETTINGS = [Setting(0.1, 0.0), Setting(0.01, 1e-3), Setting(1.0, 1e-5)]


def some_rows(count=60, seed=0):
    features = torch.randn(count, 5, generator=torch.Generator().manual_seed(seed)).double()
    return features, torch.arange(count) % 3


def new_heads(count):
    return LinearHeads(5, 3, count, batch_norm=True).double()


@pytest.mark.oracle
def test_the_rate_falls_along_the_published_cosine():
    optim = Recipe(4, 1, "sgd").optim
    factors = [optim.lr_schedule.at(step, 4) for step in range(4)]
    assert factors == pytest.approx([1, 0.853553, 0.5, 0.146447], abs=1e-6)


@pytest.mark.oracle
@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_a_head_trained_among_others_equals_it_alone(optimizer):
    features, labels = some_rows()

    def fit(chosen):
        return fit_heads(
            new_heads(len(chosen)), features, labels, F.cross_entropy, chosen, Recipe(25, 16, optimizer, 3)
        )

    together = fit(SETTINGS)
    for head, setting in enumerate(SETTINGS):
        alone = fit([setting])
        torch.testing.assert_close(together.one(features, head), alone.one(features, 0), rtol=0, atol=1e-12)
        torch.testing.assert_close(together(features)[head], together.one(features, head), rtol=0, atol=1e-12)


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_the_loop_equals_plain_torch(optimizer):
    """The same batches through torch's own optimizer and scheduler, one head after another."""
    features, labels = some_rows()
    fitted = fit_heads(new_heads(3), features, labels, F.cross_entropy, SETTINGS, Recipe(25, 16, optimizer))
    for head, setting in enumerate(SETTINGS):
        slow = new_heads(1)
        make = {"sgd": lambda **k: torch.optim.SGD(momentum=0.9, **k), "adamw": torch.optim.AdamW}[optimizer]
        rule = make(params=slow.parameters(), lr=setting.lr, weight_decay=setting.weight_decay)
        cosine = torch.optim.lr_scheduler.CosineAnnealingLR(rule, 25)
        for rows in RowBatches(features, labels, 16, 0).batches(0, 25):
            rule.zero_grad()
            F.cross_entropy(slow(rows.features)[0], rows.targets).backward()
            rule.step()
            cosine.step()
        torch.testing.assert_close(fitted.one(features, head), slow.eval().one(features, 0), rtol=0, atol=1e-9)


def test_a_grid_of_30_costs_one_pass():
    features, labels = some_rows()
    heads, seen = new_heads(30), []
    heads.register_forward_hook(lambda module, given, output: seen.append(len(given[0])))
    fit_heads(heads, features, labels, F.cross_entropy, SETTINGS * 10, Recipe(8, 15, "sgd"))
    assert sum(seen) == 2 * len(features)  # two epochs, whatever the number of heads


def test_heads_learn_what_is_linear():
    features = torch.randn(300, 4, generator=torch.Generator().manual_seed(1))
    labels = (features[:, 0] > 0).long()
    heads = fit_heads(
        LinearHeads(4, 2, 1), features, labels, F.cross_entropy, [Setting(0.5, 0)], Recipe(200, 64, "sgd")
    )
    assert (heads.one(features, 0).argmax(1) == labels).float().mean() > 0.97


def test_every_epoch_shows_each_row_once_in_another_order_and_any_step_can_be_asked_for():
    features, labels = some_rows(10)
    batches = RowBatches(features, labels, 4, seed=3)
    rows = [row for batch in batches.batches(0, 10) for row in batch.ids]
    epochs = [rows[start : start + 10] for start in range(0, 40, 10)]
    assert all(sorted(map(int, epoch)) == list(range(10)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 4
    assert [batch.ids for batch in batches.batches(7, 9)] == [tuple(rows[28:32]), tuple(rows[32:36])]


def test_a_head_that_diverges_stops_no_other():
    features, labels = some_rows()
    calls = []

    def loss(outputs, targets):
        calls.append(0)
        value = F.cross_entropy(outputs, targets)
        return value * float("inf") if len(calls) % 2 == 0 else value

    both = fit_heads(new_heads(2), features, labels, loss, [SETTINGS[0], Setting(0.01, 0.0)], Recipe(25, 16, "sgd"))
    alone = fit_heads(new_heads(1), features, labels, F.cross_entropy, SETTINGS[:1], Recipe(25, 16, "sgd"))
    torch.testing.assert_close(both.one(features, 0), alone.one(features, 0), rtol=0, atol=1e-12)
    assert torch.equal(both.weights[1], new_heads(1).weights[0])


def test_what_does_not_fit_is_refused():
    features, labels = some_rows()
    with pytest.raises(ShapeError, match="2 heads, 1 settings"):
        fit_heads(new_heads(2), features, labels, F.cross_entropy, SETTINGS[:1], Recipe(1, 1, "sgd"))
    with pytest.raises(ShapeError, match="59 targets"):
        fit_heads(new_heads(1), features, labels[1:], F.cross_entropy, SETTINGS[:1], Recipe(1, 1, "sgd"))


def test_stopping_says_that_heads_are_fitted_anew(monkeypatch):
    features, labels = some_rows()
    kept = []
    monkeypatch.setattr(
        head_fitting.tempfile, "TemporaryDirectory", _recorded(head_fitting.tempfile.TemporaryDirectory, kept)
    )

    def stop(done, total):
        if done == 2:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(StoppedError, match="the same command begins it again"):
        fit_heads(new_heads(1), features, labels, F.cross_entropy, SETTINGS[:1], Recipe(50, 16, "sgd"), progress=stop)
    assert kept and not any(os.path.exists(name) for name in kept)


def _recorded(kind, kept):
    def make(**arguments):
        folder = kind(**arguments)
        kept.append(folder.name)
        return folder

    return make
