"""SFT forms on real Arrow batches."""

from typing import Any

import pyarrow as pa
import pytest

from aitp_tasks.config import SftText
from aitp_tasks.errors import InputError
from aitp_tasks.inputs.rows import (
    Refusal,
    conversations,
    first_turns,
    sft_columns,
    sft_text,
)


def batch(rows: list[dict[str, Any]], schema: pa.Schema | None = None) -> pa.RecordBatch:
    return pa.RecordBatch.from_pylist(rows, schema)


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


SEVERAL = [
    {"role": "system", "content": "s"},
    {"role": "user", "content": "q1"},
    {"role": "assistant", "content": " "},
    {"role": "tool", "content": "t"},
    {"role": "assistant", "content": "a1"},
    {"role": "user", "content": "q2"},
    {"role": "assistant", "content": "a2"},
]


@pytest.mark.parametrize(
    ("rule", "turns", "expected"),
    [
        (SftText.FIRST_TURNS, SEVERAL[4:], "q2\na1"),
        (SftText.FIRST_TURNS, SEVERAL, "<empty>"),
        (SftText.ALL_TURNS, SEVERAL, "q1\na1\nq2\na2"),
        (SftText.USER_TURNS, SEVERAL, "q1\nq2"),
        (SftText.ALL_TURNS, SEVERAL[:1], "<empty>"),
        (SftText.USER_TURNS, SEVERAL[2:5], "<empty>"),
        (SftText.USER_TURNS, [{"role": "user", "content": "\x00"}], "<control_characters>"),
    ],
)
def test_each_rule_takes_its_turns(rule: SftText, turns: list[dict[str, str]], expected: str) -> None:
    found = sft_text(turns, rule)
    assert (f"<{found.error_class}>" if isinstance(found, Refusal) else found) == expected


_PARTS = pa.list_(pa.struct([("type", pa.string()), ("image", pa.binary()), ("text", pa.string())]))


def test_content_in_parts_of_text_is_joined_and_other_parts_are_refused() -> None:
    text, image = {"type": "text", "text": "a"}, {"type": "image", "image": b"\xff", "text": None}
    contents = [[text], [text, text | {"text": "b"}], [text, image], None, [], [None]]
    kind = pa.list_(pa.struct([("role", pa.string()), ("content", _PARTS)]))
    column = pa.array([[{"role": "user", "content": content}] for content in contents], kind)
    data = pa.RecordBatch.from_arrays([column], ["messages"])
    assert sft_columns(data.schema, "shard") == ["messages"]
    found = [turns if isinstance(turns, Refusal) else turns[0]["content"] for turns in conversations(data)]
    assert [turns.error_class if isinstance(turns, Refusal) else turns for turns in found] == [
        "a",
        "a\nb",
        "not_text",
        "",
        "",
        "not_text",
    ]
    assert "'image'" in str(found[2])


def test_turns_stay_in_their_row_beside_nulls() -> None:
    turn = {"from": "human", "value": "q", "weight": 1.0}
    column = [[turn], None, [], [None], [turn | {"from": None}], [turn | {"value": None}], [turn] * 2]
    data = batch([{"conversations": turns} for turns in column])
    expected = [1, "null", "empty", "null", "null", 1, 2]
    for offset in range(len(column)):
        found = conversations(data.slice(offset))
        assert [t.error_class if isinstance(t, Refusal) else len(t) for t in found] == expected[offset:]


def test_a_turn_that_is_not_utf8_costs_its_row_only() -> None:
    turns = [[{"role": b"user", "content": content}] for content in (b"a", b"\xff", b"b")]
    kind = pa.list_(pa.struct([("role", pa.binary()), ("content", pa.binary())]))
    column = pa.array(turns, kind)
    # As Parquet gives it: text that nothing has checked.
    fields = [field.view(pa.string()) for field in column.values.flatten()]
    column = pa.ListArray.from_arrays(column.offsets, pa.StructArray.from_arrays(fields, ["role", "content"]))
    found = conversations(pa.RecordBatch.from_arrays([column], ["messages"]))
    assert [t.error_class if isinstance(t, Refusal) else t[0]["content"] for t in found] == [
        "a",
        "not_utf8",
        "b",
    ]


@pytest.mark.parametrize(
    ("row", "error_class"),
    [
        ({"instruction": None, "output": "a"}, "null"),
        ({"instruction": "q", "output": None}, "null"),
        ({"instruction": "q", "input": None, "output": "a"}, None),
    ],
)
def test_only_alpacas_input_may_be_null(row: dict[str, Any], error_class: str | None) -> None:
    schema = pa.schema([(name, pa.string()) for name in row])
    (found,) = conversations(batch([row], schema))
    assert (found.error_class if isinstance(found, Refusal) else None) == error_class


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (
            {"messages": [{"role": "user", "content": 7}]},
            "messages is of type .*not a list of turns with role",
        ),
        ({"messages": [{"role": "user"}]}, "not a list of turns with role and content"),
        ({"messages": ["q"]}, "not a list of turns"),
        ({"messages": "[]"}, "messages is of type string"),
        ({"conversations": [{"role": "user", "content": "q"}]}, "not a list of turns with from and value"),
        ({"messages": [{"role": "user", "content": [{"image": "x"}]}]}, "not a list of turns"),
        ({"instruction": "q", "output": 7}, "output is of type int64, not text"),
    ],
)
def test_sft_columns_of_another_type_are_named(row: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=f"shard-7: .*{message}"):
        sft_columns(batch([row]).schema, "shard-7")
