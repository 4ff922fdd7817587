"""Objects: their class by a focal loss, their box by its overlap."""

from __future__ import annotations

import torch
from torch import Tensor


def detection_loss(logits: Tensor, wanted: Tensor, boxes: Tensor, truth: Tensor) -> Tensor:
    """Focal loss of classes plus 1 - GIoU of boxes, both divided by how many objects there are.

    Args:
        logits: [b, C] of places; wanted: [b, C], one-hot, or 0 where no object is.
        boxes, truth: [n, 4] xyxy of those n places that have one; n may be 0.
    Source: Lin et al., arXiv 1708.02002 (alpha 0.25, gamma 2); Rezatofighi et al., arXiv 1902.09630; together as in
    FCOS, arXiv 1904.01355.
    """
    from kornia.losses import binary_focal_loss_with_logits

    focal = binary_focal_loss_with_logits(logits, wanted, alpha=0.25, gamma=2.0, reduction="sum")
    return (focal + (1 - generalised_iou(boxes, truth)).sum()) / max(1, len(boxes))


def generalised_iou(first: Tensor, second: Tensor) -> Tensor:
    """[n, 4], [n, 4] xyxy with area -> [n] in (-1, 1]: overlap, less the empty share of the box around both."""
    inter = _area(torch.maximum(first[:, :2], second[:, :2]), torch.minimum(first[:, 2:], second[:, 2:]))
    union = _area(first[:, :2], first[:, 2:]) + _area(second[:, :2], second[:, 2:]) - inter
    around = _area(torch.minimum(first[:, :2], second[:, :2]), torch.maximum(first[:, 2:], second[:, 2:]))
    return inter / union - (around - union) / around


def _area(low: Tensor, high: Tensor) -> Tensor:
    return (high - low).clamp_min(0).prod(1)
