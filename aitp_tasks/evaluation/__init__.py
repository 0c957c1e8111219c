"""Proof that a fine-tune has helped: losses, answers and benchmarks, intervals, what is promoted."""
