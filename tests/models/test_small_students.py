"""The students that are not of the paper: small convolutions, the k-means first layer, and BatchNorm for reading."""

import math

import pytest
import torch

from opendino.errors import DataError, UsageError
from opendino.models import kmeans_stem
from opendino.models.batch_norm import batch_norms, calibrate
from opendino.models.conv_mini import ConvMiniConfig
from opendino.models.family import build_model
from opendino.models.kmeans_stem import CONTRAST_FLOOR, KMeansStem


@pytest.fixture(autouse=True)
def _few_patches(monkeypatch):
    monkeypatch.setattr(kmeans_stem, "SAMPLED_PATCHES", 4000)


def pictures(count=60, side=32):
    """Stripes of any direction and colour, normalised."""
    generator = torch.Generator().manual_seed(0)
    y, x = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    found = []
    for _ in range(count):
        angle, phase, scale = torch.rand(3, generator=generator) * torch.tensor([math.pi, 6.0, 1.0])
        wave = torch.sin((x * angle.cos() + y * angle.sin()) * (0.4 + scale) + phase)
        found.append(1.5 * wave * torch.rand(3, 1, 1, generator=generator))
    return torch.stack(found)


@pytest.mark.parametrize("changes", [{"stem": "layer"}, {"blocks": (-1, 1)}, {"dim": 0}, {"stem_width": 0}])
def test_impossible_configs_are_refused(changes):
    with pytest.raises(UsageError):
        ConvMiniConfig(**changes)


@pytest.mark.parametrize("name", ["conv_mini", "conv_kmeans"])
def test_stages_and_standardised_features(name):
    torch.manual_seed(0)
    model = build_model(name)
    x = torch.randn(64, 3, 32, 48)
    first, last = model.eval().intermediate(x, [1, 0])
    assert first.patches.shape[1:3] == (8, 12) and last.patches.shape == (64, 4, 6, model.dim)
    calibrate(model, [x])
    cls = model(x).cls
    alive = cls.std(0, correction=0) > 0.01  # a unit that never fires has nothing to standardise
    assert alive.float().mean() > 0.9
    # Not exactly 0 and 1: running variances count n - 1, batch ones n, and the difference travels through the layers.
    assert cls.mean(0).abs().max() < 0.05
    assert (cls.std(0)[alive] - 1).abs().max() < 0.05


def test_stem_equals_a_loop_over_windows():
    torch.manual_seed(0)
    stem = KMeansStem(5).eval()
    x = torch.randn(1, 3, 16, 16)
    padded = torch.nn.functional.pad(x, (2, 2, 2, 2), mode="replicate")
    full = torch.empty(5, 8, 8)
    for row in range(8):
        for column in range(8):
            window = padded[0, :, 2 * row : 2 * row + 6, 2 * column : 2 * column + 6]
            contrast = (window.var(correction=0) + CONTRAST_FLOOR).sqrt()
            response = (stem.conv.weight * window).sum((1, 2, 3)) / contrast
            full[:, row, column] = (response / (1 + stem.norm.eps) ** 0.5 + stem.norm.bias).relu()
    pooled = full.unflatten(1, (4, 2)).unflatten(3, (4, 2)).mean((2, 4))
    assert torch.allclose(stem(x)[0], pooled, atol=1e-4)


def test_fit_is_deterministic_and_made_of_the_pictures():
    weights = []
    for seed in (0, 0, 1):
        stem = KMeansStem(16)
        stem.fit(pictures(), seed)
        weights.append(stem.conv.weight.detach().clone())
    same, again, other = weights
    assert torch.equal(same, again) and not torch.equal(same, other)
    assert same.sum((1, 2, 3)).abs().max() < 1e-3 * same.abs().sum((1, 2, 3)).max()


def test_the_stem_does_not_care_for_contrast_or_brightness():
    stem = KMeansStem(16).eval()
    stem.fit(pictures(), 0)
    inner = (slice(None), slice(None), slice(1, -1), slice(1, -1))  # the zero border is no picture
    plain, changed = stem(pictures())[inner], stem(pictures() * 2 + 0.5)[inner]
    assert torch.nn.functional.cosine_similarity(plain, changed, dim=1).median() > 0.99


def test_fit_refuses_nothing_to_look_at():
    for images in (torch.zeros(0, 3, 32, 32), torch.zeros(2, 3, 4, 4), torch.zeros(3, 32, 32)):
        with pytest.raises(DataError):
            KMeansStem(4).fit(images, 0)
    stem = KMeansStem(4)
    stem.fit(torch.zeros(2, 3, 16, 16), 0)  # nothing but black: dull, not NaN
    assert all(parameter.isfinite().all() for parameter in stem.parameters())


def test_calibration_takes_the_mean_over_batches_and_leaves_eval_mode():
    torch.manual_seed(0)
    model = build_model("conv_mini")
    batches = [torch.randn(4, 3, 16, 16), torch.randn(4, 3, 16, 16) * 2 + 1]
    calibrate(model, batches)
    assert not any(module.training for module in model.modules())
    first = model.stem[0]
    means = torch.stack([first[0](batch).mean((0, 2, 3)) for batch in batches])
    assert torch.allclose(first[1].running_mean, means.mean(0), atol=1e-5)
    assert all(norm.momentum == 0.1 for norm in batch_norms(model))
    assert batch_norms(build_model("vit_tiny", depth=1)) == []
