"""What was found of evaluation sets, by set and dataset: counts, examples and places."""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from heapq import nsmallest
from typing import Any

from aitp_tasks.selection.contamination.index import Hit, Span

EXAMPLES = 10
#: Stretches of words that are told of one row.
_SPANS = 5
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_SUMMARY = (
    *("evaluation_set", "dataset", "items", "rows", "hits", "ngram", "whole", "similar"),
    *("items_touched", "share_touched", "mean_share_of_item", "examples"),
)
_HITS = (
    *("evaluation_set", "item", "dataset", "row", "rule", "share_of_item", "share_of_row", "similarity"),
    *("items", "spans", "excerpt"),
)


@dataclass(frozen=True)
class Found:
    """A row of a dataset that holds an item of an evaluation set, or says the same.

    Attributes:
        row: its id.
        item: place of the item that it holds most of.
        rule: ``ngram``, ``whole`` or ``similar``.
        share_of_item: of the item's words, those that are there.
        share_of_row: of the row's words, those that are the item's.
        similarity: cosine of the vectors, where these were compared.
        items: how many items of the set it holds.
        spans: where, as ``text:start-end`` in words; not more than a few.
        excerpt: the words of the longest of them; none more than a few.
    """

    row: str
    item: str
    rule: str
    share_of_item: float
    share_of_row: float
    similarity: float | None = None
    items: int = 1
    spans: str = ""
    excerpt: str = ""

    @property
    def strength(self) -> tuple[float, float, str]:
        """Rises from the strongest on."""
        return -max(self.share_of_item, self.similarity or 0.0), -self.share_of_row, self.row


@dataclass
class Tally:
    """All rows of one dataset beside one evaluation set.

    Attributes:
        found: rows that hold an item.
        touched: numbers of the items that are held.
    """

    found: list[Found] = field(default_factory=list)
    touched: set[int] = field(default_factory=set)


class Report:
    """Gathers what is found."""

    def __init__(self, items: Mapping[str, int]) -> None:
        """``items``: how many each evaluation set has, by its name."""
        self._items = dict(items)
        self._rows: Counter[str] = Counter()
        self._tallies: dict[tuple[str, str], Tally] = {}

    def saw(self, dataset: str, rows: int) -> None:
        """Count rows that were compared with all sets."""
        self._rows[dataset] += rows

    def add(self, name: str, dataset: str, found: Found, items: Iterable[int]) -> None:
        """Take in a row that holds some items of a set."""
        tally = self._tallies.setdefault((name, dataset), Tally())
        tally.found.append(found)
        tally.touched.update(items)

    def tally(self, name: str, dataset: str) -> Tally:
        """Of a set and a dataset."""
        return self._tallies.get((name, dataset), Tally())

    def rows(self, dataset: str) -> int:
        """How many rows of a dataset were compared."""
        return self._rows[dataset]

    def figures(self) -> list[dict[str, Any]]:
        """For each evaluation set and dataset, what the summary says, with the strongest examples."""
        return [
            self._figures_of(name, dataset, self.tally(name, dataset))
            for name in self._items
            for dataset in sorted(self._rows)
        ]

    def summary(self) -> str:
        """One line for each evaluation set and dataset, as TSV."""
        rows = [
            {**figures, "examples": " ".join(one["row"] for one in figures["examples"])}
            for figures in self.figures()
        ]
        return _tsv(_SUMMARY, rows)

    def hits(self) -> str:
        """One line for each row that holds an item, as TSV; the strongest first."""
        rows = [
            {"evaluation_set": name, "dataset": dataset, **vars(found)}
            for (name, dataset), tally in sorted(self._tallies.items())
            for found in sorted(tally.found, key=lambda found: found.strength)
        ]
        return _tsv(_HITS, rows)

    def _figures_of(self, name: str, dataset: str, tally: Tally) -> dict[str, Any]:
        rules = Counter(found.rule for found in tally.found)
        shares = [found.share_of_item for found in tally.found if found.rule != "similar"]
        items = self._items[name]
        return {
            "evaluation_set": name,
            "dataset": dataset,
            "items": items,
            "rows": self._rows[dataset],
            "hits": len(tally.found),
            **{rule: rules[rule] for rule in ("ngram", "whole", "similar")},
            "items_touched": len(tally.touched),
            "share_touched": round(len(tally.touched) / items, 6) if items else 0.0,
            "mean_share_of_item": round(sum(shares) / len(shares), 6) if shares else 0.0,
            "examples": [vars(one) for one in nsmallest(EXAMPLES, tally.found, lambda one: one.strength)],
        }


def of_hits(row: str, hits: Sequence[Hit], places: Sequence[str]) -> Found:
    """The strongest of a row's hits in one set.

    Args:
        row: its id.
        hits: one or more.
        places: of each hit's item.
    """
    best, place = max(
        zip(hits, places, strict=True), key=lambda one: (one[0].share_of_item, one[0].share_of_text)
    )
    return Found(
        row=row,
        item=place,
        rule=best.rule.value,
        share_of_item=round(best.share_of_item, 4),
        share_of_row=round(best.share_of_text, 4),
        items=len(hits),
        spans=_told(best.spans),
        excerpt=best.excerpt,
    )


def _told(spans: Sequence[Span]) -> str:
    shown = [f"{span.text}:{span.start}-{span.end}" for span in spans[:_SPANS]]
    left = len(spans) - len(shown)
    return " ".join([*shown, *([f"+{left}"] if left else [])])


def _tsv(columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> str:
    lines = ["\t".join(columns)]
    lines += ["\t".join(_cell(row[column]) for column in columns) for row in rows]
    return "\n".join(lines) + "\n"


def _cell(value: Any) -> str:
    # A name may hold whatever a store allows.
    return "" if value is None else _CONTROL.sub(" ", str(value))
