"""near_duplicates: which new pairs say what the dataset has already.

Each pair gets the vector that it would have as an SFT example, and is compared
with the index of the run's SFT side, which holds the pairs of earlier versions
too, and with the new pairs that were kept before it.

Reads the SFT index, and holds the vectors of the pairs kept, 4 bytes a component, where it
compares each with all of them: quadratic in their number, linear in the SFT set. What stays of a
vector otherwise is where it lies.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from aitp_tasks.densities.grid import Points
from aitp_tasks.inputs.rows import Refusal
from aitp_tasks.records.pair_texts import Pair
from aitp_tasks.records.vectors import Values, Vectors
from aitp_tasks.vector_index import library
from aitp_tasks.vector_index.opened import OpenIndex

#: A pair that was left out, its cosine to the nearest, and what that is: an SFT
#: example or an earlier version's pair with its place, or a pair of this run.
SCHEMA = pa.schema(
    [
        ("pair_id", pa.string()),
        ("question", pa.large_string()),
        ("similarity", pa.float64()),
        ("nearest_pair_id", pa.string()),
        ("nearest_doc_id", pa.string()),
        ("nearest_shard", pa.string()),
        ("nearest_row", pa.int64()),
    ]
)


#: Says where vectors lie.
Place = Callable[[Values], Points]


@dataclass
class Selection:
    """Which pairs are new.

    Attributes:
        kept: those that are.
        duplicates: those left out, rows of ``SCHEMA``.
        points: where the pairs kept lie, float64 (k,), by their ids; a pair may lie nowhere.
    """

    kept: list[Pair] = field(default_factory=list)
    duplicates: list[dict[str, Any]] = field(default_factory=list)
    points: dict[str, Points] = field(default_factory=dict)


def select(
    pairs: list[Pair],
    embedded: Iterable[tuple[Vectors, dict[int, Refusal]]],
    index: OpenIndex | None,
    limit: float,
    place: Place,
) -> Selection:
    """The pairs that are no near-duplicates.

    A pair that has no vector, which its quarantine in the next run will say, is kept.

    Args:
        pairs: in the order in which they are taken.
        embedded: the vectors of the pairs as SFT examples, made as they are asked for; see
            ``Encoder.vectors_of``.
        index: of the run's SFT side; without it, all pairs are kept.
        limit: largest cosine of a pair that is kept.
        place: where vectors float16 (n, d) lie, float64 (n, k).

    Raises:
        InputError: the index is damaged.
    """
    found = Selection()
    duplicates: list[tuple[Pair, _Nearest]] = []
    known = _Known(index, limit) if index is not None else None
    for pair, point, nearest in _with_nearest(pairs, embedded, known, place):
        if nearest is not None:
            duplicates.append((pair, nearest))
            continue
        found.kept.append(pair)
        if point is not None:
            found.points[str(pair["pair_id"])] = point
    if index is not None:
        found.duplicates += _rows(duplicates, index)
    return found


class _Nearest(NamedTuple):
    """What a pair is a near-duplicate of: a kept pair, or what the index has under an id."""

    similarity: float
    pair_id: str = ""
    index_id: int = -1


def _with_nearest(
    pairs: list[Pair],
    embedded: Iterable[tuple[Vectors, dict[int, Refusal]]],
    known: "_Known | None",
    place: Place,
) -> Iterator[tuple[Pair, Points | None, _Nearest | None]]:
    """Each pair with its point, and with what it is a near-duplicate of."""
    for found, refused in embedded:
        places = found.rows.tolist()
        ids = [str(pairs[row]["pair_id"]) for row in places]
        nearest = known.add(found.values, ids) if known is not None else [None] * len(ids)
        # Copied: a view would keep all points of the chunk.
        points = [point.copy() for point in place(found.values)] if places else []
        by_place = dict(zip(places, zip(points, nearest, strict=True), strict=True))
        for row in sorted({*places, *refused}):
            yield pairs[row], *by_place.get(row, (None, None))


class _Known:
    """The SFT side and the new pairs that were kept."""

    def __init__(self, index: OpenIndex, limit: float) -> None:
        self._index = index
        self._limit = limit
        self._kept = library.empty(index.dimension)
        self._pair_ids: list[str] = []

    def add(self, values: Values, pair_ids: list[str]) -> list[_Nearest | None]:
        """Keep those of the pairs that are new; of the others, what they are near to."""
        exact = library.unit(values)
        among = exact @ exact.T
        answers: list[_Nearest | None] = []
        new: list[int] = []
        for number, nearest in enumerate(self._nearest(values)):
            if new:
                other = new[int(among[number, new].argmax())]
                nearest = max(nearest, _Nearest(float(among[number, other]), pair_ids[other]))
            answers.append(nearest if nearest.similarity > self._limit else None)
            if answers[-1] is None:
                new.append(number)
        self._kept.add(exact[new])
        self._pair_ids += [pair_ids[number] for number in new]
        return answers

    def _nearest(self, values: Values) -> Iterator[_Nearest]:
        """Of each vector, the nearest in the index and among the pairs kept before."""
        similarities, ids = self._index.search(values, 1)
        kept_similarities, kept = library.search(self._kept, values, 1)
        for number in range(len(values)):
            in_index = _Nearest(float(similarities[number, 0]), index_id=int(ids[number, 0]))
            among_kept = [
                _Nearest(float(similarity), self._pair_ids[place])
                for similarity, place in zip(kept_similarities[number], kept[number].tolist(), strict=True)
            ]
            yield max([in_index, *among_kept])


def _rows(duplicates: list[tuple[Pair, _Nearest]], index: OpenIndex) -> list[dict[str, Any]]:
    """Rows of ``SCHEMA``."""
    in_index = [nearest.index_id for _, nearest in duplicates if not nearest.pair_id]
    places = iter(index.places(np.array(in_index, np.int64)).to_pylist())
    return [
        {
            "pair_id": pair["pair_id"],
            "question": pair["messages"][0]["content"],
            "similarity": nearest.similarity,
            "nearest_pair_id": nearest.pair_id or None,
        }
        | ({} if nearest.pair_id else _nearest_place(next(places)))
        for pair, nearest in duplicates
    ]


def _nearest_place(place: dict[str, Any]) -> dict[str, Any]:
    return {f"nearest_{name}": place[name] for name in ("doc_id", "shard", "row")}
