"""Scores of frozen features: protocols from data and a frozen backbone to numbers with intervals.

Here: `suite` (a row a protocol, built or not), `protocol` (the types that they share), the protocols (`classification`,
`segmentation`, `detection`, `discovery`, `vos`, ...), `datasets/` (published layouts), `metrics/`, `record` (files
and tables of results), the probe that training calls, baselines and the demo's tile task. Not here: extraction
(features), pictures (pages), the choice of when to score (train, cli).
Rules: statistics and settings are fitted on the bank or on training pictures, never on queries; every number carries
its count and a 95 % interval; `Result` is what leaves the room. To add a protocol: one file, one row of `suite`, a
fixture of ten pictures in the published layout (`tests/evaluation/layouts/`), an oracle test.
"""
