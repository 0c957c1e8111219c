"""A drawn sample as a run takes it on: which parts it is cut into, and which of them are written now.

All of them, or first a pilot: the first documents of each region, a part each, by which the others are
drawn. How many parts there will be follows from how many documents there are, so it is known
before the pilot is answered.
"""

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from aitp_tasks.config import Allocation, Difference
from aitp_tasks.config.difference import DOCUMENTS_PER_PART
from aitp_tasks.densities.partition import Partition
from aitp_tasks.records import projected, versions
from aitp_tasks.records.run import part_name, part_of, pilot_name
from aitp_tasks.selection.drawing import counts
from aitp_tasks.selection.sample import Quotas, Sample

EVEN, BY_NIGHTS, BY_PILOT = "even", "yield, by earlier nights", "yield, after a pilot"
#: Airflow maps a task over 1,024 units at most.
MOST_PARTS = 1000
_TOO_FEW = "even, as there are too few documents for a pilot"


@dataclass(frozen=True)
class Sampled:
    """A sample, or what is known of it before all of it is drawn.

    Attributes:
        written: the documents that are written now.
        partition: the regions; None where there is no document.
        allocation: how documents are shared among these, in words.
        selected: documents of the whole sample.
        per_part: about so many are in a part, but for those of a pilot; more where there would be too many.
        is_pilot: whether what is written is a pilot.
    """

    written: pa.Table
    partition: Partition | None
    allocation: str
    selected: int
    per_part: int
    is_pilot: bool = False

    @classmethod
    def of(
        cls,
        drawn: pa.Table,
        settings: Difference,
        cell: float,
        known: versions.Regions | None,
        per_part: int,
    ) -> Self:
        """A sample that was drawn of all documents alike.

        Args:
            drawn: its documents.
            settings: how they are drawn.
            cell: side of a stratum, in projected units.
            known: the line's regions, where it has any.
            per_part: documents of a part.
        """
        partition = _partition(drawn, settings.regions, known)
        wanted = settings.allocation is Allocation.YIELD and partition is not None
        sizes = _sizes(drawn, settings, partition) if wanted and partition else ()
        if not any(sizes):
            told = _TOO_FEW if wanted else EVEN
            return cls(drawn, partition, told, len(drawn), per_part)
        assert partition is not None
        sample = Sample(settings, cell, quotas=Quotas(partition, sizes))
        sample.add(drawn)
        return cls(sample.documents(), partition, BY_PILOT, len(drawn), per_part, is_pilot=True)

    def parts(self) -> dict[str, NDArray[np.int64]]:
        """Positions of the documents of each part that is written, by its name."""
        if not self.is_pilot:
            return slices(self.written, self._others)
        regions = self._regions()
        there = np.unique(regions)
        names = [pilot_name(number, len(there)) for number in range(len(there))]
        return {name: np.flatnonzero(regions == region) for name, region in zip(names, there, strict=True)}

    def figures(self) -> dict[str, Any]:
        """For the manifest."""
        pilots = len(np.unique(self._regions())) if self.is_pilot else 0
        return {
            "selected": self.selected,
            "parts": pilots + self._others,
            "pilot_parts": pilots,
            "documents_per_part": self.per_part,
            "cuts": None if self.partition is None else [list(cut) for cut in self.partition.cuts],
            "allocation": self.allocation,
            "by_region": None if self.partition is None else counts(self.partition, self.written).tolist(),
        }

    @property
    def _others(self) -> int:
        """How many parts there are beside those of a pilot."""
        left = self.selected - (len(self.written) if self.is_pilot else 0)
        return part_count(left, self.per_part)

    def _regions(self) -> NDArray[np.int64]:
        assert self.partition is not None
        return self.partition.at(projected.points(self.written))


def part_count(documents: int, per_part: int) -> int:
    """In how many parts some documents go; parts grow where Airflow could not map over all of them."""
    return min(-(-documents // per_part), MOST_PARTS)


def slices(documents: pa.Table, parts: int) -> dict[str, NDArray[np.int64]]:
    """Positions of the documents of each of some parts, which are slices of the hash space."""
    places = np.array([part_of(doc_id, parts) for doc_id in documents["doc_id"].to_pylist()], np.int64)
    return {part_name(number, parts): np.flatnonzero(places == number) for number in range(parts)}


def _partition(drawn: pa.Table, regions: int, known: versions.Regions | None) -> Partition | None:
    if known is not None:
        return Partition.told(known.cuts)
    return Partition.of(projected.points(drawn), regions) if len(drawn) else None


def _sizes(drawn: pa.Table, settings: Difference, partition: Partition) -> tuple[int, ...]:
    """Documents of each region's pilot."""
    each = pilot_size(settings, len(drawn))
    return tuple(np.minimum(counts(partition, drawn), each).tolist())


def pilot_size(settings: Difference, selected: int) -> int:
    """Documents of a region's pilot, at most, where so many are selected in all.

    Not by the size that was found for the parts: which documents are drawn must not follow from speeds.
    """
    one_part = settings.documents_per_part or DOCUMENTS_PER_PART
    return min(settings.pilot_documents, one_part, selected // settings.regions // 2)
