"""The students that are not of the paper: small convolutions and the k-means first layer."""

import math

import pytest
import torch

from opendino.errors import DataError, UsageError
from opendino.models import kmeans_stem
from opendino.models.conv_mini import ConvMini, ConvMiniConfig
from opendino.models.family import build_model
from opendino.models.kmeans_stem import CONTRAST_FLOOR, KMeansStem, fit_stem


@pytest.fixture(autouse=True)
def _few_patches(monkeypatch):
    monkeypatch.setattr(kmeans_stem, "SAMPLED_PATCHES", 4000)


def pictures(count=60, side=32):
    """Stripes of any direction and colour, uint8."""
    generator = torch.Generator().manual_seed(0)
    y, x = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    found = []
    for _ in range(count):
        angle, phase, scale = torch.rand(3, generator=generator) * torch.tensor([math.pi, 6.0, 1.0])
        wave = torch.sin((x * angle.cos() + y * angle.sin()) * (0.4 + scale) + phase)
        found.append(128 + 100 * wave * torch.rand(3, 1, 1, generator=generator))
    return torch.stack(found).clamp(0, 255).byte()


def test_conv_mini_strides_norms_and_width():
    for norm in ("batch", "group", "none"):
        config = ConvMiniConfig(dims=(16, 24), blocks=(0, 2), strides=(4, 2), dim=40, norm=norm)
        torch.manual_seed(0)
        model = ConvMini(config)
        assert model.patch == 8 and model.strides == (4, 8) and model.num_layers == 2
        features = model(torch.randn(2, 3, 32, 48))
        assert features.patches.shape == (2, 4, 6, 40) and features.cls.shape == (2, 40)
        kinds = {"batch": torch.nn.BatchNorm2d, "group": torch.nn.GroupNorm, "none": torch.nn.Identity}
        assert any(isinstance(module, kinds[norm]) for module in model.stages.modules())
        first, last = model.intermediate(torch.randn(2, 3, 32, 48), [1, 0])
        assert first.patches.shape == (2, 8, 12, 16) and last.patches.shape == (2, 4, 6, 40)


@pytest.mark.parametrize(
    "changes", [{"dims": (32,)}, {"norm": "layer"}, {"strides": (0, 2, 2)}, {"blocks": (-1, 1, 1)}, {"dim": 0}]
)
def test_impossible_conv_configs_are_refused(changes):
    with pytest.raises(UsageError):
        ConvMiniConfig(**changes)


def test_cls_is_the_normed_mean_of_the_map_before_its_norm():
    model = build_model("conv_mini").eval()
    x = torch.randn(2, 3, 32, 32)
    (plain,) = model.intermediate(x, [2], norm=False)
    assert torch.allclose(model(x).cls, model.norm(plain.patches.mean((1, 2))), atol=1e-5)
    assert torch.allclose(model(x).patches, model.norm(plain.patches), atol=1e-5)


def test_vit_kmeans_cls_is_the_mean_of_its_patches():
    model = build_model("vit_kmeans", depth=1).eval()
    features = model(torch.randn(2, 3, 32, 32))
    assert torch.allclose(features.cls, features.patches.mean((1, 2)))
    assert features.patches.shape == (2, 4, 4, 192) and model.attention(torch.randn(1, 3, 32, 32), 0).shape[1:] == (
        3,
        4,
        4,
    )


def test_stem_responses_equal_a_loop_over_windows():
    torch.manual_seed(0)
    stem = KMeansStem(filters=5, dim=4)
    with torch.no_grad():
        stem.bias.normal_()
    x = torch.randn(1, 3, 16, 16)
    padded = torch.nn.functional.pad(x, (2, 2, 2, 2))
    full = torch.empty(5, 4, 4)
    for row in range(4):
        for column in range(4):
            window = padded[0, :, 4 * row : 4 * row + 8, 4 * column : 4 * column + 8]
            window = (window - window.mean()) / (window.var(correction=0) + CONTRAST_FLOOR).sqrt()
            raw = (stem.filters.weight * window).sum((1, 2, 3)) + stem.bias
            full[:, row, column] = torch.nn.functional.gelu(raw)
    pooled = full.unflatten(1, (2, 2)).unflatten(3, (2, 2)).mean((2, 4))
    assert torch.allclose(stem.responses(x)[0], pooled, atol=1e-4)


def test_fit_stem_is_deterministic_standardised_and_made_of_the_pictures():
    images = pictures()
    stems = []
    for seed in (0, 0, 1):
        torch.manual_seed(9)
        stem = KMeansStem(filters=32, dim=16)
        before = stem.filters.weight.clone()
        fit_stem(stem, images, seed)
        assert not torch.equal(stem.filters.weight, before)
        stems.append(stem)
    same, again, other = (stem.filters.weight for stem in stems)
    assert torch.equal(same, again) and not torch.equal(same, other)
    # Windows have no mean, so neither do the filters.
    assert same.sum((1, 2, 3)).abs().max() < 1e-3 * same.abs().sum((1, 2, 3)).max()
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    normalised = (images / 255 - mean[:, None, None]) / std[:, None, None]
    stem = stems[0]
    z = (stem.responses(normalised) + stem.shift[:, None, None]) * stem.scale[:, None, None]
    assert z.mean((0, 2, 3)).abs().max() < 1e-3
    assert (z.std((0, 2, 3)) - 1).abs().max() < 1e-2
    # Float pictures count as normalised already.
    torch.manual_seed(9)
    twin = KMeansStem(filters=32, dim=16)
    fit_stem(twin, normalised, 0)
    assert torch.allclose(twin.filters.weight, same, atol=1e-3)


def test_the_fitted_stem_does_not_care_for_contrast_or_brightness():
    images = pictures().float() / 64 - 2
    torch.manual_seed(0)
    stem = KMeansStem(filters=32, dim=16)
    fit_stem(stem, images, 0)
    inner = (slice(None), slice(None), slice(1, -1), slice(1, -1))  # the zero border is no picture
    plain, changed = stem(images)[inner], stem(images * 2 + 0.5)[inner]
    assert torch.nn.functional.cosine_similarity(plain, changed, dim=1).median() > 0.99


def test_fit_stem_refuses_nothing_to_look_at():
    for images in (torch.zeros(0, 3, 32, 32, dtype=torch.uint8), torch.zeros(2, 3, 4, 4), torch.zeros(3, 32, 32)):
        with pytest.raises(DataError):
            fit_stem(KMeansStem(4, 4), images, 0)
    fit_stem(stem := KMeansStem(4, 4), torch.zeros(2, 3, 16, 16), 0)  # nothing but black: dull, not NaN
    assert all(parameter.isfinite().all() for parameter in stem.parameters())
