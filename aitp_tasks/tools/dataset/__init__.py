"""dataset: the versions of a dataset: looked at, compared, taken back, copied; and marks of their pairs.

One module an action. All of them take the configuration that names the root and the dataset;
what is found they print for a person on standard error. Only ``mark`` and ``rollback`` write to
the storage, a small object each.
"""
