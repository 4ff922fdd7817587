"""The recipes of the published stages against the published numbers, typed here anew: nothing is computed by them.

Source: the paper's appendix C and its released configurations, as a table of stages. Rates are effective ones,
published * 4 * sqrt(batch / 1024). Steps of a stage count from its own start: the Gram stage begins at 1,000,000.
"""

import dataclasses
from typing import Any

import pytest
import torch

from opendino.models.family import build_model
from opendino.recipes import DISTILL_RECIPES, DISTILL_STAGE_RECIPES, RECIPES, STAGE_RECIPES
from opendino.recipes.situation import Situation, TeacherFacts
from opendino.train.methods.self_distillation import SelfDistillation, SelfDistillationConfig, build_heads
from opendino.train.optim import build_optimizer
from opendino.train.schedules import to_steps

ALL = {**RECIPES, **DISTILL_RECIPES, **STAGE_RECIPES["gram"], **STAGE_RECIPES["highres"], **DISTILL_STAGE_RECIPES}
SITUATION = Situation(images=10**9, short_side_px=1024, steps=0, device="cuda")


@dataclasses.dataclass(frozen=True)
class Published:
    """One column of the table. at: values of schedules by name and step."""

    recipe: str
    model: str
    steps: int
    batch: int
    px: tuple[int, ...]
    flip: float
    drop_path: float | None
    heads: tuple[int, ...]
    """Hidden, bottleneck, prototypes of the DINO head, then of the iBOT head."""
    at: dict[str, dict[int, float]]
    freeze: int
    layer_decay: float
    clip: float
    betas: tuple[float, float]
    statistics: tuple[float, ...] = (0.485, 0.456, 0.406, 0.229, 0.224, 0.225)


OF_7B = (8192, 512, 262_144, 4096, 384, 98_304)
LATE = (0.9, 0.99)
TILES = (0.430, 0.411, 0.296, 0.213, 0.156, 0.143)


def vit_distilled(model: str) -> Published:
    at = {
        # 5e-5 * 4 * sqrt(1776 / 1024) = 2.634e-4, reached along half a cosine after 12,500 steps.
        "lr": {0: 0, 6_250: 1.317e-4, 12_500: 2.634e-4, 24_999: 2.634e-4},
        "weight_decay": {0: 0.04, 24_999: 0.04},
        "momentum": {0: 0.994, 12_500: 0.997, 24_999: 1.0},
        "temperature": {0: 0.07, 24_999: 0.07},
    }
    return Published("vit_distill", model, 25_000, 1920, (256, 112), 0, 0, OF_7B, at, 0, 0.99, 3, (0.9, 0.999))


def convnext_distilled(model: str, lr: float, decay: float) -> Published:
    at = {
        "lr": {0: 1e-6, 50_000: (1e-6 + lr) / 2, 100_000: lr, 624_999: 8e-6},
        "weight_decay": {0: decay, 312_500: (decay + 0.2) / 2, 624_999: 0.2},
        "momentum": {0: 0.994, 312_500: 0.997, 624_999: 1.0},
        "temperature": {0: 0.04, 75_000: 0.055, 150_000: 0.07},
    }
    heads = (2048, 256, 262_144, 2048, 256, 98_304)
    return Published(
        "convnext_distill", model, 625_000, 4096, (512, 224), 0.5, None, heads, at, 1250, 1.0, 3, (0.9, 0.999)
    )


TABLE = [
    Published(
        "vitl16_imagenet",
        *("vitl16", 125_000, 2048, (224, 96), 0.5, 0.3, (2048, 256, 65_536, 2048, 256, 65_536)),
        at={
            "lr": {0: 0, 6_250: 2.828427e-3, 12_500: 5.656854e-3, 124_999: 1e-6},
            "weight_decay": {0: 0.04, 62_500: 0.22, 124_999: 0.4},
            "momentum": {0: 0.992, 62_500: 0.996, 124_999: 1.0},
            "temperature": {0: 0.04, 18_750: 0.055, 37_500: 0.07, 124_999: 0.07},
        },
        **{"freeze": 1250, "layer_decay": 0.9, "clip": 3, "betas": (0.9, 0.999)},
    ),
    Published(
        "vit7b16_pretrain",
        *("vit7b16", 1_000_000, 4096, (256, 112), 0, 0.4, OF_7B),
        at={
            "lr": {0: 0, 50_000: 2e-4, 100_000: 4e-4, 999_999: 4e-4},
            "weight_decay": {0: 0.04, 999_999: 0.04},
            "momentum": {0: 0.994, 999_999: 0.994},
            "temperature": {0: 0.04, 50_000: 0.055, 100_000: 0.07, 999_999: 0.07},
        },
        **{"freeze": 5000, "layer_decay": 0.98, "clip": 30, "betas": LATE},
    ),
    Published(
        "vit7b16_gram",
        *("vit7b16", 200_000, 4096, (256, 112, 512), 0, 0.4, OF_7B),
        at={
            "lr": {0: 2.4e-4, 199_999: 2.4e-4},
            "weight_decay": {0: 0.04, 199_999: 0.04},
            "momentum": {0: 0.999, 199_999: 0.999},
            "temperature": {0: 0.07, 199_999: 0.07},
            "gram": {0: 0, 1_000: 2, 199_999: 2},
            "local": {0: 1, 1_000: 0.5, 199_999: 0.5},
        },
        **{"freeze": 0, "layer_decay": 0.98, "clip": 30, "betas": LATE},
    ),
    Published(
        "vit7b16_highres",
        *("vit7b16", 30_000, 2048, (), 0, 0.4, OF_7B),
        at={
            "lr": {0: 0, 5_000: 3.5355e-5, 10_000: 7.0711e-5, 29_999: 7.0711e-5},
            "weight_decay": {0: 0.04, 29_999: 0.04},
            "momentum": {0: 0.999, 29_999: 0.999},
            "temperature": {0: 0.07},
            "gram": {0: 1.5, 29_999: 1.5},
            "local": {0: 0.5, 29_999: 0.5},
        },
        **{"freeze": 0, "layer_decay": 0.98, "clip": 30, "betas": LATE},
    ),
    Published(
        "sat7b16_pretrain",
        *("vit7b16_sat", 100_000, 4096, (256, 112), 0, 0.4, OF_7B),
        at={
            "lr": {0: 0, 10_000: 4e-4, 99_999: 4e-4},
            "momentum": {0: 0.994, 99_999: 0.994},
            "temperature": {0: 0.04, 10_000: 0.07},
        },
        **{"freeze": 500, "layer_decay": 0.98, "clip": 30, "betas": LATE, "statistics": TILES},
    ),
    Published(
        "sat7b16_gram",
        *("vit7b16_sat", 10_000, 4096, (256, 112, 512), 0, 0.4, OF_7B),
        at={"lr": {0: 2.4e-4, 9_999: 2.4e-4}, "gram": {0: 0, 50: 2, 9_999: 2}, "local": {9_999: 0.5}},
        **{"freeze": 0, "layer_decay": 0.98, "clip": 30, "betas": LATE, "statistics": TILES},
    ),
    Published(
        "sat7b16_highres",
        *("vit7b16_sat", 8_000, 2048, (512, 112, 768), 0, 0.4, OF_7B),
        at={"lr": {7_999: 7.0711e-5}, "gram": {0: 1.5}, "local": {0: 0.5}, "temperature": {0: 0.07}},
        **{"freeze": 0, "layer_decay": 0.98, "clip": 30, "betas": LATE, "statistics": TILES},
    ),
    *(vit_distilled(name) for name in ("vits16", "vits16plus", "vitb16", "vitl16", "vith16plus")),
    dataclasses.replace(vit_distilled("vitl16_sat"), recipe="sat_distill", statistics=TILES),
    convnext_distilled("convnext_tiny", 1.6e-3, 0.04),
    convnext_distilled("convnext_small", 1.6e-3, 0.04),
    convnext_distilled("convnext_base", 8e-4, 0.02),
    convnext_distilled("convnext_large", 8e-4, 0.04),
]
PARAMETERS = {
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


def build(row: Published):
    model = row.model if row.recipe in DISTILL_RECIPES else None
    return ALL[row.recipe](dataclasses.replace(SITUATION, model=model))


def named(row: Published) -> str:
    return f"{row.recipe} {row.model}"


@pytest.mark.parametrize("row", TABLE, ids=named)
def test_values_and_schedules(row):
    config = build(row)
    method, optim, data, crops = config.method, config.optim, config.data, config.data.crops
    assert (config.recipe, config.model.name, config.steps, data.batch_size) == (
        row.recipe,
        row.model,
        row.steps,
        row.batch,
    )
    if row.px:
        assert not crops.mix and crops.num_locals == 8
        assert (crops.global_px, crops.local_px, *([crops.gram_px] if len(row.px) == 3 else [])) == row.px
        assert len(row.px) == 3 or crops.gram_px == 0
    assert (crops.flip, config.model.drop_path) == (row.flip, row.drop_path)
    assert (crops.global_scale, crops.local_scale) == ((0.32, 1.0), (0.05, 0.32))
    assert (*data.mean, *data.std) == row.statistics
    head = (method.hidden, method.bottleneck, method.prototypes)
    patch_head = (method.ibot_hidden or head[0], method.ibot_bottleneck or head[1], method.ibot_prototypes)
    assert (*head, *patch_head) == row.heads
    assert (method.dino_weight, method.ibot_weight, method.koleo_weight, method.koleo_group) == (1, 1, 0.1, 16)
    assert method.student_temperature == 0.1
    schedules: dict[str, Any] = {
        "lr": optim.lr_schedule,
        "weight_decay": optim.weight_decay_schedule,
        "momentum": method.momentum_schedule,
        "temperature": method.temperature_schedule,
        "gram": method.gram.weight_schedule,
        "local": method.gram.local_weight_schedule,
    }
    for name, points in row.at.items():
        for step, value in points.items():
            found = schedules[name].at(step, row.steps)
            # Cosines reach their middle half a step beside half of their steps.
            assert found == pytest.approx(value, rel=2e-4, abs=1e-9), f"{name} at {step}"
    assert to_steps(optim.freeze_last_layer, row.steps) == row.freeze
    assert (optim.layer_decay, optim.patch_embed_lr) == (row.layer_decay, 0.2 if row.layer_decay < 1 else 1.0)
    assert (optim.clip, optim.betas, optim.eps, optim.muon_lr) == (row.clip, row.betas, 1e-8, 0)


def head_parameters(dim: int, hidden: int, bottleneck: int, prototypes: int) -> int:
    layers = [(dim, hidden), (hidden, hidden), (hidden, bottleneck)]
    return sum((before + 1) * after for before, after in layers) + bottleneck * prototypes


@pytest.mark.parametrize("row", TABLE, ids=named)
def test_models_of_published_sizes_come_out(row):
    config = build(row)
    with torch.device("meta"):
        backbone = build_model(config.model.name, **config.model.changes)
        heads = build_heads(backbone.dim, config.method)
        if row.recipe not in DISTILL_RECIPES:
            backbone = SelfDistillation(backbone, config.method, config.steps).teacher["backbone"]
    count = sum(parameter.numel() for parameter in backbone.parameters())
    # The ImageNet recipe has no registers.
    assert count == PARAMETERS[row.model] - (4 * 1024 if row.recipe == "vitl16_imagenet" else 0)
    for head, widths in zip(heads.values(), (row.heads[:3], row.heads[3:]), strict=True):
        assert sum(parameter.numel() for parameter in head.parameters()) == head_parameters(backbone.dim, *widths)


def test_heads_of_the_7b_have_the_published_numbers_of_parameters():
    with torch.device("meta"):
        heads = build_heads(4096, ALL["vit7b16_pretrain"](SITUATION).method)
    counts = [sum(parameter.numel() for parameter in head.parameters()) for head in heads.values()]
    assert counts == [239_092_224, 72_884_608]


def test_layer_decay_of_the_7b():
    config = ALL["vit7b16_pretrain"](SITUATION)
    with torch.device("meta"):
        backbone = build_model(config.model.name, **config.model.changes)
    found = {
        name: group["lr_mult"]
        for group in build_optimizer({"backbone": backbone}, config.optim).param_groups
        for name in group["names"]
    }
    expected = {
        "cls_token": 0.43679,
        "patch_embed.weight": 0.087357,
        "blocks.0.mlp.w1.weight": 0.44570,
        "blocks.39.mlp.w1.weight": 0.98,
        "norm.weight": 1.0,
    }
    assert {name: found[f"backbone.{name}"] for name in expected} == pytest.approx(expected, rel=1e-4)


def test_details_that_the_columns_have_no_room_for():
    gram = ALL["vit7b16_gram"](SITUATION).method.gram
    assert (to_steps(gram.first_refresh, 200_000), to_steps(gram.refresh_every, 200_000)) == (10_000, 10_000)
    assert (gram.max_refreshes, gram.teacher, gram.level, gram.negatives) == (3, "frozen", "image", "keep")
    highres = ALL["vit7b16_highres"](SITUATION)
    assert highres.method.gram.refresh_every == 0
    sizes = [(one.global_px, one.local_px, one.gram_px, one.share) for one in highres.data.crops.sizes]
    assert sizes == [
        (512, 112, 768, 0.3),
        (768, 112, 1152, 0.3),
        (768, 160, 1152, 0.3),  # published 168 px: 10 patches of 16, and 8 px that its model drops
        (768, 224, 1152, 0.05),
        (768, 336, 1152, 0.05),
    ]
    assert ALL["convnext_distill"](SITUATION).distill.teacher_px == 256
    full = ALL["vit_distill_full"](SITUATION)
    rates = [full.optim.lr_schedule.at(step, full.steps) for step in (100_000, 999_999, 1_125_000, 1_249_999)]
    assert full.steps == 1_250_000 and rates == pytest.approx([2.634e-4, 2.634e-4, 1.322e-4, 1e-6], rel=1e-3)


def test_a_budget_scales_lengths_and_a_stage_keeps_the_model_of_its_run():
    short = ALL["vit7b16_pretrain"](dataclasses.replace(SITUATION, steps=1000))
    assert short.steps == 1000 and short.optim.lr_schedule.at(100, 1000) == pytest.approx(4e-4)
    before = dataclasses.replace(short, model=dataclasses.replace(short.model, name="vitl16"))
    for name in ("vit7b16_gram", "vit7b16_highres", "sat7b16_gram", "sat7b16_highres"):
        assert ALL[name](dataclasses.replace(SITUATION, before=before)).model == before.model


@pytest.mark.parametrize("name", ["vit_distill", "convnext_distill", "sat_distill"])
def test_students_have_the_prototypes_of_their_teachers_heads(name):
    heads = SelfDistillationConfig(prototypes=500, ibot_prototypes=300)
    method = ALL[name](dataclasses.replace(SITUATION, teacher=TeacherFacts(heads=heads, ibot=True))).method
    assert (method.prototypes, method.ibot_prototypes, method.ibot_weight) == (500, 300, 1)
    without = ALL[name](dataclasses.replace(SITUATION, teacher=TeacherFacts(heads=heads))).method
    assert without.ibot_weight == 0


@pytest.mark.parametrize("model", ["vits16", "vith16plus"])
def test_students_go_to_high_resolution_without_a_gram_term(model):
    """Published is that there was such a phase, without Gram; sizes, batch and rate are the 7B's."""
    config = ALL["vit_distill_highres"](dataclasses.replace(SITUATION, model=model))
    assert (config.model.name, config.steps, config.data.batch_size, config.stage.name) == (
        model,
        30_000,
        2048,
        "highres",
    )
    assert config.method.gram.weight == 0 and {one.gram_px for one in config.data.crops.sizes} == {0}
    sides = [(one.global_px, one.local_px, one.share) for one in config.data.crops.sizes]
    assert sides == [(512, 112, 0.3), (768, 112, 0.3), (768, 160, 0.3), (768, 224, 0.05), (768, 336, 0.05)]
    assert config.optim.lr_schedule.at(29_999, 30_000) == pytest.approx(7.0711e-5, rel=1e-3)
