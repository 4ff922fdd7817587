"""The saved config: read back equal, strict about unknown keys, and without fields that nobody reads."""

import dataclasses
import json
import re
from pathlib import Path

import pytest

from opendino.errors import UsageError
from opendino.files import write_json
from opendino.recipes import DISTILL_RECIPES, DISTILL_STAGE_RECIPES, RECIPES, STAGE_RECIPES
from opendino.recipes.distill import teacher_heads
from opendino.recipes.situation import Situation
from opendino.train.config import RunConfig, differences, flatten, load_config, to_dict

STAGES = {name: one for recipes in STAGE_RECIPES.values() for name, one in recipes.items()}
ALL = {**RECIPES, **DISTILL_RECIPES, **DISTILL_STAGE_RECIPES, **STAGES, "teacher_heads": teacher_heads}
SRC = Path(__file__).parents[2] / "src" / "opendino"


@pytest.mark.parametrize("recipe", ALL)
def test_saved_config_reads_back_equal(recipe, tmp_path):
    config = ALL[recipe](Situation(5000, 64, 300, "cpu"))
    write_json(tmp_path / "config.json", to_dict(config))
    assert load_config(tmp_path / "config.json") == config


def test_unknown_key_is_refused_with_the_nearest(tmp_path):
    value = to_dict(RunConfig())
    value["optim"]["lrr"] = 1
    (tmp_path / "config.json").write_text(json.dumps(value))
    with pytest.raises(UsageError, match=r"lrr.*did you mean lr\?"):
        load_config(tmp_path / "config.json")


def test_wrong_type_names_the_field(tmp_path):
    value = to_dict(RunConfig())
    value["optim"]["warmup"] = "long"
    (tmp_path / "config.json").write_text(json.dumps(value))
    with pytest.raises(UsageError, match="warmup"):
        load_config(tmp_path / "config.json")


def test_every_field_is_read_somewhere():
    code = "\n".join(path.read_text() for path in SRC.rglob("*.py"))
    for name, _ in flatten(to_dict(RunConfig())):
        leaf = name.rsplit(".", 1)[-1]
        # Beside its definition: as an attribute, or (watch intervals) by a name put together.
        read = re.search(rf"\.{leaf}\b", code) or (leaf.endswith("_every") and 'f"{name}_every"' in code)
        assert read or name.startswith("model."), f"nobody reads {name}"


def test_reasons_name_real_fields():
    for recipe in ALL.values():
        config = recipe(Situation(5000, 64, 300, "cpu"))
        fields = {name for name, _ in flatten(to_dict(config))}
        assert config.reasons and set(config.reasons) <= fields


def test_identity_covers_what_is_learned_and_not_what_is_shown():
    config = RunConfig()
    other = dataclasses.replace(
        config,
        seed=1,
        optim=dataclasses.replace(config.optim, lr=0.5),
        data=dataclasses.replace(config.data, workers=3),
        save=dataclasses.replace(config.save, steps=7),
    )
    found = differences(config, other)
    assert found.allowed == ("optim.lr: 0.001 -> 0.5",) and found.identity == ("seed: 0 -> 1",)
    muon = dataclasses.replace(config, optim=dataclasses.replace(config.optim, muon_lr=0.02))
    assert differences(config, muon).identity == ("optim.muon_lr: 0.0 -> 0.02",)
