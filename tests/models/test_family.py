"""The table of names: sizes, overrides, words."""

import pytest
import torch

from opendino.errors import UsageError
from opendino.models.family import FAMILY, build_from_config, build_model

PUBLISHED = {
    "vits16": 21_601_152,
    "vits16plus": 28_697_472,
    "vitb16": 85_669_632,
    "vitl16": 303_154_176,
    "vitl16_sat": 303_156_224,
    "vith16plus": 840_633_600,
    "vit7b16": 6_716_043_264,
    "vit7b16_sat": 6_716_043_264,
    "convnext_tiny": 27_820_128,
    "convnext_small": 49_454_688,
    "convnext_base": 87_566_464,
    "convnext_large": 196_230_336,
}

DINOV2 = {  # without and with registers
    "dinov2_vits14": (22_056_576, 22_058_112),
    "dinov2_vitb14": (86_580_480, 86_583_552),
    "dinov2_vitl14": (304_368_640, 304_372_736),
    "dinov2_vitg14": (1_136_480_768, 1_136_486_912),
}


@pytest.mark.parametrize("name", FAMILY)
def test_parameter_counts(name):
    with torch.device("meta"):
        model = build_model(name)
    count = sum(parameter.numel() for parameter in model.parameters())
    assert count == FAMILY[name].params == PUBLISHED.get(name, FAMILY[name].params)


def test_published_models_are_of_the_paper_and_the_others_say_that_they_are_not():
    assert {name for name, spec in FAMILY.items() if spec.from_paper} == set(PUBLISHED)
    for spec in FAMILY.values():
        assert spec.licence == ("DINOv3 License" if spec.from_paper else "Apache-2.0")
        assert spec.from_paper or "not of the paper" in spec.note
        assert spec.gated == (spec.mirror is not None) == spec.from_paper
        assert (spec.picture_mean == (0.430, 0.411, 0.296)) == spec.name.endswith("_sat") == ("sat493m" in spec.source)


def test_dinov2_has_its_published_sizes():
    for name, params in DINOV2.items():
        assert (FAMILY[name].params, FAMILY[name + "_reg"].params) == params


def test_overrides_reach_the_model():
    model = build_model("vit_tiny", depth=2, drop_path=0.3)
    assert len(model.blocks) == 2 and model.config.drop_path == 0.3
    assert type(build_from_config(model.config)) is type(model)
    assert build_from_config(FAMILY["conv_kmeans"].config).config.stem == "kmeans"


def test_a_mistyped_name_or_field_is_answered_with_the_nearest():
    with pytest.raises(UsageError, match="did you mean vits16"):
        build_model("vit_s16")
    with pytest.raises(UsageError, match="did you mean drop_path"):
        build_model("vits16", droppath=0.1)
    with pytest.raises(UsageError, match="known: "):
        build_model("zzz")
