"""Weights on disk: recognise, read safely, map keys, load, write.

Here: `load` (a run, a model folder) and `write_model` (a folder that opens with `load` and, for ViT and ConvNeXt, with
transformers), with their parts: `config_hf` (config.json both ways, numbers bounded before anything is allocated),
`keys_hf` (key maps as data), `read` (safetensors alone; pickles are refused). Not here: training checkpoints
(`train`), building by name (`models.family`). To add a layout: one key map, a config reader, a round-trip test.
"""

from opendino.weights.load import load
from opendino.weights.write import write_model

__all__ = ["load", "write_model"]
