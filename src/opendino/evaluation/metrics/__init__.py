"""Numbers about numbers: published metrics and intervals. Pure functions on arrays; no model, no picture, no file.

Written here is what no maintained library has in the published form; average precision of boxes is faster-coco-eval's,
torchmetrics and scikit-learn are oracles of the tests. Every function is pinned by values worked out by hand or by the
metric's official code.
"""
