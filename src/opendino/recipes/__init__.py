"""Recipes: functions from a situation to a whole config. Each file's header gives command, hardware, hours, scores.

A recipe states only what differs from the one it starts from, and puts the reason of each derived value into
`config.reasons`. To add one: a file with a function `(Situation) -> RunConfig`, and its line in `RECIPES`. A user's own
file needs a function named `recipe`.
"""

from __future__ import annotations

import difflib
import importlib.util
from collections.abc import Callable
from pathlib import Path

from opendino.errors import UsageError
from opendino.recipes.situation import Situation
from opendino.recipes.small import small
from opendino.recipes.vitl16_imagenet import vitl16_imagenet
from opendino.train.config import RunConfig

Recipe = Callable[[Situation], RunConfig]

RECIPES: dict[str, Recipe] = {"small": small, "vitl16_imagenet": vitl16_imagenet}


def find_recipe(name: str) -> Recipe:
    """A recipe by name, or the function `recipe` of a Python file the user names (its code runs)."""
    if name in RECIPES:
        return RECIPES[name]
    if not name.endswith(".py"):
        near = difflib.get_close_matches(name, RECIPES, n=1)
        fix = f"did you mean {near[0]}?" if near else f"recipes: {', '.join(RECIPES)}, or a file ending in .py"
        raise UsageError(f"recipe {name}", "no such recipe", fix)
    if not Path(name).is_file():
        raise UsageError(f"recipe {name}", "no such file")
    spec = importlib.util.spec_from_file_location("opendino_user_recipe", name)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    function = getattr(module, "recipe", None)
    if not callable(function):
        raise UsageError(f"recipe {name}", "has no function named recipe", "define recipe(situation) -> RunConfig")
    result: Recipe = function
    return result
