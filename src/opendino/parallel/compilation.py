"""torch.compile, block by block: one small graph serves all blocks, so the first step waits seconds, not minutes."""

from __future__ import annotations

from torch import nn


def compile_blocks(module: nn.Module) -> int:
    """Compile in place every block of a network (the members of its `blocks` or `stages` lists); returns how many.

    A module without such lists is compiled whole. Names of parameters do not change. On a CPU this costs about 20 s
    and gains little (measured 1.02 to 1.04 times), so recipes ask for it on GPUs only.
    """
    lists = [child for name, child in module.named_children() if name in ("blocks", "stages")]
    blocks = [block for children in lists for block in children.children()] or [module]
    for block in blocks:
        block.compile()
    return len(blocks)
