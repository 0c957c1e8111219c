"""Compressions by their endings, made by the libraries of others; none for nothing."""

import bz2
import gzip
import lzma
from collections.abc import Callable
from functools import partial

import zstandard

PACKED: dict[str, Callable[[bytes], bytes]] = {
    "": bytes,
    # Without the time, so that the same bytes come out.
    ".gz": partial(gzip.compress, mtime=0),
    ".zst": lambda data: zstandard.ZstdCompressor(write_checksum=True).compress(data),
    ".bz2": bz2.compress,
    ".xz": lzma.compress,
}
