"""What plan refuses by the first rows of JSON, and what it leaves to the rows."""

import json
from pathlib import Path
from typing import Any

import pytest

from aitp_tasks.inputs import agreement, footers, listing
from aitp_tasks.storage import open_storage
from tests.aitp_tasks.conftest import Configure, write_shard

ROWS = [{"id": "1", "text": "one", "meta": {"source": "web", "tags": ["a"]}}, {"id": "2", "text": None}]


def problems(root: Path, configure: Configure, files: dict[str, Any], **changes: Any) -> list[str]:
    for shard in (root / "corpus/news").iterdir():
        shard.unlink()
    for name, rows in files.items():
        path = root / "corpus/news" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if name.endswith(".parquet"):
            write_shard(path, rows)
        else:
            path.write_bytes(rows if isinstance(rows, bytes) else "\n".join(map(json.dumps, rows)).encode())
    storage = open_storage(f"file://{root}")
    found = listing.read(storage, "corpus", "news").shards
    return agreement.problems(
        storage, "corpus", found, footers.read(storage, "corpus", "news", found), configure(**changes)
    )


@pytest.mark.parametrize(
    ("files", "changes"),
    [
        ({"a.jsonl": ROWS}, {}),
        ({"a.jsonl": ROWS}, {"text_columns": ["title", "text", "meta.tags[0]"], "difference": {}}),
        ({"a.jsonl": ROWS, "b.jsonl": [{"title": "t"}]}, {"text_columns": ["title", "text"]}),
        ({"a.jsonl": ROWS, "b.csv": b"text\nx\n"}, {"difference": {"source_column": "meta.source"}}),
        (
            {"lang=de/a.jsonl": ROWS, "b.parquet": [{"text": "x", "lang": "en"}]},
            {"difference": {"source_column": "lang"}},
        ),
        ({"lang=de/a.parquet": [{"text": "x"}]}, {"difference": {"source_column": "lang"}}),
        ({"a.jsonl": b"", "b.jsonl": b"\n"}, {}),
        ({"a.jsonl": [{f"key{n}": 1 for n in range(300)} | {"text": "x"}]}, {}),
        ({"a.jsonl": [7, {"text": "x"}]}, {}),
    ],
)
def test_what_may_have_its_texts_is_left_to_the_rows(
    root: Path, configure: Configure, files: dict[str, Any], changes: dict[str, Any]
) -> None:
    if changes.get("text_columns") == ["title", "text", "meta.tags[0]"]:
        # One path that leads nowhere in all of them is refused; the others would have done.
        (problem,) = problems(root, configure, files, **changes)
        assert "no column 'title' (it has id, meta, text): correct text_columns" in problem
    else:
        assert problems(root, configure, files, **changes) == []


@pytest.mark.parametrize(
    ("files", "changes", "messages"),
    [
        (
            {"a.jsonl": ROWS},
            {"text_columns": "body"},
            ["a.jsonl has no column 'body' (it has id, meta, text)"],
        ),
        (
            {"a.jsonl": ROWS},
            {"text_columns": "meta"},
            ["a.jsonl: meta is an object, not text: correct text_columns"],
        ),
        (
            {"a.jsonl": ROWS},
            {"text_columns": "meta.tags[0].x"},
            ["a.jsonl: meta.tags[0].x is nowhere, not text"],
        ),
        ({"a.jsonl": [{"text": 7}]}, {}, ["a.jsonl: text is a number, not text"]),
        ({"a.jsonl": [7, [8]]}, {}, ["a.jsonl: its rows are a list, a number, without any keys"]),
        (
            {"a.csv": b"id;text\n1;one\n"},
            {},
            ["a.csv is not readable as CSV (its header has semicolons instead of commas"],
        ),
        (
            {"a.jsonl": ROWS, "b.jsonl": [{"body": "x"}], "c.jsonl": [{"body": "y"}]},
            {},
            ["b.jsonl has no column 'text' (it has body): correct text_columns (the same: c.jsonl)"],
        ),
        (
            {"a.jsonl": ROWS},
            {"difference": {"source_column": "site"}},
            ["no column 'site' (it has id, meta, text): correct difference.source_column"],
        ),
        (
            {"lang=de/a.parquet": [{"text": "x"}], "b.parquet": [{"text": "x"}]},
            {"difference": {"source_column": "lang"}},
            ["b.parquet has no column 'lang'"],
        ),
        (
            {"a.jsonl": b"version https://git-lfs", "b.jsonl": ROWS},
            {},
            ["a.jsonl is not readable as JSON Lines (it is a pointer of git-LFS"],
        ),
    ],
)
def test_what_cannot_have_its_texts_is_refused_at_plan(
    root: Path, configure: Configure, files: dict[str, Any], changes: dict[str, Any], messages: list[str]
) -> None:
    found = problems(root, configure, files, **changes)
    assert len(found) == len(messages)
    for problem, message in zip(found, messages, strict=True):
        assert message in problem


def test_of_many_problems_the_first_are_told() -> None:
    assert agreement.told(["a", "b", "c"]) == "a; b; c"
    assert agreement.told(["a", "b", "c", "d", "e"]) == "a; b; c; and 2 more"
