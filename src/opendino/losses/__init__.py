"""The terms of the objective, one file each, as functions of tensors.

Here: formulas. Not here: heads, teachers, schedules, weights of the sum, process groups. A loss that needs sums over
all ranks takes them as `all_sum`, a function that is the identity on one process. To add one: a file with the formula
in its docstring, a slow loop in `tests/oracles/`, one term in a method.
"""

from opendino.losses.dino import dino_loss
from opendino.losses.gram import gram_loss
from opendino.losses.ibot import ibot_loss
from opendino.losses.koleo import koleo_loss
from opendino.losses.prototypes import balanced_targets, prototype_loss
from opendino.losses.sinkhorn import sinkhorn

__all__ = [
    "balanced_targets",
    "dino_loss",
    "gram_loss",
    "ibot_loss",
    "koleo_loss",
    "prototype_loss",
    "sinkhorn",
]
