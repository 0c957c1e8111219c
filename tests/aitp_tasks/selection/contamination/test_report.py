"""The tables of what was found: sums that a reader can check, and names that break nothing."""

import csv
import io

from aitp_tasks.selection.contamination.index import Hit, Rule, Span
from aitp_tasks.selection.contamination.report import EXAMPLES, Found, Report, of_hits


def read(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text), delimiter="\t", quoting=csv.QUOTE_NONE))


def found(row: str, share: float, rule: str = "ngram") -> Found:
    return Found(row, "test:1", rule, share, 0.5)


def test_a_summary_counts_rows_rules_and_items() -> None:
    report = Report({"a": 4, "b": 2})
    report.saw("new_pairs", 10)
    report.saw("sft", 5)
    report.add("a", "new_pairs", found("x", 0.5), [0, 1])
    report.add("a", "new_pairs", found("y", 1.0, "whole"), [1])
    report.add("a", "new_pairs", Found("z", "test:2", "similar", 0.0, 0.0, 0.9), [2])
    rows = {(row["evaluation_set"], row["dataset"]): row for row in read(report.summary())}
    assert rows.keys() == {(name, dataset) for name in "ab" for dataset in ("new_pairs", "sft")}
    row = rows["a", "new_pairs"]
    counts = {name: row[name] for name in ("items", "rows", "hits", "ngram", "whole", "similar")}
    assert list(counts.values()) == ["4", "10", "3", "1", "1", "1"]
    assert (row["items_touched"], row["share_touched"], row["mean_share_of_item"]) == ("3", "0.75", "0.75")
    assert row["examples"] == "y z x"
    assert rows["b", "sft"]["hits"] == "0"
    assert [row["row"] for row in read(report.hits())] == ["y", "z", "x"]


def test_examples_are_the_strongest_in_whatever_order_they_come() -> None:
    rows = [found(f"{number:02d}", number / 30) for number in range(30)]
    told = []
    for order in (rows, rows[::-1]):
        report = Report({"a": 1})
        report.saw("sft", 30)
        for row in order:
            report.add("a", "sft", row, [0])
        told.append(report.figures())
    assert told[0] == told[1]
    assert [one["row"] for one in told[0][0]["examples"]] == [
        f"{n:02d}" for n in range(29, 29 - EXAMPLES, -1)
    ]


def test_names_cannot_break_a_table() -> None:
    report = Report({"a\tb\nc": 1})
    report.saw("sft", 1)
    report.add("a\tb\nc", "sft", Found("row\r\n1", "\x00", "ngram", 1.0, 1.0), [0])
    assert [len(line.split("\t")) for line in report.summary().splitlines()] == [12, 12]
    assert [len(line.split("\t")) for line in report.hits().splitlines()] == [11, 11]


def test_of_many_stretches_a_few_are_told() -> None:
    spans = tuple(Span(0, 10 * number, 10 * number + 8) for number in range(8))
    hits = [Hit(0, Rule.NGRAM, 0.5, 0.25, spans, "words"), Hit(1, Rule.NGRAM, 0.25, 1.0, spans[:1], "others")]
    told = of_hits("row", hits, ["test:0", "test:1"])
    assert (told.item, told.items, told.share_of_item, told.excerpt) == ("test:0", 2, 0.5, "words")
    assert told.spans == "0:0-8 0:10-18 0:20-28 0:30-38 0:40-48 +3"
