"""Recipes: functions from a situation to a whole config. Each file's header gives command, hardware, hours, scores.

A recipe states only what differs from the one it starts from, and puts the reason of each derived value into
`config.reasons`. To add one: a file with a function `(Situation) -> RunConfig`, and its line in `RECIPES`. A user's own
file needs a function named `recipe`.
"""

from __future__ import annotations

import difflib
import importlib.util
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path

from opendino.errors import OpendinoError, UsageError
from opendino.recipes.adapt import adapt
from opendino.recipes.convnext_distill import convnext_distill
from opendino.recipes.distill import distill, distill_match
from opendino.recipes.distill_highres import distill_highres, vit_distill_highres
from opendino.recipes.gram import gram
from opendino.recipes.highres import highres
from opendino.recipes.satellite import sat7b16_gram, sat7b16_highres, sat7b16_pretrain, sat_distill
from opendino.recipes.situation import Situation
from opendino.recipes.small import small
from opendino.recipes.vit7b16_gram import vit7b16_gram
from opendino.recipes.vit7b16_highres import vit7b16_highres
from opendino.recipes.vit7b16_pretrain import vit7b16_pretrain
from opendino.recipes.vit_distill import vit_distill, vit_distill_full
from opendino.recipes.vitl16_imagenet import vitl16_imagenet
from opendino.train.config import RunConfig

Recipe = Callable[[Situation], RunConfig]

RECIPES: dict[str, Recipe] = {
    "small": small,
    "vitl16_imagenet": vitl16_imagenet,
    "vit7b16_pretrain": vit7b16_pretrain,
    "sat7b16_pretrain": sat7b16_pretrain,
}
"""Of `opendino pretrain`."""


STAGE_RECIPES: dict[str, dict[str, Recipe]] = {
    "gram": {"gram": gram, "vit7b16_gram": vit7b16_gram, "sat7b16_gram": sat7b16_gram},
    "highres": {"highres": highres, "vit7b16_highres": vit7b16_highres, "sat7b16_highres": sat7b16_highres},
}
"""Of `opendino pretrain --stage`, by stage: its own, and those that `--recipe` names instead; they are told of the run
that comes before."""

DISTILL_RECIPES: dict[str, Recipe] = {
    "distill": distill,
    "distill_match": distill_match,
    "vit_distill": vit_distill,
    "vit_distill_full": vit_distill_full,
    "convnext_distill": convnext_distill,
    "sat_distill": sat_distill,
}
"""Of `opendino distill`: they are told of a teacher."""

DISTILL_STAGE_RECIPES: dict[str, Recipe] = {
    "distill_highres": distill_highres,
    "vit_distill_highres": vit_distill_highres,
}
"""Of `opendino distill --stage highres`: also of the job that comes before."""

ADAPT_RECIPES: dict[str, Recipe] = {"adapt": adapt}
"""Of `opendino adapt`: they are told of a start."""


def find_recipe(name: str, recipes: Mapping[str, Recipe] = RECIPES) -> Recipe:
    """One of some recipes by name, or the function `recipe` of a Python file the user names (its code runs)."""
    if name in recipes:
        return recipes[name]
    if not name.endswith(".py"):
        near = difflib.get_close_matches(name, recipes, n=1)
        fix = f"did you mean {near[0]}?" if near else f"recipes: {', '.join(recipes)}, or a file ending in .py"
        raise UsageError(f"recipe {name}", "no such recipe", fix)
    if not Path(name).is_file():
        raise UsageError(f"recipe {name}", "no such file")
    return _from_file(name)


def _from_file(name: str) -> Recipe:
    """The function `recipe` of a Python file; whatever goes wrong in it is a UsageError that names the line."""
    spec = importlib.util.spec_from_file_location("opendino_user_recipe", name)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise _failure(name, error) from error
    function = getattr(module, "recipe", None)
    fix = "define recipe(situation) -> RunConfig"
    if not callable(function):
        raise UsageError(f"recipe {name}", "has no function named recipe", fix)

    def recipe(situation: Situation) -> RunConfig:
        try:
            config = function(situation)
        except OpendinoError:
            raise
        except Exception as error:
            raise _failure(name, error) from error
        if not isinstance(config, RunConfig):
            raise UsageError(f"recipe {name}", f"returned {type(config).__name__}, not RunConfig", fix)
        return config

    return recipe


def _failure(name: str, error: Exception) -> UsageError:
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename.endswith(name)]
    line = error.lineno if isinstance(error, SyntaxError) else lines[-1] if lines else None
    place = f" in line {line}" if line else ""
    words = error.msg if isinstance(error, SyntaxError) else str(error)
    return UsageError(f"recipe {name}", f"fails{place}: {type(error).__name__}: {words}", "mend the file")
