"""Gaussian kernel densities of many points: ``grid``, ``field``, and the compiled ``loops`` of both."""
