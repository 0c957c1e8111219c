"""Kernel densities of projected vectors: mathematics that knows no storage and no run."""
