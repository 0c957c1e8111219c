"""The stages of the pipeline, one module each: what it reads, what it writes, what it guarantees."""
