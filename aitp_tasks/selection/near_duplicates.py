"""near_duplicates: which new pairs say what the dataset has already.

Each pair gets the vector that it would have as an SFT example, and is compared
with the index of the run's SFT side, which holds the pairs of earlier versions
too, and with the new pairs that were kept before it. Pairs are taken in their
order until there is no more room, so that those without room cost nothing.

Reads the SFT index. Holds the vectors of the pairs kept, 4 bytes a component, and
compares each with all of them: quadratic in their number, linear in the SFT set.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from aitp_tasks.inputs.rows import Refusal
from aitp_tasks.records.vectors import Values, Vectors
from aitp_tasks.vector_index import library
from aitp_tasks.vector_index.opened import OpenIndex

Pair = dict[str, Any]

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


@dataclass
class Selection:
    """Pairs that there is room for.

    Attributes:
        kept: those that are new.
        duplicates: those left out, rows of ``SCHEMA``.
    """

    kept: list[Pair] = field(default_factory=list)
    duplicates: list[dict[str, Any]] = field(default_factory=list)


def select(
    pairs: list[Pair],
    embedded: Iterable[tuple[Vectors, dict[int, Refusal]]],
    room: int,
    index: OpenIndex,
    limit: float,
) -> Selection:
    """The first pairs that are no near-duplicates, as many as there is room for.

    A pair that has no vector, which its quarantine in the next run will say, is kept.

    Args:
        pairs: in the order in which they are taken.
        embedded: the vectors of the pairs as SFT examples, made as they are asked for; see
            ``Encoder.vectors_of``.
        room: how many are wanted.
        index: of the run's SFT side.
        limit: largest cosine of a pair that is kept.

    Raises:
        InputError: the index is damaged.
    """
    kept: list[Pair] = []
    duplicates: list[tuple[Pair, _Nearest]] = []
    for pair, nearest in _with_nearest(pairs, embedded, _Known(index, limit)):
        if nearest is None:
            kept.append(pair)
        else:
            duplicates.append((pair, nearest))
        if len(kept) == room:
            break
    return Selection(kept, _rows(duplicates, index))


class _Nearest(NamedTuple):
    """What a pair is a near-duplicate of: a kept pair, or what the index has under an id."""

    similarity: float
    pair_id: str = ""
    index_id: int = -1


def _with_nearest(
    pairs: list[Pair], embedded: Iterable[tuple[Vectors, dict[int, Refusal]]], known: "_Known"
) -> Iterator[tuple[Pair, _Nearest | None]]:
    """Each pair with what it is a near-duplicate of."""
    for found, refused in embedded:
        places = found.rows.tolist()
        nearest = known.add(found.values, [str(pairs[place]["pair_id"]) for place in places])
        by_place = dict(zip(places, nearest, strict=True)) | dict.fromkeys(refused)
        yield from ((pairs[place], by_place[place]) for place in sorted(by_place))


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
