"""Which of the documents below the threshold are drawn.

A draw is a hash of the seed and the document's id. A sample keeps what comes
first: by draw (uniform), or by rank within a cell of the plane and then by draw
(stratified: every occupied cell gives its first document before any gives its
second). Where regions have quotas, that holds within each region. Of all documents seen
so far, those that do not come first now never will, so they are forgotten: shards may come
in any order and any cut, and the sample is the same.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from aitp_tasks.config import Difference, Sampling
from aitp_tasks.densities.grid import Points
from aitp_tasks.densities.partition import Partition
from aitp_tasks.records import kept, projected

#: Rows that are gathered before those that do not come first are forgotten.
_PENDING = 1 << 19


def draws(seed: int, doc_ids: Iterable[str]) -> NDArray[np.uint64]:
    """The hashes, uint64 (n,), by which documents come first."""
    return np.array([kept.draw(seed, doc_id) for doc_id in doc_ids], np.uint64)


@dataclass(frozen=True)
class Quotas:
    """How many documents to draw of each region.

    Attributes:
        partition: the regions.
        documents: of each, in their order.
        first: ids of documents that come before all others, as they are drawn already.
    """

    partition: Partition
    documents: tuple[int, ...]
    first: frozenset[str] = frozenset()


class Sample:
    """The documents drawn so far, of all that were added."""

    def __init__(
        self,
        settings: Difference,
        cell: float,
        size: int | None = None,
        margin: float = 1.0,
        quotas: Quotas | None = None,
    ) -> None:
        """Nothing was added yet.

        Args:
            settings: how documents are drawn.
            cell: side of a stratum, in projected units.
            size: documents to draw, at most ``settings.max_documents``; by default that many.
            margin: so many times as many are drawn, in all, of each source and of each region.
            quotas: of the regions, ``size`` in all; None: documents come from wherever they come first.
        """
        self._settings = settings
        self._partition = quotas.partition if quotas else Partition(())
        self._first = quotas.first if quotas else frozenset()
        sizes = quotas.documents if quotas else (settings.max_documents if size is None else size,)
        self._wanted = np.array(sizes, np.int64)
        self._sizes = np.array([math.ceil(margin * one) for one in sizes], np.int64)
        cap = settings.max_per_source
        self._cap = None if cap is None else math.ceil(margin * cap)
        # A cap takes documents out of strata and regions, so that others may come in again.
        self._forgets = cap is None or (settings.sampling is Sampling.UNIFORM and quotas is None)
        #: Documents that were added of each region, with all repeats; int64 (regions,).
        self.seen = np.zeros(len(sizes), np.int64)
        #: Of which regions there were documents that were not drawn, beside repeats; bool (regions,).
        self._left = np.zeros(len(sizes), bool)
        self._cell = cell
        self._drawn: pa.Table | None = None
        self._pending: list[pa.Table] = []

    def add(self, table: pa.Table) -> None:
        """Take in documents below the threshold: doc_id, source, shard, row, coordinates, perhaps copies."""
        # A dictionary's order is that of its first appearance; strings have their own.
        table = table.set_column(table.column_names.index("shard"), "shard", table["shard"].cast(pa.string()))
        if "copies" not in table.column_names:
            table = table.append_column("copies", pa.array(np.ones(len(table), np.int64)))
        points = projected.points(table)
        regions = self._partition.at(points)
        self.seen += np.bincount(regions, table["copies"].to_numpy(), len(self.seen)).astype(np.int64)
        table = table.append_column("draw", pa.array(self._draws(table["doc_id"].to_pylist())))
        table = table.append_column("stratum", pa.array(_strata(points, self._cell)))
        self._pending.append(table.append_column("quota", pa.array(regions)))
        if sum(map(len, self._pending)) > _PENDING:
            self._forget()

    def documents(self) -> pa.Table:
        """What is drawn of all that was added, in the order of ids; ``copies`` counts equal texts."""
        self._forget()
        assert self._drawn is not None
        drawn = self._first_of(self._drawn)
        return drawn.drop_columns(["draw", "stratum", "quota"]).sort_by("doc_id")

    def wants_more(self, drawn: pa.Table) -> bool:
        """Whether some of its documents are fewer than were wanted, while others were not drawn.

        Of which region that is so, where there are quotas.
        """
        there = np.bincount(self._partition.at(projected.points(drawn)), minlength=len(self._wanted))
        return bool(((there < self._wanted) & self._left).any())

    def _draws(self, doc_ids: list[str]) -> NDArray[np.uint64]:
        found = draws(self._settings.seed, doc_ids)
        if self._first:
            found[[doc_id in self._first for doc_id in doc_ids]] = 0
        return found

    def _forget(self) -> None:
        """Keep what can still be drawn."""
        tables = ([self._drawn] if self._drawn is not None else []) + self._pending
        table = _unique(pa.concat_tables(tables).unify_dictionaries())
        if self._cap is not None:
            rank = _ranks(table["source"].combine_chunks().dictionary_encode().indices.to_numpy())
            self._left |= self._counts(table.filter(pa.array(rank >= self._cap))) > 0
            table = table.filter(pa.array(rank < self._cap))
        self._drawn, self._pending = self._first_of(table) if self._forgets else table, []

    def _first_of(self, table: pa.Table) -> pa.Table:
        """The first documents of each region."""
        table = self._in_order(table)
        quotas = table["quota"].to_numpy()
        first = table.filter(pa.array(_ranks(quotas) < self._sizes[quotas]))
        self._left |= self._counts(first) < self._counts(table)
        return first

    def _counts(self, table: pa.Table) -> NDArray[np.int64]:
        found: NDArray[np.int64] = np.bincount(table["quota"].to_numpy(), minlength=len(self._wanted))
        return found

    def _in_order(self, table: pa.Table) -> pa.Table:
        table = table.sort_by(_BY_DRAW)
        if self._settings.sampling is Sampling.UNIFORM:
            return table
        cells = np.stack([table["quota"].to_numpy(), table["stratum"].to_numpy()], axis=1)
        _, numbers = np.unique(cells, axis=0, return_inverse=True)
        return table.take(np.argsort(_ranks(numbers.reshape(-1)), kind="stable"))


_BY_DRAW = [("draw", "ascending"), ("doc_id", "ascending"), ("shard", "ascending"), ("row", "ascending")]


def _unique(table: pa.Table) -> pa.Table:
    """The first of the documents of one text, in the order of draws, with the number of all."""
    table = table.sort_by(_BY_DRAW)
    if not len(table):
        return table
    ids = table["doc_id"].combine_chunks()
    first = np.ones(len(table), bool)
    first[1:] = pc.not_equal(ids.slice(1), ids.slice(0, len(ids) - 1)).to_numpy(zero_copy_only=False)
    copies = np.add.reduceat(table["copies"].to_numpy(), np.flatnonzero(first))
    table = table.filter(pa.array(first))
    return table.set_column(table.column_names.index("copies"), "copies", pa.array(copies))


def _ranks(groups: NDArray[np.int64]) -> NDArray[np.int64]:
    """How many rows of the same group lie before each row, int64 (n,)."""
    order = np.argsort(groups, kind="stable")
    ordered = groups[order]
    starts = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]]) if len(ordered) else order
    ranks = np.empty(len(groups), np.int64)
    lengths = np.diff(np.r_[starts, len(ordered)])
    ranks[order] = np.arange(len(ordered)) - np.repeat(starts, lengths)
    return ranks


def _strata(points: Points, cell: float) -> NDArray[np.int64]:
    """The number of the cell that holds each point, int64 (n,)."""
    cells = np.clip(np.floor(points / cell), -(2**19), 2**19).astype(np.int64) + 2**19
    numbers: NDArray[np.int64] = (cells << (21 * np.arange(points.shape[1]))).sum(axis=1)
    return numbers
