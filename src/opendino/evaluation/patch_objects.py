"""What patches say of the objects of a picture: targets to fit a head to, its loss, and boxes from its outputs.

A patch near an object's middle tells its class and its box, as in FCOS (arXiv 1904.01355), on one map of patches.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from opendino.evaluation.datasets.detections import Marked
from opendino.evaluation.metrics.detection import Detections, Truth
from opendino.losses.detection import detection_loss
from opendino.models.patch_boxes import decode_boxes, encode_boxes, patch_centres

NEAR_PATCHES = 1.5
"""A patch shows an object when the object's middle is no farther along either axis, as in FCOS."""
LEAST_SCORE, MOST_CANDIDATES, SAME_IOU = 0.01, 500, 0.5


@dataclass(frozen=True)
class SeenObjects:
    """A picture's patches [h, w, D], its height and width in pixels, and its objects."""

    marked: Marked
    patches: Tensor
    size: tuple[int, int]
    truth: Truth

    @property
    def patch_px(self) -> Tensor:
        """Width and height of a patch in pixels of the picture."""
        height, width = self.patches.shape[:2]
        return torch.tensor([self.size[1] / width, self.size[0] / height])


def patch_targets(one: SeenObjects, num_classes: int) -> tuple[Tensor, Tensor]:
    """Targets [h * w, C + 4] of a picture's patches, and which of them [h * w] count.

    The patches about an object's middle and inside its box show it, the nearest one at least; of two objects the
    smaller one. Others show nothing; inside a crowd nobody knows.
    """
    height, width = one.patches.shape[:2]
    centres = patch_centres(height, width)
    boxes = torch.from_numpy(one.truth.boxes).float() / one.patch_px.repeat(2)
    targets = torch.zeros(len(centres), num_classes + 4)
    known = torch.ones(len(centres), dtype=torch.bool)
    for index in (boxes[:, 2:] - boxes[:, :2]).prod(1).argsort(descending=True).tolist():
        box = boxes[index]
        inside = ((centres > box[:2]) & (centres < box[2:])).all(1)
        if one.truth.unclear[index]:
            known &= ~inside
            continue
        if not (box[2:] > box[:2]).all():  # COCO has some
            continue
        away = (centres - (box[:2] + box[2:]) / 2).abs().amax(1)
        shows = inside & (away < NEAR_PATCHES)
        shows[away.argmin()] = True
        targets[shows] = 0.0
        targets[shows, int(one.truth.classes[index])] = 1.0
        targets[shows, -4:] = encode_boxes(box.expand(int(shows.sum()), 4), centres[shows])
    return targets, known | (targets[:, :-4].sum(1) > 0)


def patches_loss(outputs: Tensor, targets: Tensor) -> Tensor:
    """`detection_loss` of outputs [b, C + 4], logits and the code of a box, against rows of `patch_targets`."""
    shown = targets[:, :-4].sum(1) > 0
    nowhere = outputs.new_zeros(int(shown.sum()), 2)
    boxes, truth = (decode_boxes(one[shown, -4:], nowhere) for one in (outputs, targets))
    return detection_loss(outputs[:, :-4], targets[:, :-4], boxes, truth)


def to_detections(outputs: Tensor, one: SeenObjects) -> Detections:
    """The best boxes of a picture from outputs [h * w, C + 4]: of the same class those apart by more than half."""
    from kornia.geometry.bbox import nms

    height, width = one.patches.shape[:2]
    scores = outputs[:, :-4].sigmoid()
    best, index = scores.flatten().topk(min(MOST_CANDIDATES, scores.numel()))
    index = index[best > LEAST_SCORE]
    patch, label = index // scores.shape[1], index % scores.shape[1]
    boxes = decode_boxes(outputs[patch, -4:], patch_centres(height, width)[patch]) * one.patch_px.repeat(2)
    boxes = torch.minimum(boxes.clamp_min(0), torch.tensor([one.size[1], one.size[0]]).repeat(2))
    solid = (boxes[:, 2:] - boxes[:, :2] > 1e-3).all(1)
    boxes, label, patch = boxes[solid], label[solid], patch[solid]
    # Classes lie side by side for the suppression, so that boxes of two never meet.
    apart = 2.0 * max(one.size) * label[:, None]
    kept = nms(boxes.double() + apart, scores[patch, label], SAME_IOU)
    found = (boxes[kept], label[kept], scores[patch, label][kept])
    return Detections(*(part.numpy() for part in (found[0].double(), found[1], found[2].double())))
