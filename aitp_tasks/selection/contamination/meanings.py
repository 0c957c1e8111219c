"""Items that say the same as a row in other words: by the vectors of both.

An item's text is that of an SFT example of its question and answer. Items are searched for
in the index of the run's SFT side, which holds the pairs of earlier versions too; new pairs
are compared with all items as they are embedded.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from aitp_tasks.encoder.opened import Encoder
from aitp_tasks.inputs.benchmarks import Item
from aitp_tasks.inputs.paths import decode
from aitp_tasks.inputs.rows import Refusal
from aitp_tasks.records.vectors import Values, Vectors
from aitp_tasks.vector_index import library
from aitp_tasks.vector_index.opened import OpenIndex

#: Neighbours that are looked at first; more, where all of them are near.
_NEIGHBOURS = 8
_BATCH = 1024

Embedded = Iterable[tuple[Vectors, dict[int, Refusal]]]


class Near(NamedTuple):
    """The nearest item, by its number, and its cosine."""

    similarity: float
    item: int


class Meanings:
    """The vectors of all items."""

    def __init__(self, items: Sequence[Item], encoder: Encoder, limit: float) -> None:
        """Embed the items; what has no text has no vector.

        Args:
            items: of all sets.
            encoder: of the run.
            limit: cosine above which two texts are near.
        """
        self._limit = limit
        texts = (decode("\n".join(filter(None, (item.question, item.answer)))) for item in items)
        numbers, values = [], []
        for found, _ in encoder.vectors_of(texts):
            numbers.append(found.rows)
            values.append(found.values)
        self._numbers = np.concatenate([*numbers, np.empty(0, np.int64)]).astype(np.int64)
        dimension = encoder.backend.dimension
        self._values: Values = np.concatenate([*values, np.empty((0, dimension), np.float16)])
        self._index = library.flat(self._values, self._numbers)

    def of(self, values: Values) -> list[Near | None]:
        """Of each vector, the nearest item if it is near."""
        similarities, items = library.search(self._index, values, 1)
        if not similarities.shape[1]:
            return [None] * len(values)
        return [
            Near(similarity, item) if similarity > self._limit else None
            for similarity, item in zip(similarities[:, 0].tolist(), items[:, 0].tolist(), strict=True)
        ]

    def in_index(self, index: OpenIndex) -> dict[str, Near]:
        """Of each text in an index that an item is near to, by its id, the nearest item."""
        found: dict[str, Near] = {}
        for start in range(0, len(self._numbers), _BATCH):
            for text_id, near in self._neighbours(index, start, _NEIGHBOURS):
                found[text_id] = max(near, found.get(text_id, near))
        return found

    def _neighbours(self, index: OpenIndex, start: int, count: int) -> Iterator[tuple[str, Near]]:
        left = np.arange(start, min(start + _BATCH, len(self._numbers)))
        while len(left):
            similarities, ids = index.search(self._values[left], count)
            close = similarities > self._limit
            texts = iter(index.places(ids[close])["doc_id"].to_pylist())
            again = []
            for row, place in enumerate(left.tolist()):
                near = similarities[row][close[row]].tolist()
                if len(near) == count < index.size:
                    again.append(place)
                yield from ((next(texts), Near(similarity, int(self._numbers[place]))) for similarity in near)
            left, count = np.array(again, np.int64), 2 * count
