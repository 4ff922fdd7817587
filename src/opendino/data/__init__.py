"""Pictures in, training batches out; every random choice is a function of (seed, stage, position).

Holds: the one reader of picture files (`images`), what a folder or tar of pictures is (`sources`, `listing`, `folder`,
`tar`), the order (`order`), the random numbers of a sample (`draws`), cutting crops on the CPU (`crops`), colour work
on the device (`augment`), block masks (`masks`), the loader that joins them, and the transform that inference uses.
Holds no model, no loss, no step counter.

To add a picture kind: see `images/__init__.py`, with golden pixels in `tests/data`. To add a
kind of source: a class with the members of `sources.Source`, and a line in `sources.open_source`.
"""
