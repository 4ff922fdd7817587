"""What a run says about itself: measurements of health, their words, the log of numbers, incidents, the verdict.

Here: pure measurements on tensors that a method hands over, two append-only JSON-lines files, and sentences a person
understands. Not here: k-NN and other scores (evaluation), pictures and the report (pages), the end of a run (train).
To add a gauge: a field of `Health` with its formula, its threshold as a named constant with the reason, a sentence in
`alarms` that names the config key to change, and a test with synthetic numbers for the sick and the healthy case.
"""
