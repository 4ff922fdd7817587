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
    "vith16plus": 840_633_600,
    "vit7b16": 6_716_043_264,
    "convnext_tiny": 27_820_128,
    "convnext_small": 49_454_688,
    "convnext_base": 87_566_464,
    "convnext_large": 196_230_336,
}


@pytest.mark.parametrize("name", FAMILY)
def test_parameter_counts(name):
    with torch.device("meta"):
        model = build_model(name)
    count = sum(parameter.numel() for parameter in model.parameters())
    assert count == FAMILY[name].params == PUBLISHED.get(name, FAMILY[name].params)


def test_published_models_are_of_the_paper_and_ours_say_that_they_are_not():
    assert {name for name, spec in FAMILY.items() if spec.from_paper} == set(PUBLISHED)
    for spec in FAMILY.values():
        assert spec.licence == ("DINOv3 License" if spec.from_paper else "Apache-2.0")
        assert spec.from_paper or "not of the paper" in spec.note


def test_overrides_reach_the_model():
    model = build_model("vit_tiny", depth=2, drop_path=0.3)
    assert len(model.blocks) == 2 and model.blocks[1].drop_path == 0.3
    assert type(build_from_config(model.config)) is type(model)
    assert build_from_config(FAMILY["conv_kmeans"].config).config.stem == "kmeans"


def test_a_mistyped_name_or_field_is_answered_with_the_nearest():
    with pytest.raises(UsageError, match="did you mean vits16"):
        build_model("vit_s16")
    with pytest.raises(UsageError, match="did you mean drop_path"):
        build_model("vits16", droppath=0.1)
    with pytest.raises(UsageError, match="known: "):
        build_model("zzz")
