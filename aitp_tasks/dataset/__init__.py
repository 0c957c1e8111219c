"""The files of a dataset version, in every form that it is handed on in."""
