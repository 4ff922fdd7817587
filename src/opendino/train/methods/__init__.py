"""Ways of training, one file each; see `train/method.py` for what the loop asks of them."""
