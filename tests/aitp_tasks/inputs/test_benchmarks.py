"""Evaluation sets: layouts, right choices, and what is refused."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from aitp_tasks.config import EvaluationSet
from aitp_tasks.errors import InputError
from aitp_tasks.inputs import benchmarks
from aitp_tasks.inputs.benchmarks import Item
from aitp_tasks.inputs.rows import Refusal
from aitp_tasks.storage import open_storage
from tests.aitp_tasks.selection.contamination.contamination_cases import ANY, LAYOUTS, Layout


def plain(name: str) -> str:
    return name.lower().translate({ord(mark): None for mark in "_- "})


@pytest.mark.parametrize("case", LAYOUTS, ids=lambda case: case.name)
def test_layouts_of_somebody_who_had_not_read_the_code(case: Layout) -> None:
    found = benchmarks.detect(case.rows)
    assert plain(found.name if found else "") == plain(case.benchmark)
    if found is None or case.question is None:
        return
    assert plain(found.question.partition("[")[0]) == plain(case.question)
    if case.answer is None:
        assert found.answer == ""
    elif case.answer != ANY:
        assert plain(found.answer) == plain(case.answer)


@pytest.mark.parametrize(
    ("row", "answer"),
    [
        ({"question": "q", "choices": ["a", "b", "c"], "answer": 1}, "b"),
        ({"question": "q", "choices": ["a", "b", "c"], "answer": "C"}, "c"),
        ({"question": "q", "A": "a", "B": "b", "C": "c", "D": "d", "answer": "B"}, "b"),
        ({"question": "q", "choices": {"text": ["a", "b"], "label": ["1", "2"]}, "answerKey": "1"}, "a"),
        ({"question": {"stem": "q", "choices": [{"text": "a", "label": "A"}]}, "answerKey": "A"}, "a"),
        ({"ctx": "q", "endings": ["a", "b"], "label": "1"}, "b"),
        ({"ctx": "q", "endings": ["a", "b"], "label": ""}, "a\nb"),
        ({"sentence": "q", "option1": "a", "option2": "b", "answer": "1"}, "a"),
        ({"goal": "q", "sol1": "a", "sol2": "b", "label": 1}, "b"),
        ({"question": "q", "mc1_targets": {"choices": ["a", "b"], "labels": [0, 1]}}, "b"),
        ({"question": "q", "options": ["a", "b"], "answer": "B", "answer_index": 1}, "b"),
        ({"turns": ["q"], "reference": ["a", None]}, "a"),
        ({"question": "q", "answers": {"text": ["a", "b"], "answer_start": [1, 2]}}, "a\nb"),
        ({"question": "q", "answer": True}, "True"),
        ({"question": "q", "choices": ["a", "b"], "answer": 9}, "a\nb"),
    ],
)
def test_the_right_choice_is_the_answer(row: dict[str, Any], answer: str) -> None:
    layout = benchmarks.detect([row])
    assert layout is not None
    assert benchmarks.item(row, layout) == Item("q", answer)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "evaluation"
    path.mkdir()
    return path


ROWS = [{"question": f"What is {number}?", "answer": f"It is {number}."} for number in range(3)]
ITEMS = [(f"What is {number}?", f"It is {number}.") for number in range(3)]


def write(folder: Path, name: str, rows: list[dict[str, Any]]) -> None:
    path = folder / name
    match path.suffix:
        case ".parquet":
            pq.write_table(pa.Table.from_pylist(rows), path)
        case ".jsonl":
            path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
        case ".csv":
            lines = [",".join(rows[0]), *(",".join(row.values()) for row in rows)]
            path.write_text("\n".join(lines) + "\n")
        case _:
            path.write_text(json.dumps(rows))


def read(folder: Path, **named: Any) -> list[Item | Refusal]:
    storage = open_storage(f"file://{folder.parent}")
    chosen = EvaluationSet(path="evaluation", **named)
    return [
        item
        for info in benchmarks.find(storage, chosen)
        for item in benchmarks.items(storage, info, benchmarks.layout_of(storage, info, chosen))
    ]


def texts(found: list[Item | Refusal]) -> list[tuple[str, str]]:
    return [(item.question, item.answer) for item in found if isinstance(item, Item)]


@pytest.mark.parametrize("name", ["a.parquet", "a.jsonl", "a.csv", "a.json"])
def test_every_format_gives_the_same_items(folder: Path, name: str) -> None:
    write(folder, name, ROWS)
    found = read(folder)
    assert texts(found) == ITEMS
    assert [item.place for item in found if isinstance(item, Item)] == [f"{name}:{n}" for n in range(3)]


def test_an_object_of_examples_gives_their_items(folder: Path) -> None:
    examples = [{"input": "q", "target": "a"}, {"input": "r", "target": "b"}]
    (folder / "task.json").write_text(json.dumps({"canary": "x", "examples": examples}))
    assert texts(read(folder)) == [("q", "a"), ("r", "b")]


def test_fields_are_taken_by_their_paths(folder: Path) -> None:
    write(folder, "a.jsonl", [{"ask": {"text": "q"}, "say": ["a"]}, {"ask": None, "say": None}])
    found = read(folder, question="ask.text", answer="say[0]")
    assert texts(found) == [("q", "a")]
    assert [one.error_class for one in found if isinstance(one, Refusal)] == ["no_text"]


@pytest.mark.parametrize(
    ("rows", "named", "message"),
    [
        (
            [{"frage": "q", "zahl": 1}],
            {},
            r"a.json is of no layout that is known: it has frage, zahl: .*question: frage",
        ),
        ([{"frage": "q"}], {"question": "quest"}, r"a.json has nothing at 'quest' \(it has frage\)"),
        ([], {}, "a.json has no row that is an object"),
        ([{"frage": "q"}], {"question": "["}, "is not a column path"),
    ],
)
def test_what_is_no_evaluation_set_is_named(
    folder: Path, rows: list[dict[str, Any]], named: dict[str, str], message: str
) -> None:
    write(folder, "a.json", rows)
    with pytest.raises(InputError, match=message):
        read(folder, **named)


def test_what_is_not_there_is_named(folder: Path) -> None:
    with pytest.raises(InputError, match="is no file that is read .* \\(nothing is there\\)"):
        read(folder)
    (folder / "notes.txt").write_text("x")
    with pytest.raises(InputError, match=r"1 objects are not read: evaluation/notes.txt"):
        read(folder)
