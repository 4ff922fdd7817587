"""Lets torchvision's Python half import on a CPU build of torch; see tests/conftest.py."""

from __future__ import annotations

from functools import cache

import torch


@cache
def allow_torchvision() -> torch.library.Library | None:
    """Define the two operators that torchvision asks for; the returned object is kept alive by the cache."""
    if torch.version.cuda is not None:
        return None
    operators = torch.library.Library("torchvision", "DEF")
    for name in ("nms", "qnms"):
        operators.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    return operators
