"""What is applied to finished modules from outside: so far compilation, block by block.

Not here: anything that knows a model's or a loss's formulas. Distribution over devices joins this room.
"""

from opendino.parallel.compilation import compile_blocks

__all__ = ["compile_blocks"]
