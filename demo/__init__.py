"""The demonstration: the whole pipeline on one machine, on real input, with one command."""
