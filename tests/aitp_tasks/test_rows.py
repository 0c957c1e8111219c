"""Column paths, decoding and SFT forms on real Arrow batches."""

from typing import Any

import pyarrow as pa
import pytest

from aitp_tasks.errors import InputError
from aitp_tasks.rows import Refusal, TextPath, conversations, decode, first_turns, sft_columns


def batch(rows: list[dict[str, Any]], schema: pa.Schema | None = None) -> pa.RecordBatch:
    return pa.RecordBatch.from_pylist(rows, schema)


NESTED = [
    {
        "conversations": [{"from": "human", "value": "first"}, {"from": "gpt", "value": "second"}],
        "meta": {"t": "m"},
    },
    {"conversations": [], "meta": {"t": None}},
    {"conversations": None, "meta": None},
    {"conversations": [{"from": "human", "value": "third"}], "meta": {"t": "n"}},
]


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("conversations[0].value", [b"first", None, None, b"third"]),
        ("conversations[1].value", [b"second", None, None, None]),
        ("meta.t", [b"m", None, None, b"n"]),
    ],
)
def test_nested_paths(path: str, expected: list[bytes | None]) -> None:
    text_path = TextPath(path)
    data = batch(NESTED)
    text_path.check(data.schema, "shard")
    assert text_path.extract(data) == expected
    # A slice of a batch has offsets that do not start at zero.
    assert text_path.extract(data.slice(1)) == expected[1:]


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.dictionary(pa.int32(), pa.string())])
def test_text_of_any_arrow_type(kind: pa.DataType) -> None:
    data = pa.RecordBatch.from_arrays([pa.array(["a", None, "b"]).cast(kind)], ["text"])
    TextPath("text").check(data.schema, "shard")
    assert TextPath("text").extract(data) == [b"a", None, b"b"]


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("body", "has no column 'body' .it has conversations, meta."),
        ("meta.u", "no field 'u'"),
        ("meta[0]", "not a list"),
        ("meta", "not text"),
        ("[0].x", "does not start with a column name"),
        ("conversations[x]", "is not a column path"),
        ("", "does not start with a column name"),
    ],
)
def test_wrong_paths_are_named(path: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        TextPath(path).check(batch(NESTED).schema, "shard-7")


@pytest.mark.parametrize(
    ("value", "error_class"),
    [
        (None, "null"),
        (b"", "empty"),
        (b" \n\t ", "empty"),
        (b"\xff\xfe", "not_utf8"),
        ("\ud800".encode("utf-8", "surrogatepass"), "not_utf8"),
        (b"\x00\x01\x02 \n", "control_characters"),
    ],
)
def test_what_is_no_text_is_refused_with_its_class(value: bytes | None, error_class: str) -> None:
    refused = decode(value)
    assert isinstance(refused, Refusal)
    assert refused.error_class == error_class


@pytest.mark.parametrize(
    "text", ["a", "{}", "<|im_start|>", "nul\x00inside", "𝒳 \U0010ffff", "x" * 1_000_000]
)
def test_every_other_text_is_unchanged(text: str) -> None:
    assert decode(text.encode()) == text


def test_rows_that_are_not_utf8_cost_themselves_only() -> None:
    column = pa.StringArray.from_buffers(
        3, pa.py_buffer(b"\0\0\0\0\1\0\0\0\3\0\0\0\4\0\0\0"), pa.py_buffer(b"a\xff\xfeb")
    )
    values = TextPath("text").extract(pa.RecordBatch.from_arrays([column], ["text"]))
    assert [decode(value) if value == b"a" or value == b"b" else type(decode(value)) for value in values] == [
        "a",
        Refusal,
        "b",
    ]


@pytest.mark.parametrize(
    "row",
    [
        {
            "messages": [
                {"role": "system", "content": "s"},
                {"role": "user", "content": "q"},
                {"role": "assistant", "content": "a"},
            ]
        },
        {"conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]},
        {"instruction": "q", "input": "", "output": "a"},
        {"instruction": "q", "output": "a"},
    ],
    ids=["messages", "sharegpt", "alpaca", "alpaca without input"],
)
def test_first_turns_of_each_form(row: dict[str, Any]) -> None:
    data = batch([row])
    assert sft_columns(data.schema, "shard")
    (turns,) = conversations(data.select(sft_columns(data.schema, "shard")))
    assert not isinstance(turns, Refusal)
    assert first_turns(turns) == "q\na"


def test_alpaca_input_belongs_to_the_user_turn() -> None:
    (turns,) = conversations(batch([{"instruction": "Translate", "input": "Haus", "output": "house"}]))
    assert turns == [
        {"role": "user", "content": "Translate\nHaus"},
        {"role": "assistant", "content": "house"},
    ]


@pytest.mark.parametrize(
    "turns",
    [
        [],
        [{"role": "user", "content": "q"}],
        [{"role": "user", "content": " "}, {"role": "assistant", "content": "a"}],
    ],
)
def test_an_example_without_both_turns_is_refused(turns: list[dict[str, str]]) -> None:
    assert isinstance(first_turns(turns), Refusal)


def test_what_is_no_sft_set_is_named() -> None:
    with pytest.raises(InputError, match="needs messages, conversations or instruction"):
        sft_columns(pa.schema([("text", pa.string())]), "shard")
