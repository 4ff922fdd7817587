"""Multi-crop loading by part, per picture and core, beside DINOv2's way (torchvision on Pillow) in the same run.

    python -m benchmarks.loader [--px 500x375] [--rounds 9]

CPU milliseconds per picture, one thread. The pictures are drawn noise over a gradient, so decode is pessimistic.
"""

from __future__ import annotations

import argparse
import io
from statistics import median

import numpy as np
import torch
from PIL import Image

from benchmarks.clock import interleaved, ratio
from benchmarks.torchvision_import import allow_torchvision
from opendino.data.augment import augment
from opendino.data.config import ColorConfig, CropConfig, DataConfig, MaskConfig
from opendino.data.crops import cut
from opendino.data.draws import ColorDraws, draw
from opendino.data.images import read
from opendino.data.masks import block_masks

PICTURES = 16


def drawn_jpegs(width: int, height: int) -> list[bytes]:
    files = []
    for index in range(PICTURES):
        rng = np.random.default_rng(index)
        y, x = np.mgrid[:height, :width]
        pixels = np.stack([x * 255 / width, y * 255 / height, (x + y) * 100 / width], -1) + rng.normal(
            0, 12, (height, width, 3)
        )
        file = io.BytesIO()
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(file, "JPEG", quality=88)
        files.append(file.getvalue())
    return files


def torchvision_pipeline(crops: CropConfig, color: ColorConfig):
    """DINOv2's augmentations as its users run them: torchvision v2 on Pillow pictures, one crop at a time."""
    allow_torchvision()
    from torchvision.transforms import v2

    def view(size: int, scale: tuple[float, float], blur: float, solarise: float):
        jitter = v2.ColorJitter(color.brightness, color.contrast, color.saturation, color.hue)
        return v2.Compose(
            [
                v2.RandomResizedCrop(size, scale, interpolation=v2.InterpolationMode.BICUBIC),
                v2.RandomHorizontalFlip(),
                v2.RandomApply([jitter], color.jitter_prob),
                v2.RandomGrayscale(color.grey_prob),
                v2.RandomApply([v2.GaussianBlur(9, color.blur_sigma)], blur),
                v2.RandomSolarize(128, solarise),
                v2.PILToTensor(),
                v2.ToDtype(torch.float32, scale=True),
                v2.Normalize(DataConfig().mean, DataConfig().std),
            ]
        )

    views = [
        view(crops.global_px, crops.global_scale, color.blur_prob[0], color.solarise_prob[0]),
        view(crops.global_px, crops.global_scale, color.blur_prob[1], color.solarise_prob[1]),
        *[view(crops.local_px, crops.local_scale, color.blur_prob[2], color.solarise_prob[2])] * crops.num_locals,
    ]
    return lambda picture: [one(picture) for one in views]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--px", default="500x375")
    parser.add_argument("--globals", type=int, default=224)
    parser.add_argument("--locals", type=int, default=96)
    parser.add_argument("--num-locals", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=9)
    arguments = parser.parse_args()
    width, height = map(int, arguments.px.split("x"))
    crops = CropConfig(global_px=arguments.globals, local_px=arguments.locals, num_locals=arguments.num_locals)
    color, data = ColorConfig(), DataConfig()
    files = drawn_jpegs(width, height)
    arrays = [read(file).array for file in files]
    draws = [draw(0, 0, i, crops, color, height, width) for i in range(PICTURES)]
    cuts = [cut(array, one) for array, one in zip(arrays, draws, strict=True)]
    batches = [
        (torch.stack([c[v] for v in views for c in cuts]), ColorDraws.stack(draws, slice(views.start, views.stop)))
        for views in (range(2), range(2, crops.num_views))
    ]
    theirs = torchvision_pipeline(crops, color)
    grid = (max(1, crops.global_px // 16),) * 2

    def ours_to_crops() -> None:
        for index, file in enumerate(files):
            array = read(file).array
            cut(array, draw(0, 0, index, crops, color, *array.shape[:2]))

    def ours_on_device() -> None:
        for crops_u8, batch in batches:
            augment(crops_u8, batch, data.mean, data.std)

    calls = {
        "decode": lambda: [read(file) for file in files],
        "draw": lambda: [draw(0, 0, i, crops, color, height, width) for i in range(PICTURES)],
        "cut (uint8 bicubic)": lambda: [cut(a, d) for a, d in zip(arrays, draws, strict=True)],
        "masks": lambda: block_masks(0, 0, 0, 2 * PICTURES, grid, MaskConfig()),
        "colour, blur, normalise": ours_on_device,
        "worker: decode + draw + cut": ours_to_crops,
        "all on the CPU": lambda: (ours_to_crops(), ours_on_device()),
        "torchvision on Pillow": lambda: [theirs(Image.open(io.BytesIO(file)).convert("RGB")) for file in files],
    }
    seconds = interleaved(calls, arguments.rounds)
    print(f"{arguments.px}, 2 x {crops.global_px} + {crops.num_locals} x {crops.local_px}, torch {torch.__version__}")
    for name, values in seconds.items():
        print(f"  {name:30} {1000 * median(values) / PICTURES:7.2f} ms")
    peer = seconds["torchvision on Pillow"]
    print(f"worker against torchvision:  {ratio(seconds['worker: decode + draw + cut'], peer)} times   (target 12)")
    print(f"all on the CPU against it:   {ratio(seconds['all on the CPU'], peer)} times")


if __name__ == "__main__":
    main()
