"""Columns of any Arrow type as rows."""

from typing import Any

import pyarrow as pa
import pytest

from aitp_tasks.config import Examples
from aitp_tasks.errors import InputError
from aitp_tasks.inputs.forms import columns


def rows(column: Any) -> list[Any]:
    return [row["c"] for row in columns.rows(pa.RecordBatch.from_arrays([column], ["c"]))]


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        (["a", None, ""], pa.string()),
        (["a", None, ""], pa.large_string()),
        (["a", None, ""], pa.string_view()),
        ([["a"], None, []], pa.list_(pa.string())),
        ([["a", "b"], None], pa.list_(pa.string(), 2)),
        ([["a"], None, []], pa.list_view(pa.string())),
        ([[["a"]], None, [None]], pa.list_(pa.list_(pa.string()))),
        ([7, None], pa.int64()),
        ([True, None], pa.bool_()),
    ],
    ids=str,
)
def test_texts_of_any_type_are_bytes(values: list[Any], kind: pa.DataType) -> None:
    def in_bytes(value: Any) -> Any:
        if isinstance(value, list):
            return [in_bytes(item) for item in value]
        return value.encode() if isinstance(value, str) else value

    column = pa.array(values, kind)
    assert rows(column) == in_bytes(values)
    # A slice of a batch has offsets that do not start at zero.
    assert rows(column.slice(1)) == in_bytes(values[1:])


def test_dictionaries_and_json_are_texts() -> None:
    assert rows(pa.array(["a", None, "a"]).dictionary_encode()) == [b"a", None, b"a"]
    assert rows(pa.array(['{"a": 1}', None]).cast(pa.json_())) == [b'{"a": 1}', None]
    in_lists = pa.array([['{"a": 1}'], None], pa.list_(pa.string())).cast(pa.list_(pa.json_()))
    assert rows(in_lists) == [[b'{"a": 1}'], None]


def test_a_field_that_is_null_is_not_there() -> None:
    column = pa.array([[{"role": "user", "name": None}, {"role": None, "name": "x"}, None]])
    assert rows(column) == [[{"role": b"user"}, {"name": b"x"}, None]]


def test_the_keys_of_a_map_are_names() -> None:
    column = pa.array([[("town", "Lund")], None], pa.map_(pa.string(), pa.string()))
    assert rows(column) == [{"town": b"Lund"}, None]


def test_a_text_that_is_not_utf8_costs_its_row_only() -> None:
    column = pa.array([[{"role": b"user", "content": text}] for text in (b"a", b"\xff", b"b")])
    # As Parquet gives it: text that nothing has checked.
    fields = [field.view(pa.string()) for field in column.values.flatten()]
    column = pa.ListArray.from_arrays(column.offsets, pa.StructArray.from_arrays(fields, ["role", "content"]))
    assert [turns[0]["content"] for turns in rows(column)] == [b"a", b"\xff", b"b"]


@pytest.mark.parametrize(
    ("names", "settings", "message"),
    [
        (["body", "id"], {}, r"shard is no SFT set: it needs one of messages, .*\(it has body, id\)"),
        (["text"], {}, r"in a column text turns can only be guessed.*examples.mapping \(it has text\)"),
        (["instruction"], {}, r"it needs one of messages"),
        (["messages", "messages"], {}, r"shard has several columns 'messages': rename all but one"),
        (
            ["ask", "output"],
            {"mapping": {"columns": {"prompt": "ask", "response": "reply"}}},
            r"shard has no column 'reply' \(it has ask, output\): correct examples.mapping",
        ),
    ],
)
def test_columns_of_no_form_are_named(names: list[str], settings: dict[str, Any], message: str) -> None:
    schema = pa.schema([pa.field(name, pa.string()) for name in names])
    with pytest.raises(InputError, match=message):
        columns.wanted(schema, "shard", Examples.model_validate(settings))


def test_only_what_a_form_knows_is_read() -> None:
    schema = pa.schema(
        [pa.field(name, pa.string()) for name in ("vector", "output", "system", "instruction")]
    )
    assert set(columns.wanted(schema, "shard", Examples())) == {"instruction", "output", "system"}
