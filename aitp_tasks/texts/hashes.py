"""Runs of words as numbers of 64 bits, to be looked up in arrays.

A run is the sum of its words' hashes (xxh3), each times a power of an odd number. That two
different runs are one number is as likely as with any hash of almost as many bits.
"""

from collections.abc import Sequence

import numpy as np
import xxhash
from numpy.typing import NDArray

from aitp_tasks.texts import plain

#: Odd, so that no word is lost by it, and 3 modulo 4, so that hardly any order of words is.
_FACTOR = np.uint64(0x9E3779B97F4A7C17)
_CACHED_WORDS = 1 << 20

Hashes = NDArray[np.uint64]


def runs(hashes: Hashes, length: int) -> Hashes:
    """The number of each run of so many words, uint64 (words - length + 1,)."""
    if len(hashes) < length:
        return np.empty(0, np.uint64)
    sums = np.zeros(len(hashes) - length + 1, np.uint64)
    for place in range(length):
        sums *= _FACTOR
        sums += hashes[place : place + len(sums)]
    return sums


class Hasher:
    """Hashes of words; those that were seen are remembered, up to a number."""

    def __init__(self) -> None:
        self._known = _Known()

    def of(self, text: str) -> Hashes:
        """Of the words of a text, uint64 (words,)."""
        return self.of_words(plain.split(text))

    def of_words(self, words: Sequence[str]) -> Hashes:
        """Of some words, uint64 (words,)."""
        if len(self._known) > _CACHED_WORDS:
            self._known.clear()
        return np.fromiter(map(self._known.__getitem__, words), np.uint64, len(words))


class _Known(dict[str, int]):
    """Words with their hashes, each made when it is first asked for."""

    def __missing__(self, word: str) -> int:
        self[word] = made = xxhash.xxh3_64_intdigest(word.encode("utf-8", "surrogatepass"))
        return made
