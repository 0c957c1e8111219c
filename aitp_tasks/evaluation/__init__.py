"""Proof that a fine-tune has helped: losses on held-out data, intervals, what is promoted."""
