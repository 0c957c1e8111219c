"""Which earlier pairs an SFT example says too, that has come since.

A pair that is, as a text, an SFT example is found by its id, however many there are;
one that is only near to an example, by the index of the run's SFT side. That
holds the earlier pairs too, so that the nearest of a pair is mostly itself.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aitp_tasks.records import vectors
from aitp_tasks.records.vectors import Values
from aitp_tasks.vector_index.opened import OpenIndex

#: Neighbours that are looked at first; more, where all of them are pairs.
_NEIGHBOURS = 8


def same_texts(text_ids: Sequence[str], sft: Iterable[NDArray[np.uint64]]) -> set[str]:
    """Which of some texts the SFT set holds too.

    Args:
        text_ids: of the pairs; an empty one is of none.
        sft: ids of the SFT set's texts, uint64 (m, 2) a shard.
    """
    wanted = {tuple(half): key for key in text_ids if key for half in vectors.halves([key]).tolist()}
    return {wanted[half] for some in sft for half in map(tuple, some.tolist()) if half in wanted}


def near(
    chunks: Iterable[tuple[list[str], Values]],
    index: OpenIndex,
    pair_shards: frozenset[str],
    in_sft: set[str],
    limit: float,
) -> dict[str, dict[str, Any]]:
    """Of each text that is near to an SFT example, the place and ``similarity`` of the nearest, by its id.

    Args:
        chunks: ids and vectors of the pairs' texts.
        index: of the run's SFT side.
        pair_shards: keys of the objects that hold the pairs.
        in_sft: ids of the pairs' texts that the SFT set holds too.
        limit: cosine that is near.
    """
    found: dict[str, dict[str, Any]] = {}
    for text_ids, values in chunks:
        for place, example in _nearest_examples(values, index, pair_shards, in_sft, limit):
            found[text_ids[place]] = example
    return found


def _nearest_examples(
    values: Values, index: OpenIndex, pair_shards: frozenset[str], in_sft: set[str], limit: float
) -> Iterator[tuple[int, dict[str, Any]]]:
    left, neighbours = np.arange(len(values)), _NEIGHBOURS
    while len(left):
        similarities, ids = index.search(values[left], neighbours)
        close = similarities > limit
        places = iter(index.places(ids[close]).to_pylist())
        again = []
        for row, number in enumerate(left.tolist()):
            here = [(float(similarities[row, k]), next(places)) for k in np.flatnonzero(close[row])]
            examples = [
                place | {"similarity": similarity}
                for similarity, place in here
                if place["shard"] not in pair_shards or place["doc_id"] in in_sft
            ]
            if examples:
                yield number, examples[0]
            elif len(here) == neighbours:
                again.append(number)
        left, neighbours = np.array(again, np.int64), 2 * neighbours
