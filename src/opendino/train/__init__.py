"""Training: one loop, and what it needs: config, schedules, optimizer groups, checkpoints, the run directory.

A stage or way of training is a method (`methods/`): it brings modules and losses, the loop brings steps. Not here:
decoding and augmentation (`data`), formulas (`losses`), what is shown to people (`pages`), commands (`cli`). To add a
way of training: one file in `methods/` that fulfils `method.Method`, one recipe.
"""
