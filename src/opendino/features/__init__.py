"""Turning pictures into numbers with a frozen backbone, keeping and finding them.

Here: `extract` (CLS and patch tokens of a source in memory), the store (`open_store`, `embed_source`: resumable, in
Lance), tiles of large pictures, exact search. Not here: what is done with them (evaluation, pages), training.
To add a kind of feature: a field of `Bank`, or a column of `rows.schema_of`, named and sized in its docstring, and a
test against one picture at a time. To add a form of stored patches: a branch of `codec.PatchCodec`.
"""

from opendino.features.extract import Bank, extract
from opendino.features.store import Store, open_store

__all__ = ["Bank", "Store", "extract", "open_store"]
