"""Features of a bucket of pictures on a Ray cluster, as Parquet. Needs `pip install 'ray[data]' opendino`.

    python examples/ray_features.py s3://bucket/pictures RUN s3://bucket/features --workers 8 --gpus 1

Each worker opens the model once; pictures are read and prepared as by `opendino embed`, and run one at a time in fp32.
A picture that cannot be read gives a row with its reason and no vector: nothing is lost in silence.
"""

from __future__ import annotations

import argparse
import dataclasses
from typing import Any

import numpy as np
import ray
import torch

import opendino
from opendino.data.images import Reading
from opendino.errors import DataError
from opendino.features.encode import read_picture
from opendino.features.identity import model_hash, transform_hash
from opendino.features.precision import mean_of_valid, run


class Embed:
    """A worker: a model, and rows of bytes to rows of vectors."""

    def __init__(self, model: str) -> None:
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.model: Any = opendino.load(model, self.device)
        self.transform = dataclasses.replace(self.model.transform, mode="padded", patch=self.model.patch)
        self.hashes = model_hash(self.model), transform_hash(self.transform)

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        made = {"id": row["path"], "model_hash": self.hashes[0], "transform_hash": self.hashes[1]}
        try:
            prepared = self.transform.prepare(read_picture(row["bytes"], row["path"], Reading(), self.transform))
        except DataError as error:
            empty = np.full(self.model.dim, np.nan, np.float32)
            return {**made, "cls": empty, "mean": empty, "skipped": str(error)}
        features = run(self.model, prepared.pixels[None], "fp32", self.device)
        mean = mean_of_valid(features.patches[0], prepared.valid)
        return {**made, "cls": features.cls[0].numpy(), "mean": mean.numpy(), "skipped": ""}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pictures")
    parser.add_argument("model")
    parser.add_argument("out")
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--gpus", type=float, default=0, help="of each worker")
    arguments = parser.parse_args()
    rows = ray.data.read_binary_files(arguments.pictures, include_paths=True)
    worker = {"fn_constructor_args": (arguments.model,), "concurrency": arguments.workers, "num_gpus": arguments.gpus}
    rows.map(Embed, **worker).write_parquet(arguments.out)


if __name__ == "__main__":
    main()
