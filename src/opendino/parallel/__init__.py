"""What is applied to finished modules from outside, in this order: activation checkpointing, then compilation.

Not here: anything that knows a model's or a loss's formulas. Distribution over devices joins this room.
"""

from opendino.parallel.checkpointing import checkpoint_blocks
from opendino.parallel.compilation import compile_blocks

__all__ = ["checkpoint_blocks", "compile_blocks"]
