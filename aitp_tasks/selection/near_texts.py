"""Near-duplicates of text: pairs that share most of their runs of words with another text.

MinHash-LSH (rensa) finds candidates, and what they share is counted exactly: the Jaccard
index of the sets of runs of ``SHINGLE`` words of question and answer, in words as they are
compared. Of 128 values in 32 bands, a text of similarity 0.6 is found with a probability of
0.988, one of 0.7 with 0.9998. Texts of fewer words are one run.

Held are the runs of the new pairs, 8 bytes each, and of no other text.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from rensa import RMinHash, RMinHashLSH

from aitp_tasks.texts.hashes import Hasher, Hashes, runs

SHINGLE = 3
_PERMUTATIONS, _BANDS = 128, 32
_SEED = 42

#: The different runs of a text, rising.
Shingles = Hashes


@dataclass(frozen=True)
class Near:
    """What a pair is a near-duplicate of, and how much they share."""

    similarity: float
    name: str


class NearTexts:
    """The new pairs, and what is near to each of them."""

    def __init__(self, pairs: Iterable[tuple[str, str]], limit: float) -> None:
        """Take in the pairs, as id and text in the order in which they are taken; none are near yet.

        Args:
            pairs: the new ones.
            limit: largest similarity of a pair that is kept.
        """
        self._limit = limit
        self._hasher = Hasher()
        self._names: list[str] = []
        self._shingles: list[Shingles] = []
        self._hashes: list[RMinHash] = []
        self._index = _empty()
        self._outside: dict[int, Near] = {}
        for name, text in pairs:
            shingles = self._shingles_of(text)
            self._names.append(name)
            self._shingles.append(shingles)
            self._hashes.append(_min_hash(shingles))
            if len(shingles):
                self._index.insert(len(self._names) - 1, self._hashes[-1])

    def see(self, name: str, text: str) -> None:
        """Compare the pairs with an SFT example or an earlier pair."""
        shingles = self._shingles_of(text)
        if not self._names or not len(shingles):
            return
        for place in self._index.query(_min_hash(shingles)):
            similarity = jaccard(self._shingles[place], shingles)
            if similarity > self._limit:
                near = Near(similarity, name)
                self._outside[place] = max(
                    near, self._outside.get(place, near), key=lambda one: one.similarity
                )

    def near(self) -> dict[str, Near]:
        """By its id, what each pair is near to that does not stay: what was seen, or a pair that stays."""
        found: dict[str, Near] = {}
        stays = _empty()
        for place, name in enumerate(self._names):
            candidates = stays.query(self._hashes[place]) if len(self._shingles[place]) else []
            nearest = [
                Near(jaccard(self._shingles[place], self._shingles[other]), self._names[other])
                for other in sorted(candidates)
            ]
            outside = [self._outside[place]] if place in self._outside else []
            best = max([*outside, *nearest], key=lambda one: one.similarity, default=None)
            if best is not None and best.similarity > self._limit:
                found[name] = best
            elif len(self._shingles[place]):
                stays.insert(place, self._hashes[place])
        return found

    def _shingles_of(self, text: str) -> Shingles:
        hashes = self._hasher.of(text)
        return np.unique(runs(hashes, min(SHINGLE, len(hashes)))) if len(hashes) else hashes


def jaccard(one: Shingles, other: Shingles) -> float:
    """Share of all different runs of two texts that both have."""
    shared = len(np.intersect1d(one, other, assume_unique=True))
    return shared / max(len(one) + len(other) - shared, 1)


def _min_hash(shingles: Shingles) -> RMinHash:
    made = RMinHash(num_perm=_PERMUTATIONS, seed=_SEED)
    data = shingles.tobytes()
    made.update([data[start : start + 8] for start in range(0, len(data), 8)])
    return made


def _empty() -> RMinHashLSH:
    # What is a candidate follows from the bands; the threshold is of a question that is not asked.
    return RMinHashLSH(threshold=0.7, num_perm=_PERMUTATIONS, num_bands=_BANDS)
