"""How one family is trained and probed: plain torch. Only `trainable.py` knows Ray."""
