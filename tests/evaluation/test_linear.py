"""The linear probe against scikit-learn on the same penalty, and its choice of penalty."""

import numpy as np
import pytest
import torch

from opendino.errors import ShapeError, UsageError
from opendino.evaluation.linear import fit_linear, score_linear


def sample(n=300, dim=10, classes=4, noise=1.5, seed=0):
    generator = torch.Generator().manual_seed(seed)
    centres = torch.randn(classes, dim, generator=generator)
    labels = torch.arange(n) % classes
    scale = torch.logspace(-2, 2, dim)
    return (centres[labels] + noise * torch.randn(n, dim, generator=generator)) * scale + 5, labels


@pytest.mark.parametrize("penalty", [1.0, 0.03, 0.001])
def test_equals_scikit_learn(penalty):
    linear_model = pytest.importorskip("sklearn.linear_model")
    features, labels = sample()
    x = features.double().numpy()
    standardised = (x - x.mean(0)) / x.std(0)
    oracle = linear_model.LogisticRegression(C=1 / (penalty * len(x)), tol=1e-10, max_iter=10_000)
    oracle.fit(standardised, labels.numpy())
    model = fit_linear(features, labels, penalty)
    np.testing.assert_allclose(model.weight.numpy().T, oracle.coef_, atol=2e-3)
    # Only differences of biases matter: a common shift leaves all probabilities as they are.
    ours, theirs = model.bias.numpy(), oracle.intercept_
    np.testing.assert_allclose(ours - ours.mean(), theirs - theirs.mean(), atol=2e-3)
    # A picture on the border of two classes may fall either way.
    assert (model.predict(features).numpy() == oracle.predict(standardised)).mean() >= 0.99


def test_weights_only_are_penalised():
    labels = torch.tensor([0] * 90 + [1] * 10)
    model = fit_linear(torch.randn(100, 3, generator=torch.Generator().manual_seed(0)), labels, penalty=1e4)
    shares = model.bias.softmax(0)
    torch.testing.assert_close(shares, torch.tensor([0.9, 0.1]), atol=1e-3, rtol=0)


def test_learns_what_is_separable_and_reports_the_choice():
    features, labels = sample(n=400, noise=0.3)
    score = score_linear(features[:300], labels[:300], features[300:], labels[300:])
    assert score.percent > 95
    assert score.penalty in score.held_out and score.held_out[score.penalty] == max(score.held_out.values())
    assert score.correct.shape == (100,) and (score.predictions == labels[300:].numpy()).mean() > 0.95


def test_queries_do_not_touch_the_choice():
    features, labels = sample()
    first = score_linear(features[:200], labels[:200], features[200:], labels[200:])
    second = score_linear(features[:200], labels[:200], features[200:] * 0, labels[200:].flip(0))
    assert first.held_out == second.held_out and first.penalty == second.penalty


def test_pure_noise_takes_a_strong_penalty_and_scores_chance():
    generator = torch.Generator().manual_seed(0)
    features, labels = torch.randn(400, 100, generator=generator), torch.randint(2, (400,), generator=generator)
    score = score_linear(features[:200], labels[:200], features[200:], labels[200:])
    assert 35 < score.percent < 65


def test_single_pictures_and_constant_dimensions_work():
    features = torch.eye(3).repeat(1, 2)
    features[:, 5] = 7
    score = score_linear(features, torch.arange(3), features, torch.arange(3))
    assert score.held_out == {} and score.percent == 100


def test_runs_inside_no_grad():
    features, labels = sample(n=40)
    with torch.no_grad():
        assert fit_linear(features, labels, 0.1).weight.abs().sum() > 0


def test_wrong_input_is_refused():
    features, labels = sample(n=40)
    with pytest.raises(ShapeError):
        fit_linear(features, labels[:3], 0.1)
    with pytest.raises(UsageError):
        fit_linear(features, labels - 1, 0.1)
