"""Turning pictures into numbers with a frozen backbone.

Here: extraction of CLS and patch tokens from a source. Not here: what is done with them (evaluation, pages), training.
To add a kind of feature: a field of `Bank`, named and sized in its docstring, and a test against one picture at a time.
"""

from opendino.features.extract import Bank, extract

__all__ = ["Bank", "extract"]
