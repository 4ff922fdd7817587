"""Overlap of boxes at values by hand; the loss of detection has one for no object too."""

import torch

from opendino.losses.detection import detection_loss, generalised_iou


def test_generalised_iou_at_values_by_hand():
    one = torch.tensor([[0.0, 0, 2, 2]]).expand(4, 4)
    other = torch.tensor([[0.0, 0, 2, 2], [1, 0, 3, 2], [4, 0, 6, 2], [0, 0, 1, 1]])
    # Overlap 1, 1/3, 0 with a third of the box around both empty, 1/4.
    torch.testing.assert_close(generalised_iou(one, other), torch.tensor([1, 1 / 3, -1 / 3, 1 / 4]))


def test_without_objects_there_is_a_loss_and_a_gradient():
    logits = torch.zeros(5, 3, requires_grad=True)
    nowhere = torch.zeros(0, 4)
    detection_loss(logits, torch.zeros(5, 3), nowhere, nowhere).backward()
    assert (logits.grad > 0).all()
    assert torch.isfinite(detection_loss(torch.full((5, 3), 90.0), torch.zeros(5, 3), nowhere, nowhere))


def test_it_is_a_mean_over_objects():
    logits, wanted = torch.tensor([[1.0, -2], [-3, -1]]), torch.tensor([[1.0, 0], [0, 0]])
    box, truth = torch.tensor([[0.0, 0, 2, 2]]), torch.tensor([[1.0, 0, 3, 2]])
    once = detection_loss(logits, wanted, box, truth)
    # By hand: 0.25 (1 - p)^2 (-log p) for the object, 0.75 p^2 (-log(1 - p)) for the other three, 1 - 1/3 for the box.
    p = logits.sigmoid()
    focal = 0.25 * (1 - p[0, 0]) ** 2 * -p[0, 0].log()
    focal += sum(0.75 * one**2 * -(1 - one).log() for one in (p[0, 1], p[1, 0], p[1, 1]))
    torch.testing.assert_close(once, focal + 2 / 3)
    twice = detection_loss(*(one.repeat(2, 1) for one in (logits, wanted, box, truth)))
    torch.testing.assert_close(twice, once)
