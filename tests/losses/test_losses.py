"""Every loss against its slow loop, and the properties that its formula promises."""

import math
import threading

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from opendino.losses import dino_loss, ibot_loss, koleo_loss, sinkhorn
from tests.oracles.losses import dino_loop, ibot_loop, koleo_loop, sinkhorn_loop


def rand(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(("n", "k", "temperature"), [(6, 4, 0.07), (3, 9, 0.04), (1, 5, 0.1)])
def test_sinkhorn_equals_loop(n, k, temperature):
    logits = rand(n, k) * 0.2
    torch.testing.assert_close(
        sinkhorn(logits, temperature), torch.tensor(sinkhorn_loop(logits.tolist(), temperature)), rtol=1e-4, atol=1e-6
    )


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 12), st.integers(2, 12), st.floats(0.01, 50), st.integers(0, 100))
def test_sinkhorn_rows_sum_to_one_and_nothing_overflows(n, k, scale, seed):
    probs = sinkhorn(rand(n, k, seed=seed) * scale, 0.04)
    assert torch.isfinite(probs).all()
    torch.testing.assert_close(probs.sum(dim=1), torch.ones(n))


def test_sinkhorn_balances_prototypes():
    logits = rand(512, 8) * 0.1 + torch.arange(8) * 0.3  # one prototype far ahead of the others
    usage = sinkhorn(logits, 0.5, iterations=50).mean(dim=0)
    torch.testing.assert_close(usage, torch.full((8,), 1 / 8), rtol=1e-3, atol=1e-4)


def test_sinkhorn_over_two_ranks_equals_one():
    logits = rand(8, 5) * 0.1
    halves = logits.chunk(2)
    # Two simulated ranks in lockstep: threads that meet at a barrier for each sum.
    barrier, box, results = threading.Barrier(2), {}, {}

    def rank(r):
        def reduce(combine):
            def collective(x):
                box[r] = x
                barrier.wait()
                result = combine(box[0], box[1])
                barrier.wait()
                return result

            return collective

        results[r] = sinkhorn(halves[r], 0.07, all_sum=reduce(torch.add), all_max=reduce(torch.maximum))

    threads = [threading.Thread(target=rank, args=(r,)) for r in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    torch.testing.assert_close(torch.cat([results[0], results[1]]), sinkhorn(logits, 0.07))


@pytest.mark.parametrize("num_locals", [0, 3])
def test_dino_equals_loop(num_locals):
    student, prototypes, teacher = rand(2 + num_locals, 3, 4), rand(5, 4, seed=2), rand(2, 3, 5, seed=1).softmax(-1)
    logits = (student @ prototypes.T).tolist()
    found = dino_loss(student, prototypes, teacher, 3).item()
    pairs = 2 + 2 * num_locals
    expected = dino_loop(logits[:2], teacher.tolist(), ignore_diagonal=True) * 2 / pairs
    locals_ = dino_loop(logits[2:], teacher.tolist()) * 2 * num_locals / pairs if num_locals else 0.0
    assert found == pytest.approx(expected + locals_, rel=1e-5)
    halved = dino_loss(student, prototypes, teacher, 3, local_weight=0.5).item()
    assert halved == pytest.approx(expected + 0.5 * locals_, rel=1e-5)


def test_dino_of_a_uniform_student_is_ln_k():
    student = torch.zeros(4, 3, 2)
    assert dino_loss(student, rand(7, 2), rand(2, 3, 7).softmax(-1), 3).item() == pytest.approx(math.log(7), rel=1e-6)


def test_ibot_equals_loop():
    crop_of_patch = [0, 0, 0, 2, 2]
    student, prototypes, teacher = rand(5, 4), rand(6, 4, seed=2), rand(5, 6, seed=1).softmax(-1)
    weights = torch.tensor([1 / 3, 1 / 3, 1 / 3, 1 / 2, 1 / 2])
    expected = ibot_loop((student @ prototypes.T).tolist(), teacher.tolist(), crop_of_patch, num_crops=4)
    found = ibot_loss(student, prototypes, teacher.__getitem__, weights, 4)
    assert found.item() == pytest.approx(expected, rel=1e-5)


def test_ibot_without_masked_patches_is_zero():
    assert ibot_loss(torch.zeros(0, 4), rand(5, 4), torch.zeros(0, 5).__getitem__, torch.zeros(0), 2).item() == 0


@pytest.mark.parametrize("batch", [2, 5, 16, 17, 40])
def test_koleo_equals_loop(batch):
    features = rand(batch, 6, seed=batch)
    assert koleo_loss(features).item() == pytest.approx(koleo_loop(features.tolist()), rel=1e-5)


def test_koleo_is_finite_for_equal_and_for_single_samples():
    for features in (torch.ones(4, 3), torch.zeros(4, 3), torch.ones(1, 3)):
        features.requires_grad_()
        loss = koleo_loss(features)
        assert torch.isfinite(loss)
        if loss.requires_grad:
            loss.backward()
            assert torch.isfinite(features.grad).all()


def test_koleo_gradient_spreads_neighbours():
    features = torch.tensor([[1.0, 0.0], [1.0, 0.1], [-1.0, 0.0]], requires_grad=True)
    before = koleo_loss(features)
    before.backward()
    assert koleo_loss(features.detach() - 0.1 * features.grad) < before


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_losses_compute_in_fp32(dtype):
    assert koleo_loss(rand(4, 3).to(dtype)).dtype == torch.float32
    assert dino_loss(rand(2, 2, 3).to(dtype), rand(4, 3), rand(2, 2, 4).softmax(-1), 2).dtype == torch.float32
    assert sinkhorn(rand(4, 3).to(dtype), 0.1).dtype == torch.float32
