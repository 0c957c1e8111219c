"""Indexes of vectors: what is nearest to a vector, and in which shard and row it lies.

Modules, from the bottom up: ``library`` (the one door to FAISS), ``lists``
(encoded vectors, and how any number of them merge on disk), ``quantiser`` (what
encodes them, trained once), ``places`` (where a document lies), ``build`` (all
of it for one set), ``opened`` (an index to search in).
"""
