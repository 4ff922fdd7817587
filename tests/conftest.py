"""Shared test set-up: one thread for equal numbers, and the torchvision oracle on a CPU-only torch."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch

torch.set_num_threads(1)

if torch.version.cuda is None:
    # The registry's torchvision wheel links CUDA and its operators never load on a CPU build of torch; the two
    # definitions let its Python half (transforms, used as an oracle) import. The object must stay alive.
    _torchvision_ops = torch.library.Library("torchvision", "DEF")
    for _name in ("nms", "qnms"):
        _torchvision_ops.define(f"{_name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
