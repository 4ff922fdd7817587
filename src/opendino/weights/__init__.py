"""Weights on disk: find, recognise, read safely, map keys, load, write.

Here: `load` (a name, a run, a model folder, any weights file of the family), `write_model` (a folder that opens with
`load` and, where possible, with transformers), `write_official`, `read_passport` (what a file is), with their parts:
`where`, `hub`, `licences` (where weights come from); `read`, `apart`, `pickles` (untrusted files); `folder`,
`recognise`, `shapes`, `coverage`, `opened` (what a file holds); `keys` and `keys_*` (key maps as data), `config_hf`
(config.json both ways); `by_timm` (models outside the family, frozen). Not here: training checkpoints (`train`),
building by name (`models.family`). To add a layout: one key map, a line in `recognise`, a round-trip test.
"""

from opendino.weights.load import load
from opendino.weights.passport import Passport, read_passport
from opendino.weights.write import write_model, write_official

__all__ = ["Passport", "load", "read_passport", "write_model", "write_official"]
