"""From densities to a sample of the difference set, and from pairs to those that are new."""
