"""What the recipes of distillation derive from teacher, students and pictures."""

import dataclasses

import pytest

from opendino.recipes.distill import distill, distill_match, teacher_heads
from opendino.recipes.situation import Situation, TeacherFacts
from opendino.train.methods.self_distillation import SelfDistillationConfig


def situation(model, patches, **teacher):
    facts = TeacherFacts(patches=patches, **teacher)
    return Situation(5000, 224, 300, "cuda", model, facts)


@pytest.mark.parametrize("recipe", [distill, distill_match, teacher_heads])
@pytest.mark.parametrize("patch", [8, 14, 16])
@pytest.mark.parametrize("patches", [(8,), (16,), (32,), (8, 16, 32), (14,)])
def test_sides_fit_teacher_and_students(recipe, patch, patches):
    config = recipe(situation("vit_tiny", patches, patch=patch))
    crops = config.data.crops
    if recipe is teacher_heads:
        assert crops.global_px % patch == crops.local_px % patch == 0
        return
    sides = [side // 2 if side == 32 else side for side in patches]
    assert all(crops.global_px % side == crops.local_px % side == 0 for side in sides)
    seen = config.distill.teacher_px or crops.global_px
    assert seen % patch == 0
    assert seen // patch >= crops.global_px // max(min(sides), patch)


def test_students_of_a_job_share_crops_and_teacher_side():
    patches = (8, 32)
    vit, convnext = (distill(situation(name, patches)) for name in ("vit_tiny", "convnext_tiny"))
    assert vit.data == convnext.data and vit.distill.teacher_px == convnext.distill.teacher_px
    assert (vit.distill.student_px, convnext.distill.student_px) == (0, 2 * vit.data.crops.global_px)


def test_heads_decide_prototypes_and_targets():
    heads = SelfDistillationConfig(prototypes=96, ibot_prototypes=48, teacher_temperature=0.05, target_spread=0.3)
    config = distill(situation("vit_tiny", (8,), heads=heads, ibot=True))
    method = config.method
    assert (method.prototypes, method.ibot_prototypes, method.target_spread) == (96, 48, 0.3)
    assert method.teacher_temperature == method.teacher_temperature_start == 0.05 and method.ibot_weight > 0
    assert distill(situation("vit_tiny", (8,), heads=heads, ibot=False)).method.ibot_weight == 0


def test_colours_are_the_teachers():
    facts = TeacherFacts(mean=(0.1, 0.2, 0.3), std=(0.4, 0.5, 0.6))
    for recipe in (distill, distill_match, teacher_heads):
        config = recipe(dataclasses.replace(situation("vit_tiny", (8,)), teacher=facts))
        assert (config.data.mean, config.data.std) == (facts.mean, facts.std)
