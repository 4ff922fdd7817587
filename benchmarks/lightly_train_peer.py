"""Our training step and our crops beside lightly-train's DINOv2, same model, crops, prototypes, batch and dtype.

    python -m venv peer && peer/bin/pip install lightly-train -e .[fast]
    peer/bin/python -m benchmarks.lightly_train_peer

lightly-train is AGPL: it gets an environment of its own and is no dependency. One core, fp32, one interleaved run. The
step: ViT-S/16, teacher and student, DINO with Sinkhorn, iBOT with its own head, KoLeo, backward, clip, AdamW, EMA.
Crops: from a decoded picture for both parts; decoding is added as its own row.
"""

from __future__ import annotations

import argparse
import io
from statistics import median
from types import SimpleNamespace

import torch
from PIL import Image

from benchmarks.clock import gemm, interleaved, ratio
from benchmarks.loader import PICTURES, drawn_jpegs
from benchmarks.torchvision_import import allow_torchvision
from opendino.data.augment import augment
from opendino.data.config import ColorConfig, CropConfig, DataConfig, MaskConfig
from opendino.data.crops import cut
from opendino.data.draws import ColorDraws, draw
from opendino.data.images import read
from opendino.data.loader import Crops
from opendino.data.masks import block_masks
from opendino.models.family import build_model
from opendino.train.methods.self_distillation import SelfDistillation, SelfDistillationConfig
from opendino.train.optim import OptimConfig, build_optimizer, clip_gradients

NUM_LOCALS = 8


def our_step(batch: int, prototypes: int):
    """A function that makes one step on fixed crops; and the number of trained parameters."""
    settings = SelfDistillationConfig(prototypes=prototypes, ibot_prototypes=prototypes)
    method = SelfDistillation(build_model("vits16"), settings, 1000)
    optimizer = build_optimizer(method.trained(), OptimConfig())
    masks = torch.from_numpy(block_masks(0, 0, 0, 2 * batch, (14, 14), MaskConfig()))
    crops = Crops(
        torch.randn(2 * batch, 3, 224, 224),
        torch.randn(NUM_LOCALS * batch, 3, 96, 96),
        None,
        masks,
        torch.arange(batch),
        tuple(map(str, range(batch))),
        (),
    )

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        for terms in method.losses(crops, 0):
            terms.total.backward()
        clip_gradients(method.trained(), 3.0)
        optimizer.step()
        method.after_step(0)

    return step, sum(p.numel() for p in method.student.parameters())


def their_step(batch: int, prototypes: int):
    """The same of lightly-train, its own method driven as Lightning drives it."""
    from lightly_train._methods.dinov2.dinov2 import DINOv2, DINOv2AdamWViTArgs, DINOv2Args
    from lightly_train._models.dinov2_vit.dinov2_vit_package import DINOv2ViTPackage
    from lightly_train._models.embedding_model import EmbeddingModel

    network = DINOv2ViTPackage.get_model(
        "vits14-noreg", model_args={"patch_size": 16, "drop_path_rate": 0.0, "img_size": 224}, load_weights=False
    )
    arguments = DINOv2Args(
        output_dim=prototypes, ibot_separate_head=True, center_method="sinkhorn_knopp", weight_decay_start=0.04
    )
    method = DINOv2(
        arguments, DINOv2AdamWViTArgs(), EmbeddingModel(DINOv2ViTPackage.get_model_wrapper(network)), batch, 3
    )
    method._trainer = SimpleNamespace(  # the four things it asks of a Lightning trainer
        global_step=2000, max_epochs=1, estimated_stepping_batches=100_000, gradient_clip_algorithm=None
    )
    method._fabric = None
    (optimizer,), _ = method.configure_optimizers()
    views = [torch.randn(batch, 3, 224, 224) for _ in range(2)]
    views += [torch.randn(batch, 3, 96, 96) for _ in range(NUM_LOCALS)]
    trained = [p for group in optimizer.param_groups for p in group["params"]]

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        method.training_step_impl({"views": views, "filename": []}, 0).loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, arguments.gradient_clip_val)
        method.on_before_optimizer_step(optimizer)
        optimizer.step()
        DINOv2.on_train_batch_end(method, None, {"views": views}, 0)

    return step, sum(p.numel() for p in trained)


def crop_calls(width: int, height: int):
    """Callables for 16 pictures each: our worker's part, all of ours, theirs; and the two decoders."""
    from lightly_train._methods.dinov2.dinov2_transform import DINOv2ViTTransform, DINOv2ViTTransformArgs

    crops, color, data = CropConfig(global_px=224, local_px=96, num_locals=NUM_LOCALS), ColorConfig(), DataConfig()
    files = drawn_jpegs(width, height)
    arrays = [read(file).array for file in files]
    draws = [draw(0, 0, i, crops, color, height, width) for i in range(PICTURES)]
    cuts = [cut(array, one) for array, one in zip(arrays, draws, strict=True)]
    batches = [
        (torch.stack([c[v] for v in views for c in cuts]), ColorDraws.stack(draws, slice(views.start, views.stop)))
        for views in (range(2), range(2, crops.num_views))
    ]
    arguments = DINOv2ViTTransformArgs()
    arguments.resolve_auto()
    arguments.resolve_incompatible()
    theirs = DINOv2ViTTransform(arguments)

    def worker() -> None:
        for index, array in enumerate(arrays):
            cut(array, draw(0, 0, index, crops, color, *array.shape[:2]))

    def on_device() -> None:
        for pixels, batch in batches:
            augment(pixels, batch, data.mean, data.std)

    return {
        "decode, ours": lambda: [read(file) for file in files],
        "decode, Pillow": lambda: [Image.open(io.BytesIO(file)).convert("RGB").tobytes() for file in files],
        "crops of a worker, ours": worker,
        "crops with colour on the CPU, ours": lambda: (worker(), on_device()),
        "crops with colour, lightly-train": lambda: [theirs({"image": array}) for array in arrays],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--prototypes", type=int, default=65_536)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    allow_torchvision()
    torch.manual_seed(0)
    ours, our_size = our_step(arguments.batch, arguments.prototypes)
    theirs, their_size = their_step(arguments.batch, arguments.prototypes)
    reference, flop = gemm()
    seconds = interleaved(
        {"GEMM": reference, "step, ours": ours, "step, lightly-train": theirs, **crop_calls(500, 375)}, arguments.rounds
    )
    print(f"GEMM {flop / median(seconds['GEMM']) / 1e9:.0f} GFLOP/s; trained: ours {our_size:,}, theirs {their_size:,}")
    for name, values in seconds.items():
        print(f"  {name:36} {1000 * median(values):9.1f} ms")
    decode = "decode, ours", "decode, Pillow"
    peer = seconds["crops with colour, lightly-train"]
    with_decode = [a + b for a, b in zip(seconds[decode[1]], peer, strict=True)]
    worker, everything = (
        [a + b for a, b in zip(seconds[decode[0]], seconds[name], strict=True)]
        for name in ("crops of a worker, ours", "crops with colour on the CPU, ours")
    )
    print(f"step:                           {ratio(seconds['step, ours'], seconds['step, lightly-train'])} times (1.3)")
    print(f"worker, decode + crops:         {ratio(worker, with_decode)} times (3.5)")
    print(f"decode + crops + colour, CPU:   {ratio(everything, with_decode)} times")


if __name__ == "__main__":
    main()
