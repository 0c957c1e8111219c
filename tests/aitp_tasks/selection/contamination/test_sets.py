"""Evaluation sets as a run reads them: whole, counted, and as they were planned."""

import json
from pathlib import Path
from typing import Any

import pytest

from aitp_tasks.config import Contamination
from aitp_tasks.errors import InputError
from aitp_tasks.inputs.benchmarks import Item
from aitp_tasks.records.plan import Shard
from aitp_tasks.selection.contamination import sets
from aitp_tasks.selection.contamination.sets import EvaluationSets
from aitp_tasks.storage import ObjectChangedError, open_storage


def write(root: Path, name: str, *rows: dict[str, Any] | str) -> None:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{row if isinstance(row, str) else json.dumps(row)}\n" for row in rows))


def through(root: Path, *named: Any) -> EvaluationSets:
    storage, settings = open_storage(f"file://{root}"), Contamination.model_validate({"sets": named})
    return sets.read(storage, settings, sets.planned(storage, settings, []))


def test_sets_of_several_files_and_layouts_are_read_in_their_order(tmp_path: Path) -> None:
    write(tmp_path, "eval/b/two.jsonl", {"input": "q2", "target": "a2"})
    write(tmp_path, "eval/b/one.jsonl", {"question": "q1", "answer": "a1"}, {"question": None, "answer": ""})
    write(tmp_path, "eval/a.jsonl", {"frage": "q0", "antwort": "a0"}, "{ damaged")
    found = through(tmp_path, {"path": "eval/a.jsonl", "question": "frage", "answer": "antwort"}, "eval/b/")
    assert found.items == [
        Item("q0", "a0", "a.jsonl:0"),
        Item("q1", "a1", "one.jsonl:0"),
        Item("q2", "a2", "two.jsonl:0"),
    ]
    assert [found.set_of(item) for item in range(3)] == ["eval/a.jsonl", "eval/b/", "eval/b/"]
    assert found.sizes == {"eval/a.jsonl": 1, "eval/b/": 2}
    told = found.figures()
    assert told["eval/a.jsonl"]["layouts"] == ["given"]
    assert told["eval/b/"]["layouts"] == ["BBH", "GSM8K"]
    assert sum(told["eval/a.jsonl"]["refused"].values()) == 1
    assert told["eval/b/"]["refused"] == {"no_text": 1}


def test_a_set_without_items_and_one_that_was_replaced_are_refused(tmp_path: Path) -> None:
    write(tmp_path, "eval/a.jsonl", {"question": "", "answer": None})
    with pytest.raises(InputError, match=r"no row of .*eval/a.jsonl gives an item \{'no_text': 1\}"):
        through(tmp_path, {"path": "eval/a.jsonl", "question": "question"})
    write(tmp_path, "eval/a.jsonl", {"question": "q", "answer": "a"})
    storage, settings = open_storage(f"file://{tmp_path}"), Contamination.model_validate({"sets": "eval"})
    files = sets.planned(storage, settings, [])
    write(tmp_path, "eval/a.jsonl", {"question": "another", "answer": "a"})
    with pytest.raises(ObjectChangedError):
        sets.read(storage, settings, files)


def test_a_copy_of_an_sft_shard_is_refused_by_its_content(tmp_path: Path) -> None:
    write(tmp_path, "sft/s/a.jsonl", {"question": "q", "answer": "a"})
    write(tmp_path, "eval/a.jsonl", {"question": "q", "answer": "a"})
    storage, settings = open_storage(f"file://{tmp_path}"), Contamination.model_validate({"sets": "eval"})
    info = storage.stat("sft/s/a.jsonl")
    shard = Shard(role="sft", source="s", key=info.key, etag=info.etag, size=info.size, rows=1)
    with pytest.raises(InputError, match="eval/a.jsonl is the SFT set's .*sft/s/a.jsonl"):
        sets.planned(storage, settings, [shard])
    write(tmp_path, "eval/a.jsonl", {"question": "p", "answer": "a"})
    assert len(sets.planned(storage, settings, [shard])) == 1


def test_nothing_is_read_where_nothing_is_named(tmp_path: Path) -> None:
    assert through(tmp_path).figures() == {}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"sets": ["a", "a/"]}, "'a' is named twice"),
        ({"sets": "/absolute"}, "path"),
        ({"sets": "s3://bucket/a"}, "path"),
        ({"sets": "a", "ngram": 7}, "ngram"),
        ({"sets": "a", "ngram": 14}, "ngram"),
        ({"sft": "drop"}, "sft=drop leaves nothing out"),
        ({"sets": {"question": "q"}}, "path"),
    ],
)
def test_settings_that_cannot_work_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Contamination.model_validate(settings)
