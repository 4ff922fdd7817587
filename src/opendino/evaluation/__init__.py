"""Scores of frozen features: one file a protocol, each a function from features and labels to numbers with intervals.

Here: k-NN, the linear probe, baselines without learning, the tile task of the demo, the probe that training calls, and
`metrics/` (intervals). Not here: extraction (features), pictures (pages), the choice of when to score (train, cli).
Rules: statistics and settings are fitted on the bank or on training pictures, never on queries; every number carries
its count and a 95 % interval; `Result` is what leaves the room. To add a protocol: one file with a function, a slow
oracle in the tests, its settings in `Result.config`.
"""
