"""Boxes told by patches: there and back, and finite when they are wild."""

import torch

from opendino.models.patch_boxes import decode_boxes, encode_boxes, patch_centres


def test_boxes_come_back_from_any_patch():
    centres = patch_centres(3, 4)
    assert centres[0].tolist() == [0.5, 0.5] and centres[4].tolist() == [0.5, 1.5] and len(centres) == 12
    boxes = torch.rand(12, 4) * torch.tensor([4, 3, 0, 0])
    boxes[:, 2:] = boxes[:, :2] + torch.rand(12, 2) * 5 + 0.01
    torch.testing.assert_close(decode_boxes(encode_boxes(boxes, centres), centres), boxes)
    middle = encode_boxes(torch.tensor([[0.0, 0, 2, 4]]), torch.tensor([[0.5, 2.5]]))
    torch.testing.assert_close(middle, torch.tensor([[0.5, -0.5, 0.693147, 1.386294]]))
    assert torch.isfinite(decode_boxes(torch.full((1, 4), 1e4), torch.zeros(1, 2))).all()
