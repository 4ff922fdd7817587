"""torch.compile, block by block: one small graph serves all blocks, so the first step waits seconds, not minutes."""

from __future__ import annotations

from torch import nn


def blocks_of(module: nn.Module) -> list[nn.Module]:
    """The members of a network's `blocks` or `stages` lists; the module itself when it has none."""
    lists = [child for name, child in module.named_children() if name in ("blocks", "stages")]
    return [block for children in lists for block in children.children()] or [module]


def compile_blocks(module: nn.Module) -> int:
    """Compile in place every block of a network; returns how many.

    A module without blocks is compiled whole. Names of parameters do not change. On a CPU this costs about 20 s
    and gains little (measured 1.02 to 1.04 times), so recipes ask for it on GPUs only.
    """
    blocks = blocks_of(module)
    for block in blocks:
        block.compile()
    return len(blocks)
