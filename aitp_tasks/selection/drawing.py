"""The documents of a run that may be drawn, and the draw: of all alike, or of each region its own number.

Passes over the coordinates of all shards, one after the other: what is held does not grow with the
corpus.
"""

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from aitp_tasks.config import Difference
from aitp_tasks.densities.geometry import Geometry
from aitp_tasks.densities.partition import Partition
from aitp_tasks.errors import InputError
from aitp_tasks.records import embedded, prefetched, projected, tables, versions
from aitp_tasks.records.run import Run
from aitp_tasks.selection import allocation, criteria, fit
from aitp_tasks.selection.allocation import Region
from aitp_tasks.selection.coverage import Coverage
from aitp_tasks.selection.fit import Fit
from aitp_tasks.selection.nearest import Nearest
from aitp_tasks.selection.sample import Quotas, Sample
from aitp_tasks.selection.tally import Tally
from aitp_tasks.selection.texts import Texts
from aitp_tasks.vector_index.opened import OpenIndex

log = logging.getLogger(__name__)

#: Documents below the threshold of which allocate is to draw some.
LEFT = "left_to_allocate"
#: Of drawn documents, the column that says where in the partition they lie.
REGION = "region"


@dataclass(frozen=True)
class Pool:
    """The documents below the threshold, of which no more lie in larger crowds than could win a place.

    Attributes:
        run: whose they are.
        geometry: of the run.
        coverage: both densities.
        threshold: below which a document is selected.
        crowd: a document in no smaller one is not drawn.
    """

    run: Run
    geometry: Geometry
    coverage: Coverage
    threshold: criteria.Threshold
    crowd: float = np.inf

    def draw(self, size: int, quotas: Quotas | None = None) -> tuple[Tally, Fit]:
        """Count all documents, and draw some of those that may be drawn.

        Args:
            size: how many, at most.
            quotas: of the regions; None: whichever come first.

        Raises:
            InputError: a text cannot be read.
        """
        settings = self.run.config.difference
        tally = Tally(self.threshold, settings.criterion)

        def sampled(sample: Sample) -> None:
            nonlocal tally
            # Whoever passes once more counts the same once more.
            tally = Tally(self.threshold, settings.criterion)
            for facts, table, scores in scored(self.run, self.coverage):
                below = table.filter(pa.array(tally.add(facts, table, scores)))
                if self.crowd < np.inf:
                    crowds = self.coverage.crowds().at(projected.points(below), self.coverage.now["sft"])
                    below = below.filter(pa.array(crowds < self.crowd))
                sample.add(below)

        found = fit.draw(
            settings,
            self.geometry.bandwidths["corpus"],
            size,
            sampled,
            lambda table: texts(self.run, table),
            quotas,
        )
        return tally, found

    def draw_allotted(
        self, size: int, known: versions.Regions, taken: tuple[int, ...], first: frozenset[str] = frozenset()
    ) -> tuple[Tally, Fit]:
        """Draw so many more documents where they pay; see ``by_yield``.

        Raises:
            InputError: a text cannot be read.
        """
        tallies = list[Tally]()

        def draw(quotas: Quotas) -> Fit:
            tally, found = self.draw(sum(quotas.documents), quotas)
            # Each counts all documents, and so the same.
            tallies.append(tally)
            return found

        found = by_yield(self.run.config.difference, draw, size, known, taken, first)
        return tallies[-1], found


def by_yield(
    settings: Difference,
    draw: Callable[[Quotas], Fit],
    size: int,
    known: versions.Regions,
    taken: tuple[int, ...],
    first: frozenset[str] = frozenset(),
) -> Fit:
    """Draw as many documents of each region as ``allocation`` says, on top of those that were taken.

    How many documents a region has is only known when it has too few: then its share passes on,
    and all are drawn once more.

    Args:
        settings: how documents are drawn.
        draw: draws by quotas.
        size: documents to draw on top, together.
        known: the regions, and what documents have given there.
        taken: of each region, so many are drawn already.
        first: ids of these.

    Returns:
        What is drawn, with what was taken.
    """
    had = np.array(taken, np.int64)
    partition, available = Partition.told(known.cuts), np.full(len(taken), size, np.int64)
    while True:
        more = allotted(known, available.tolist(), size, settings.floor_share, settings.seed)
        found = draw(Quotas(partition, tuple((had + more).tolist()), first))
        drawn = counts(partition, found.drawn)
        short = drawn < had + more
        if not short.any():
            return found
        log.info("regions=%s have no more documents: their shares pass on", np.flatnonzero(short).tolist())
        available = np.where(short, drawn - had, np.minimum(available, found.seen - had))


def allotted(
    known: versions.Regions, available: list[int], size: int, floor_share: float, seed: int
) -> list[int]:
    """How many documents of each region to draw, by what the regions have given."""
    given = zip(available, known.documents, known.pairs, known.tokens, strict=True)
    regions = {str(number): Region(*one) for number, one in enumerate(given)}
    floor = allocation.floor_of(regions, size, floor_share)
    found = allocation.allot(regions, size, floor, seed)
    return [found[name] for name in regions]


def counts(partition: Partition, documents: pa.Table) -> NDArray[np.int64]:
    """How many documents of a table lie in each region, int64 (regions,)."""
    regions = partition.at(projected.points(documents))
    found: NDArray[np.int64] = np.bincount(regions, minlength=partition.regions)
    return found


def scored(run: Run, coverage: Coverage) -> Iterator[tuple[dict[str, str], pa.Table, criteria.Scores]]:
    """Facts, documents with their densities, and scores of each corpus shard.

    Raises:
        InputError: what a density unit has made for the criterion was deleted, or is of other documents.
    """
    criterion = run.config.difference.criterion
    measure = criteria.measure(criterion)
    documents = _with_made(run, measure) if measure.made else projected.coordinates(run, "corpus")
    for facts, table in documents:
        table, scores = criteria.scored(criterion, coverage, table)
        for name in ("dump", "shard", "etag"):
            value = facts["source" if name == "dump" else name]
            table = table.append_column(name, pa.array([value] * len(table), pa.string()).dictionary_encode())
        if "source" not in table.column_names:
            table = table.append_column("source", table["dump"])
        yield facts, table, scores


def _with_made(run: Run, measure: criteria.Measure) -> Iterator[tuple[dict[str, str], pa.Table]]:
    """Facts and coordinates of each corpus shard, with what its density unit has made for the criterion."""
    made = str(measure.made)
    keys = [str(key) for group in run.plan.groups_of("corpus") for key in projected.keys(run, group, made)]
    read = prefetched.prefetched(lambda key: tables.read(run.storage, key), keys, prefetched.SHARDS)
    documents = zip(projected.coordinates(run, "corpus"), read, keys, strict=True)
    for (facts, table), found, key in documents:
        if not all(found[name].equals(table[name]) for name in ("doc_id", "row")):
            raise InputError(
                f"{run.storage.uri(key)} is of other documents than those of {facts['shard']}: "
                "delete it and the run's density manifests, then run `aitp density` again"
            )
        yield facts, table.append_column(measure.column, found[measure.column])


def texts(run: Run, documents: pa.Table) -> Texts:
    """The texts of some documents of a run's corpus.

    Raises:
        InputError: a shard is missing, damaged or replaced.
    """
    return Texts(run.storage, run.config.text_columns, documents, embedded.shards_of(run, "corpus"))


class Parts:
    """Drawn documents, with their texts and the nearest SFT examples, ready to be written part by part."""

    def __init__(
        self, run: Run, drawn: pa.Table, index: OpenIndex, partition: Partition | None = None
    ) -> None:
        """Search for the nearest examples of all documents.

        Args:
            run: whose they are.
            drawn: the documents, as ``Fit`` has them.
            index: of the SFT set.
            partition: says which region each is of; None where there is no document.

        Raises:
            InputError: a document has no vector, or the SFT set's index is damaged.
        """
        self._run = run
        self._drawn = drawn
        if partition is not None:
            self._drawn = drawn.append_column(REGION, pa.array(partition.at(projected.points(drawn))))
        self._nearest = Nearest(run.storage, index, embedded.shards_of(run, "corpus"), drawn)

    def nearest(self) -> dict[str, Any]:
        """How near the nearest examples are, as figures."""
        return self._nearest.figures()

    def write(self, stage: str, parts: dict[str, NDArray[np.int64]]) -> dict[str, str]:
        """Write the documents at some positions as parts; their keys by name.

        Args:
            stage: below which they lie.
            parts: positions of each, by its name.

        Raises:
            InputError: a text cannot be read.
        """
        outputs = {}
        chosen = np.concatenate([np.empty(0, np.int64), *parts.values()])
        with texts(self._run, self._drawn.take(chosen)) as found:
            start = 0
            for name, positions in parts.items():
                part, places = self._drawn.take(positions), np.arange(start, start + len(positions))
                start += len(positions)
                for column, values in (self._nearest.take(positions) | {"text": found.take(places)}).items():
                    part = part.append_column(column, values)
                key = self._run.key(stage, name)
                outputs[name] = tables.write(self._run.storage, key, part.unify_dictionaries())
        return outputs


def repeats(drawn: pa.Table) -> int:
    """Further copies of the drawn documents."""
    return int(np.sum(drawn["copies"].to_numpy())) - len(drawn)


def not_drawn(found: Fit, documents: int, is_short: bool) -> dict[str, int]:
    """Of so many documents, why those that were not drawn were not.

    Args:
        found: what was drawn.
        documents: below the threshold.
        is_short: whether there are too few places in the dataset for all that might be drawn.
    """
    repeated = repeats(found.drawn) + found.repeats
    left = documents - repeated - len(found.drawn) - len(found.unfit)
    return {
        "repeated_text": repeated,
        "not_sampled": 0 if is_short else left,
        "no_room": left if is_short else 0,
        **found.reasons,
    }
