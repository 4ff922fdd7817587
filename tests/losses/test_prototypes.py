"""The chunked loss and targets against the plain ones, which hold all logits at once."""

import pytest
import torch

from opendino.losses import balanced_targets, prototype_loss, prototypes, sinkhorn


def rand(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(params=[3, 1024], ids=["chunks of 3", "one chunk"])
def chunks(request, monkeypatch):
    monkeypatch.setattr(prototypes, "MAX_CHUNK_ROWS", request.param)


def plain_loss(features, rows, targets, weights):
    logits = features @ rows.T
    return -((logits / 0.1).log_softmax(-1) * targets).sum(-1) @ weights


def gradients(loss, features, rows, targets, weights, factor=1.0):
    features, rows = features.clone().requires_grad_(), rows.clone().requires_grad_()
    value = loss(features, rows, targets, weights)
    (factor * value).backward()
    return value.detach(), features.grad, rows.grad


@pytest.mark.usefixtures("chunks")
def test_loss_and_gradients_equal_the_plain_ones():
    features, rows, weights = rand(10, 6) / 3, rand(40, 6, seed=1) / 3, rand(10, seed=2).abs()
    targets = rand(10, 40, seed=3).softmax(-1)

    def chunked(features, rows, targets, weights):
        return prototype_loss(features, rows, targets.__getitem__, weights)

    expected = gradients(plain_loss, features, rows, targets, weights, factor=2.5)
    found = gradients(chunked, features, rows, targets, weights, factor=2.5)
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)


@pytest.mark.usefixtures("chunks")
def test_gradients_are_those_of_finite_differences():
    features, rows = rand(4, 3).double().requires_grad_(), rand(5, 3, seed=1).double().requires_grad_()
    targets, weights = rand(4, 5, seed=2).double().softmax(-1), rand(4, seed=3).double().abs()
    value = prototype_loss(features, rows, targets.float().__getitem__, weights, temperature=1.0)
    value.backward()
    for tensor in (features, rows):
        for place in ((0, 0), (3, 2)):
            ends = []
            for step in (1e-4, -1e-4):
                moved = tensor.detach().clone()
                moved[place] += step
                pair = (moved, rows.detach()) if tensor is features else (features.detach(), moved)
                logits = pair[0] @ pair[1].T
                ends.append(-(logits.log_softmax(-1) * targets).sum(-1) @ weights)
            assert tensor.grad[place].item() == pytest.approx(((ends[0] - ends[1]) / 2e-4).item(), rel=1e-3, abs=1e-5)


@pytest.mark.usefixtures("chunks")
def test_targets_equal_sinkhorn_on_all_logits():
    features, rows = rand(10, 6), rand(40, 6, seed=1) / 5
    targets = balanced_targets(features, rows, 0.07)
    assert (targets.scores is None) == (prototypes.MAX_CHUNK_ROWS < 10)
    expected = sinkhorn(features @ rows.T, 0.07)
    torch.testing.assert_close(targets[0:10], expected, rtol=1e-5, atol=1e-7)
    order = torch.tensor([7, 2, 2])
    torch.testing.assert_close(targets[order], expected[order], rtol=1e-5, atol=1e-7)


@pytest.mark.usefixtures("chunks")
def test_products_are_in_the_dtype_of_autocast_and_sums_in_fp32():
    features, rows = (rand(10, 6) / 3).requires_grad_(), (rand(40, 6, seed=1) / 3).requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        targets = balanced_targets(features.detach(), rows.detach(), 0.07)
        loss = prototype_loss(features, rows, targets.__getitem__, torch.ones(10))
    loss.backward()
    assert targets.features.dtype == torch.bfloat16 and targets[0:2].dtype == torch.float32
    assert loss.dtype == features.grad.dtype == rows.grad.dtype == torch.float32
    exact = balanced_targets(features.detach(), rows.detach(), 0.07)[0:10]
    logits = features @ rows.T
    assert loss.item() == pytest.approx(plain_loss(features, rows, exact, torch.ones(10)).item(), rel=0.02)
    assert torch.isfinite(logits).all()
