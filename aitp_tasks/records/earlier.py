"""The pairs of the version that a run builds on, with where they lie among the run's own documents."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from aitp_tasks.densities.grid import Points
from aitp_tasks.records import embedded, pairs, projected, tables, vectors
from aitp_tasks.records.manifest import Manifest
from aitp_tasks.records.pair_texts import Pair, PairTexts
from aitp_tasks.records.run import Run
from aitp_tasks.records.vectors import Values

_ROWS_AT_A_TIME = 1024


@dataclass(frozen=True)
class Earlier:
    """Earlier pairs in the order of their ids.

    Attributes:
        rows: as their version holds them, with their ``age``: the place in the line of the version that they
            came with, -1 where that is not known.
        text_ids: of what was embedded of each; empty where nothing was.
        points: float64 (n, k); not a number where nothing was embedded.
    """

    rows: list[Pair]
    text_ids: list[str]
    points: Points

    def __len__(self) -> int:
        return len(self.rows)


def read(run: Run) -> Earlier:
    """The earlier pairs that take part in a run.

    Raises:
        InputError: they were not embedded and projected.
    """
    rows, text_ids, points, texts = list[Pair](), list[str](), list[Points](), PairTexts()
    for shard, coordinates in _shards(run):
        key = str(shard.figures["shard"])
        stored = pairs.read(run.storage, [key])
        assert stored is not None
        table = tables.read(run.storage, coordinates.output("coordinates"))
        ids, places = [""] * len(stored), np.full((len(stored), projected.points(table).shape[1]), np.nan)
        for row, text_id in zip(table["row"].to_pylist(), table["doc_id"].to_pylist(), strict=True):
            ids[row] = text_id
        places[table["row"].to_numpy()] = projected.points(table)
        for some in stored.to_batches(_ROWS_AT_A_TIME):
            rows += [texts.held(pair | {"age": _age(run, pair)}) for pair in some.to_pylist()]
        text_ids += ids
        points.append(places)
    order = sorted(range(len(rows)), key=lambda place: str(rows[place]["pair_id"]))
    together = np.concatenate(points) if points else np.empty((0, run.config.density.components))
    return Earlier([rows[place] for place in order], [text_ids[place] for place in order], together[order])


def all_vectors(run: Run) -> Iterator[tuple[list[str], Values]]:
    """Text ids and vectors float16 (n, d) of the earlier pairs, a chunk at a time.

    Raises:
        InputError: they were not embedded, or their vectors were deleted.
    """
    for group in run.plan.groups_of_pairs:
        for shard in embedded.shards(run, group):
            for key in embedded.chunk_keys(shard):
                found = vectors.read(run.storage, key)
                if len(found):
                    yield found.doc_ids, found.values


def known_vectors(run: Run) -> Iterator[tuple[str, Values]]:
    """Text id and vector float16 (d,) of each earlier pair.

    Raises:
        InputError: they were not embedded, or their vectors were deleted.
    """
    for text_ids, values in all_vectors(run):
        yield from zip(text_ids, values, strict=True)


def sft_text_ids(run: Run) -> Iterator[NDArray[np.uint64]]:
    """Text ids of the SFT set's own examples, as ``vectors.halves`` has them, a shard at a time.

    Raises:
        InputError: they were not projected.
    """
    for facts, table in projected.coordinates(run, "sft", ["doc_id"]):
        if facts["source"] == run.config.sft:
            yield vectors.halves(table["doc_id"].to_pylist())


def _shards(run: Run) -> Iterator[tuple[Manifest, Manifest]]:
    for group in run.plan.groups_of_pairs:
        yield from zip(embedded.shards(run, group), projected.shards(run, group), strict=True)


def _age(run: Run, pair: Pair) -> int:
    """The place in the line of the version that a pair came with."""
    assert run.plan.base is not None
    return run.plan.base.position.get(pair["version"], -1)
