"""Compares a run's pairs and SFT examples with its evaluation sets, and says which hold an item."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import TypeVar

from aitp_tasks.config import Contamination
from aitp_tasks.encoder.opened import Encoder
from aitp_tasks.errors import InputError
from aitp_tasks.records.vectors import Values
from aitp_tasks.selection.contamination import report
from aitp_tasks.selection.contamination.index import Hit, Index
from aitp_tasks.selection.contamination.meanings import Meanings, Near
from aitp_tasks.selection.contamination.report import Found, Report
from aitp_tasks.selection.contamination.sets import EvaluationSets
from aitp_tasks.vector_index.opened import OpenIndex

#: The reason of all that is left out for this.
CONTAMINATED = "contaminated"
#: The datasets, as reports call them.
NEW, EARLIER, SFT = "new_pairs", "earlier_pairs", "sft"
_BATCH = 256
Row = TypeVar("Row")


class Guard:
    """Knows the items of all sets, and gathers what holds them."""

    def __init__(self, sets: EvaluationSets, settings: Contamination) -> None:
        self.sets = sets
        self._settings = settings
        self._index = Index(sets.items, settings.ngram)
        self._meanings: Meanings | None = None
        self._near: dict[str, Near] = {}
        self.report = Report(sets.sizes)
        #: Open, once items are embedded.
        self.encoder: Encoder | None = None

    def __bool__(self) -> bool:
        """Whether there is anything to compare with."""
        return bool(self.sets.items)

    @property
    def compares_meanings(self) -> bool:
        """Whether vectors are compared."""
        return bool(self) and self._settings.max_similarity < 1

    def embed(self, encoder: Encoder, index: OpenIndex) -> None:
        """Embed the items, and look them up in the index of the run's SFT side."""
        self.encoder = encoder
        self._meanings = Meanings(self.sets.items, encoder, self._settings.max_similarity)
        self._near = self._meanings.in_index(index)

    def looked_at(
        self, dataset: str, rows: Iterable[tuple[Row, str, Sequence[str], str]]
    ) -> Iterator[tuple[Row, Found | None]]:
        """Each row with the item that it holds most of, in order.

        Args:
            dataset: one of ``NEW``, ``EARLIER`` and ``SFT``.
            rows: each with its id, its texts, and the id of the text that was embedded of it.
        """
        if not self:
            yield from ((row, None) for row, *_ in rows)
            return
        batches = iter(rows)
        while batch := list(islice(batches, _BATCH)):
            self.report.saw(dataset, sum(bool(texts) for _, _, texts, _ in batch))
            for (row, name, _, text_id), hits in zip(
                batch, self._index.hits([texts for _, _, texts, _ in batch]), strict=True
            ):
                yield row, self._found(dataset, name, hits, self._near.get(text_id))

    def close_to(self, names: Sequence[str], values: Values) -> list[Found | None]:
        """Of each new pair with a vector, the item that says the same.

        Args:
            names: ids of the pairs.
            values: their vectors, float16 (n, d).
        """
        if self._meanings is None:
            return [None] * len(names)
        return [
            self._found(NEW, name, [], near)
            for name, near in zip(names, self._meanings.of(values), strict=True)
        ]

    def require_other_than_sft(self) -> None:
        """Make sure that no set is what the SFT set is.

        Raises:
            InputError: every item of a set is held by the SFT set, whose every example holds one.
        """
        for name, size in self.sets.sizes.items():
            tally, rows = self.report.tally(name, SFT), self.report.rows(SFT)
            if rows and len(tally.found) == rows and len(tally.touched) == size:
                raise InputError(
                    f"contamination.sets: {name} says what the SFT set says: all its {size} items are in it, "
                    "and every example holds one: name what models are evaluated on, or another sft"
                )

    def _found(self, dataset: str, name: str, hits: Sequence[Hit], near: Near | None) -> Found | None:
        """Take in what holds items; the strongest of all sets."""
        by_set: dict[str, list[Hit]] = {}
        for hit in hits:
            if hit.share_of_item >= self._settings.min_share:
                by_set.setdefault(self.sets.set_of(hit.item), []).append(hit)
        found = {
            set_name: report.of_hits(name, of_set, [self._place(hit.item) for hit in of_set])
            for set_name, of_set in by_set.items()
        }
        touched = {set_name: {hit.item for hit in of_set} for set_name, of_set in by_set.items()}
        if near is not None:
            set_name = self.sets.set_of(near.item)
            similarity = round(near.similarity, 4)
            similar = Found(name, self._place(near.item), "similar", 0.0, 0.0, similarity)
            found.setdefault(set_name, similar)
            touched.setdefault(set_name, set()).add(near.item)
        for set_name, one in found.items():
            self.report.add(set_name, dataset, one, touched[set_name])
        return min(found.values(), key=lambda one: one.strength, default=None)

    def _place(self, item: int) -> str:
        return f"{self.sets.set_of(item)}/{self.sets.items[item].place}"
