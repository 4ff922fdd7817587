"""Every network: backbones, their small parts, training heads.

Here: `contract.py` (what a backbone returns and answers to), one file a backbone (`vit`, `convnext`, and two small
students that are not of the paper: `conv_mini`, `kmeans_stem`), `family.py` (the table of names), `heads.py`. Not here:
files, losses, process groups. To add a backbone: one file that fulfils the contract, a row in `family.py`, a key map in
`weights/`, an instance in `tests/contract/`, a parity test against independent code where some exists.
"""
