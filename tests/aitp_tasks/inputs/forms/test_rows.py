"""Rows of all forms: written by an independent writer of each form, they are read as what was written."""

import json
from collections.abc import Callable
from io import BytesIO
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aitp_tasks.config import Examples
from aitp_tasks.inputs.examples import Example, Rejection, Turn
from aitp_tasks.inputs.forms import columns
from aitp_tasks.inputs.forms.rows import Rows
from aitp_tasks.inputs.rows import Refusal

Found = Example | Rejection | Refusal
Row = dict[str, Any]


def read(row: Any, **settings: Any) -> Found:
    return Rows(Examples.model_validate(settings)).example(row)


def read_as_parquet(rows: list[Row], **settings: Any) -> list[Found]:
    file = BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), file)
    reader = Rows(Examples.model_validate(settings))
    return [
        reader.example(row)
        for batch in pq.ParquetFile(file).iter_batches()
        for row in columns.rows(batch.select(columns.wanted(batch.schema, "shard", reader.settings)))
    ]


def example(found: Found) -> Example:
    assert isinstance(found, Example), found
    return found


def outcome(found: Found) -> str:
    if isinstance(found, Example):
        return found.form
    return f"<{found.error_class}>" if isinstance(found, Refusal) else f"({found.reason})"


def said(found: Found) -> list[tuple[str, str]]:
    return [(turn["role"], turn["content"]) for turn in example(found).messages]


# -- Writers: how the field writes a system prompt, a question and an answer, and turns.

TEXTS = st.text(st.characters(codec="utf-8", exclude_categories=["Cs", "Cc", "Cf", "Z"]), min_size=1)
Written = Callable[[str, list[tuple[str, str]]], Row]


def _openai(system: str, pairs: list[tuple[str, str]]) -> Row:
    turns = [{"role": "system", "content": system}]
    for asked, answered in pairs:
        turns += [{"role": "user", "content": asked}, {"role": "assistant", "content": answered}]
    return {"messages": turns}


def _sharegpt(human: str, gpt: str) -> Written:
    def write(system: str, pairs: list[tuple[str, str]]) -> Row:
        turns = []
        for asked, answered in pairs:
            turns += [{"from": human, "value": asked}, {"from": gpt, "value": answered}]
        return {"id": "x", "system": system, "conversations": turns}

    return write


def _parts(system: str, pairs: list[tuple[str, str]]) -> Row:
    turns = _openai(system, pairs)["messages"]
    return {
        "messages": [
            {"role": turn["role"], "content": [{"type": "text", "value": turn["content"]}]} for turn in turns
        ]
    }


def _pair(asked_name: str, answered_name: str, system_name: str = "system") -> Written:
    def write(system: str, pairs: list[tuple[str, str]]) -> Row:
        *history, (asked, answered) = pairs
        row: Row = {asked_name: asked, answered_name: answered, system_name: system}
        return row | ({"history": [list(pair) for pair in history]} if history else {})

    return write


def _conversational(system: str, pairs: list[tuple[str, str]]) -> Row:
    turns = _openai(system, pairs)["messages"]
    return {"prompt": turns[:-1], "completion": turns[-1:]}


def _as_json(system: str, pairs: list[tuple[str, str]]) -> Row:
    return {"messages": json.dumps(_openai(system, pairs)["messages"])}


def _alternating(system: str, pairs: list[tuple[str, str]]) -> Row:
    return {"system": system, "data": [text for pair in pairs for text in pair]}


def _objects(system: str, pairs: list[tuple[str, str]]) -> Row:
    return {
        "system": system,
        "conversation": [{"human": asked, "assistant": answered} for asked, answered in pairs],
    }


WRITERS: dict[str, Written] = {
    "messages": _openai,
    "sharegpt": _sharegpt("human", "gpt"),
    "sharegpt of another family": _sharegpt("User", "chatgpt"),
    "parts": _parts,
    "alpaca": _pair("instruction", "output"),
    "dolly": _pair("instruction", "response"),
    "openorca": _pair("question", "response", "system_prompt"),
    "question and answer": _pair("question", "answer"),
    "prompt and completion": _pair("prompt", "completion"),
    "prompt and response": _pair("prompt", "response"),
    "input and output": _pair("input", "output"),
    "conversational": _conversational,
    "JSON in a text": _as_json,
    "alternating texts": _alternating,
    "objects of two sides": _objects,
}


@pytest.mark.parametrize("form", WRITERS)
@given(TEXTS, st.lists(st.tuples(TEXTS, TEXTS), min_size=1, max_size=3))
def test_a_conversation_is_the_same_in_every_form(
    form: str, system: str, pairs: list[tuple[str, str]]
) -> None:
    expected = [("system", system)]
    for asked, answered in pairs:
        expected += [("user", asked), ("assistant", answered)]
    row = WRITERS[form](system, pairs)
    assert said(read(row)) == expected
    (found,) = read_as_parquet([row])
    assert said(found) == expected


CALL = {"type": "function", "function": {"name": "weather", "arguments": {"town": "Lund", "days": 2}}}
TOOLS = [{"name": "weather", "parameters": {"type": "object", "properties": {"days": {"default": 1}}}}]
CALLED: list[Turn] = [
    {"role": "user", "content": "Weather in Lund?"},
    {"role": "assistant", "content": "", "tool_calls": [CALL]},
    {"role": "tool", "content": "rain"},
    {"role": "assistant", "content": "It rains."},
]


@pytest.mark.parametrize(
    "arguments",
    [CALL["function"]["arguments"], json.dumps(CALL["function"]["arguments"])],  # type: ignore[index]
    ids=["object", "text"],
)
def test_calls_of_tools_are_the_same_in_every_form(arguments: Any) -> None:
    bare = {"name": "weather", "arguments": arguments}
    asked, answered = "Weather in Lund?", "It rains."
    glaive = {
        "conversations": [
            {"from": "human", "value": asked},
            {"from": "function_call", "value": json.dumps(bare)},
            {"from": "observation", "value": "rain"},
            {"from": "gpt", "value": answered},
        ],
        "tools": json.dumps(TOOLS),
    }
    openai = {
        "messages": [
            {"role": "user", "content": asked},
            {"role": "assistant", "content": None, "tool_calls": [{"type": "function", "function": bare}]},
            {"role": "tool", "content": "rain"},
            {"role": "assistant", "content": answered},
        ],
        "tools": TOOLS,
    }
    legacy = {
        "messages": [
            {"role": "user", "content": asked},
            {"role": "assistant", "content": None, "function_call": bare},
            {"role": "function", "content": "rain"},
            {"role": "assistant", "content": answered},
        ],
        "functions": TOOLS,
    }
    parts = {
        "messages": [
            {"role": "user", "content": [{"type": "text", "value": asked}]},
            {"role": "assistant", "content": [{"type": "tool_call", "value": json.dumps(bare)}]},
            {"role": "tool", "content": [{"type": "text", "value": "rain"}]},
            {"role": "assistant", "content": [{"type": "text", "value": answered}]},
        ],
        "tools": json.dumps(TOOLS),
    }
    for row in (glaive, openai, legacy, parts):
        for found in (read(row), *read_as_parquet([row])):
            assert example(found) == Example(CALLED, TOOLS)


def test_numbers_of_arguments_stay_what_they_are() -> None:
    arguments = '{"whole": 5, "point": 5.0, "long": ' + "9" * 5000 + "}"
    row = {
        "messages": [
            {"role": "user", "content": "q"},
            {"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": arguments}}]},
        ]
    }
    (call,) = example(read(row)).messages[1]["tool_calls"]
    found = call["function"]["arguments"]
    assert [type(found[name]) for name in ("whole", "point", "long")] == [int, float, float]


def test_what_turns_say_besides_is_kept() -> None:
    rows = [
        {
            "messages": [
                {"role": "user", "content": "q", "name": "ada", "weight": None},
                {"role": "assistant", "content": "a", "reasoning_content": "r", "weight": 0},
                {"role": "tool", "content": "t", "tool_call_id": "1", "weight": None},
                {"role": "assistant", "content": "b", "weight": 1},
            ]
        },
        {
            "messages": [
                {"role": "user", "content": "q", "name": "ada"},
                {"role": "assistant", "content": "a", "thinking": "r", "train": False},
                {"role": "tool", "content": "t", "tool_call_id": "1"},
                {"role": "assistant", "content": "b", "train": True},
            ]
        },
        {
            "messages": [
                {"role": "user", "content": [{"type": "text", "value": "q"}], "name": "ada"},
                {
                    "role": "assistant",
                    "content": [{"type": "reasoning", "value": "r"}, {"type": "text", "value": "a"}],
                    "loss_weight": 0.0,
                },
                {"role": "tool", "content": [{"type": "text", "value": "t"}], "tool_call_id": "1"},
                {"role": "assistant", "content": [{"type": "text", "value": "b"}], "loss_weight": 1.0},
            ]
        },
    ]
    expected = [
        {"role": "user", "content": "q", "name": "ada"},
        {"role": "assistant", "content": "a", "reasoning_content": "r", "weight": 0},
        {"role": "tool", "content": "t", "tool_call_id": "1"},
        {"role": "assistant", "content": "b", "weight": 1},
    ]
    for row in rows:
        for found in (read(row), *read_as_parquet([row])):
            assert example(found).messages == expected
            assert example(found).not_kept == ()


MESSAGES = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]
ALPACA = {"instruction": "q", "input": "", "output": "a"}


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({"messages": None} | ALPACA, "alpaca"),
        ({"messages": []} | ALPACA, "alpaca"),
        ({"messages": MESSAGES} | ALPACA, "messages"),
        ({"messages": MESSAGES, "instruction": None, "output": None}, "messages"),
        ({"instruction": "", "input": "q", "output": "a"}, "input-output"),
        ({"instruction": "q", "output": " "}, "(no_answer)"),
        ({"instruction": "q", "output": "\u200b\u2060"}, "(no_answer)"),
        ({"instruction": "q", "output": None}, "<null>"),
        ({"instruction": None, "output": "a"}, "<null>"),
        ({"instruction": "q"}, "<not_an_example>"),
        ({"messages": None}, "<null>"),
        ({"conversations": []}, "(no_turns)"),
        ({"conversations": [{"from": "gpt", "value": "a"}]}, "(no_user_turn)"),
        ({"conversations": [{"from": "human", "value": "q"}]}, "(no_answer)"),
        ({"conversations": [{"from": "gpt", "value": "a"}, {"from": "human", "value": "q"}]}, "(no_answer)"),
        ({"messages": [*MESSAGES, {"role": "wizard", "content": "x"}]}, "<unknown_role>"),
        ({"text": "<|im_start|>user\nq<|im_end|>"}, "<rendered_text>"),
        ({"chat": "USER: q ASSISTANT: a"}, "<not_an_example>"),
        ({}, "<not_an_example>"),
        ("text", "<not_an_example>"),
        (None, "<not_an_example>"),
        (ALPACA | {"images": ["a.png"]}, "(multimodal)"),
        (ALPACA | {"images": [], "image": None, "videos": ""}, "alpaca"),
        (ALPACA | {"label": "howto"}, "alpaca"),
        (ALPACA | {"label": True}, "<preference>"),
        (ALPACA | {"kto_tag": False}, "<preference>"),
        ({"prompt": "q", "chosen": "a", "rejected": "b"}, "<preference>"),
        (ALPACA | {"history": [["q"]]}, "<not_an_example>"),
        (ALPACA | {"tools": "{"}, "<not_json>"),
        (ALPACA | {"tools": "[]"}, "alpaca"),
        ({"messages": [{"role": "user", "content": "q", "weight": 0.5}, MESSAGES[1]]}, "<not_an_example>"),
        ({"messages": [{"role": "user", "content": 7}, MESSAGES[1]]}, "<not_text>"),
        ({"messages": [{"role": "user", "content": "\ud800"}, MESSAGES[1]]}, "<not_utf8>"),
        ({"messages": "[{"}, "<not_json>"),
        ({"data": {"a": 1}}, "<not_an_example>"),
        ({"\ud800": "x"}, "<not_an_example>"),
    ],
    ids=str,
)
def test_what_becomes_of_a_row(row: Any, expected: str) -> None:
    found = read(row)
    assert outcome(found) == expected
    if not isinstance(found, Example):
        # It is stored, whatever is in the row.
        found.message.encode()


def test_messages_name_what_was_seen_and_the_remedy() -> None:
    turns = [{"from": "Alice", "value": "q"}, {"from": "Bertram", "value": "a"}]
    told = {
        "role": read({"conversations": turns}),
        "keys": read({"messages": [{"speaker": "x", "utterance": "q"}]}),
        "content": read({"messages": [{"role": "user", "utterance": "q"}]}),
        "columns": read({"topic": "x", "essay": "y"}),
        "preference": read({"prompt": "q", "chosen": "a", "rejected": "b"}),
    }
    words = {
        "role": ("conversations[0].from", "'Alice'", "Bertram", "examples.mapping.tags"),
        "keys": ("messages[0]", "role or from", "speaker, utterance"),
        "content": ("messages[0]", "content or value", "role, utterance"),
        "columns": ("topic, essay", "instruction+output", "examples.mapping"),
        "preference": ("chosen and rejected", "examples.preference: chosen"),
    }
    for name, found in told.items():
        assert isinstance(found, Refusal)
        assert [word for word in words[name] if word not in found.message] == [], found.message


PREFERRED = [
    {"prompt": "q", "chosen": "a", "rejected": "b"},
    {"instruction": "q", "input": "", "chosen": "a", "rejected": "b"},
    {"prompt": MESSAGES[:1], "chosen": MESSAGES[1:], "rejected": [{"role": "assistant", "content": "b"}]},
    {"prompt": "q", "chosen": MESSAGES, "rejected": [*MESSAGES[:1], {"role": "assistant", "content": "b"}]},
    {"chosen": MESSAGES, "rejected": [*MESSAGES[:1], {"role": "assistant", "content": "b"}]},
    {
        "conversations": [{"from": "human", "value": "q"}],
        "chosen": {"from": "gpt", "value": "a"},
        "rejected": {"from": "gpt", "value": "b"},
    },
    {"chosen_messages": MESSAGES, "rejected_messages": MESSAGES[:1]},
    {"prompt": "q", "completion": "a", "label": True},
    {"messages": MESSAGES, "kto_tag": True},
]


@pytest.mark.parametrize("row", PREFERRED, ids=str)
def test_the_preferred_answer_is_taken_where_that_is_asked_for(row: Row) -> None:
    assert outcome(read(row)) == "<preference>"
    for found in (read(row, preference="chosen"), *read_as_parquet([row], preference="chosen")):
        assert example(found).messages == MESSAGES
        assert example(found).not_kept == ()


def test_bad_answers_are_left_out_by_name() -> None:
    row = {"prompt": "q", "completion": "a", "label": False}
    assert outcome(read(row, preference="chosen")) == "(not_preferred)"


def test_what_is_not_kept_is_named() -> None:
    row = ALPACA | {"id": 7, "text": "Below is", "topic": None, "tags": [], "score": 0.0}
    assert example(read(row)).not_kept == ("id", "text", "score")
    turns = [MESSAGES[0] | {"toxic": False, "language": "en"}, MESSAGES[1] | {"language": None}]
    assert example(read({"conversation": turns})).not_kept == (
        "conversation[].toxic",
        "conversation[].language",
    )
    both = {"system": "s", "messages": [{"role": "system", "content": "t"}, *MESSAGES]}
    assert said(read(both))[0] == ("system", "t")
    assert example(read(both)).not_kept == ("system",)


class TestMapping:
    """LLaMA-Factory's names for what detection does not know."""

    def test_columns_of_pairs(self) -> None:
        mapping = {
            "columns": {
                "prompt": "ask",
                "query": "about",
                "response": "reply",
                "history": "before",
                "system": "persona",
            }
        }
        row = {"ask": "q", "about": "x", "reply": "a", "before": [["h", "i"]], "persona": "s", "output": "no"}
        for found in (read(row, mapping=mapping), *read_as_parquet([row], mapping=mapping)):
            assert said(found) == [
                ("system", "s"),
                ("user", "h"),
                ("assistant", "i"),
                ("user", "q\nx"),
                ("assistant", "a"),
            ]
        assert example(read(row, mapping=mapping)).not_kept == ("output",)

    def test_tags_of_turns(self) -> None:
        mapping = {
            "formatting": "sharegpt",
            "columns": {"messages": "dialog", "tools": "api"},
            "tags": {
                "role_tag": "speaker",
                "content_tag": "said",
                "user_tag": "A",
                "assistant_tag": "B",
                "function_tag": "C",
                "observation_tag": "D",
            },
        }
        call = json.dumps({"name": "weather", "arguments": CALL["function"]["arguments"]})  # type: ignore[index]
        texts = zip("ACDB", ["Weather in Lund?", call, "rain", "It rains."], strict=True)
        row = {"dialog": [{"speaker": who, "said": text} for who, text in texts], "api": json.dumps(TOOLS)}
        for found in (read(row, mapping=mapping), *read_as_parquet([row], mapping=mapping)):
            assert example(found) == Example(CALLED, TOOLS)

    def test_tags_may_turn_roles_round(self) -> None:
        mapping = {"formatting": "sharegpt", "tags": {"user_tag": "gpt", "assistant_tag": "human"}}
        row = {"conversations": [{"from": "gpt", "value": "q"}, {"from": "human", "value": "a"}]}
        assert said(read(row, mapping=mapping)) == [("user", "q"), ("assistant", "a")]

    def test_preferences_and_pictures_are_seen_all_the_same(self) -> None:
        mapping = {"columns": {"prompt": "ask", "response": "reply", "images": "photo"}}
        row = {"ask": "q", "reply": "a"}
        assert outcome(read(row | {"label": False}, mapping=mapping)) == "<preference>"
        assert outcome(read(row | {"photo": ["x.png"]}, mapping=mapping)) == "(multimodal)"

    def test_a_column_that_is_not_there_is_named(self) -> None:
        found = read({"ask": "q"}, mapping={"columns": {"prompt": "ask", "response": "reply"}})
        assert isinstance(found, Refusal)
        assert (found.error_class, found.message) == ("null", "reply is null or missing")
