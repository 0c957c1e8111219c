"""Rows of all forms: written by an independent writer of each form, they are read as what was written."""

import json
from collections.abc import Callable
from datetime import datetime
from decimal import Decimal
from io import BytesIO
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aitp_tasks.config import Examples
from aitp_tasks.inputs.examples import Example, Rejection, Turn
from aitp_tasks.inputs.forms import columns, values
from aitp_tasks.inputs.forms.rows import Rows
from aitp_tasks.inputs.rows import Refusal
from aitp_tasks.records import conversations

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


ASKED = {"role": "user", "content": "q"}


def called(call: Any, **more: Any) -> Row:
    return {"messages": [ASKED, {"role": "assistant", "content": "", "tool_calls": [call]}], **more}


def test_numbers_of_arguments_stay_what_they_are() -> None:
    row = called({"function": {"name": "f", "arguments": '{"whole": 5, "point": 5.0}'}})
    (call,) = example(read(row)).messages[1]["tool_calls"]
    found = call["function"]["arguments"]
    assert [type(found[name]) for name in ("whole", "point")] == [int, float]


WHOLE = [-(2**63) - 1, -(2**63), 2**63 - 1, 2**63, 2**64 - 1, 2**64]


def test_whole_numbers_are_those_that_datasets_reads(tmp_path: Path) -> None:
    read_by_datasets = []
    for number in WHOLE:
        row = called({"name": "f", "arguments": {"n": number}}, tools=[{"name": "f", "n": number}])
        schema = pa.schema(conversations.columns({"tool_calls", "tools"}))
        file = tmp_path / f"{number}.parquet"
        pq.write_table(conversations.table([row], schema), file)
        try:
            (found,) = datasets.Dataset.from_parquet(str(file), cache_dir=str(tmp_path / "cache"))
        except ValueError:
            continue
        assert found["messages"][1]["tool_calls"][0]["arguments"]["n"] == found["tools"][0]["n"] == number
        read_by_datasets.append(number)
    for number in WHOLE:
        arguments = called({"name": "f", "arguments": {"n": number}})
        tools = called({"name": "f"}, tools=json.dumps([{"name": "f", "n": number}]))
        expected = "messages" if number in read_by_datasets else "<not_json>"
        assert [outcome(read(row)) for row in (arguments, tools)] == [expected] * 2


@pytest.mark.parametrize(
    ("written", "shown"),
    [
        ("NaN", "NaN"),
        ("-Infinity", "-Infinity"),
        ("1e400", "Infinity"),
        ("9" * 5000, "Infinity"),
        ("9" * 300, "9" * 40 + "…"),
    ],
)
def test_numbers_that_json_or_its_readers_have_not_are_named(written: str, shown: str) -> None:
    arguments = f'{{"n": [{written}]}}'
    for value in (arguments, json.loads(arguments, parse_int=values.whole)):
        found = read(called({"name": "f", "arguments": value}))
        assert isinstance(found, Refusal)
        assert found.error_class == "not_json"
        assert f"messages[1].tool_calls.arguments holds {shown}, " in found.message
    found = read(called({"name": "f"}, tools=arguments))
    assert isinstance(found, Refusal)
    assert f"tools holds {shown}, " in found.message


X = {"x": 1}


@pytest.mark.parametrize("key", ["arguments", "parameters", "args", "input"])
@pytest.mark.parametrize("as_text", [False, True])
def test_arguments_of_a_call_are_kept_whatever_they_are_called(key: str, as_text: bool) -> None:
    given = json.dumps(X) if as_text else X
    bare = {"name": "f", key: given}
    for call in (bare, {"type": "function", "function": bare}, {"function": {"name": "f"}, key: given}):
        asked = {"role": "user", "content": [{"type": "text", "text": "q"}]}
        part = {"role": "assistant", "content": [{"type": "tool_call", **call}]}
        rows: list[Row] = [called(call), called(json.dumps(call))]
        rows += [{"messages": [ASKED, {"role": "assistant", "function_call": call}]}]
        rows += [{"conversations": [ASKED, {"from": "function_call", "value": json.dumps(call)}]}]
        rows += [{"messages": [asked, part]}] if "type" not in call else []
        held = {"role": "assistant", "content": [{"type": "tool_call", "tool_call": call}]}
        rows += [{"messages": [asked, held]}]
        for row in rows:
            for found in (read(row), *read_as_parquet([row])):
                ((made,),) = [turn["tool_calls"] for turn in example(found).messages[1:]]
                assert made == {"type": "function", "function": {"name": "f", "arguments": X}}
                assert example(found).not_kept == ()


def test_arguments_that_disagree_are_quarantined() -> None:
    for other in ({}, {"x": 2}, '{"x": true}'):
        for call in (
            {"name": "f", "arguments": other, "parameters": X},
            {"function": {"name": "f", "args": X}, "arguments": other},
        ):
            found = read(called(call))
            assert isinstance(found, Refusal)
            assert "disagree" in found.message
    for call in (
        {"name": "f", "arguments": X, "parameters": '{"x": 1}', "args": None},
        {"name": "f", "arguments": "", "parameters": X},
    ):
        ((made,),) = [turn["tool_calls"] for turn in example(read(called(call))).messages[1:]]
        assert made["function"]["arguments"] == X


def test_what_calls_and_parts_hold_besides_is_named() -> None:
    function = {"name": "f", "arguments": X, "strict": True}
    call = {"id": "1", "type": "other", "index": 0, "function": function, "none": None}
    text = {"type": "text", "text": "q", "annotations": [1], "cache_control": {"type": "e"}}
    thought = {"type": "thinking", "thinking": "t", "signature": "s"}
    part = {"type": "tool_call", "value": json.dumps({"name": "g", "thought": "t"}), "cost": 1}
    messages = [
        {"role": "user", "content": [text], "reasoning_content": "r"},
        {"role": "assistant", "content": [thought, part], "tool_calls": [call]},
        {"role": "tool", "content": [{"type": "reasoning", "text": "r"}, {"type": "text", "text": "t"}]},
    ]
    expected = {"content[].annotations", "content[].cache_control", "reasoning_content"}
    expected |= {"content[].signature", "content[].thought", "content[].cost", "tool_calls[].type"}
    expected |= {"tool_calls[].index", "tool_calls[].function.strict", "content[].reasoning_content"}
    found = example(read({"messages": messages}))
    assert set(found.not_kept) == {f"messages[].{key}" for key in expected}
    assert [turn.get("reasoning_content") for turn in found.messages] == [None, "t", None]
    assert found.messages[2]["content"] == "t"


def test_a_list_of_texts_alternates_only_where_turns_are_expected() -> None:
    chosen = {"preference": "chosen"}
    mapped = {"mapping": {"columns": {"prompt": "p", "response": "c"}}}
    for row, settings in (
        ({"instruction": "i", "output": ["o", "p"]}, {}),
        ({"instruction": ["i", "j"], "output": "o"}, {}),
        ({"question": "q", "answer": ["a"]}, {}),
        ({"input": ["a", "b"], "output": ["c"]}, {}),
        ({"prompt": ["a", "b"], "completion": ["c"]}, {}),
        ({"prompt": "q", "response": ["a", None]}, {}),
        ({"prompt": "q", "chosen": ["c"], "rejected": ["r"]}, chosen),
        ({"prompt": "q", "chosen": ["c", "d"], "rejected": ["r"]}, chosen),
        ({"p": "q", "c": ["a", "b"]}, mapped),
    ):
        for found in (read(row, **settings), *read_as_parquet([row], **settings)):  # type: ignore[arg-type]
            assert isinstance(found, Refusal)
            assert (found.error_class, "is a list of texts" in found.message) == ("not_text", True)
    for name in ("messages", "conversations", "conversation", "data"):
        assert said(read({name: ["q", "a"]})) == [("user", "q"), ("assistant", "a")]
    found = read({"data": ["q", None]})
    assert isinstance(found, Refusal)
    assert found.message == "data[1] is null or missing"


def test_turns_as_json_in_a_conversational_column_are_turns() -> None:
    asked, good, bad = (
        json.dumps([{"role": role, "content": content}])
        for role, content in (("user", "q"), ("assistant", "good"), ("assistant", "bad"))
    )
    expected = [("user", "q"), ("assistant", "good")]
    for row, settings in (
        ({"prompt": asked, "completion": good}, {}),
        ({"prompt": asked, "chosen": good, "rejected": bad}, {"preference": "chosen"}),
        (
            {"chosen": json.dumps(json.loads(asked) + json.loads(good)), "rejected": bad},
            {"preference": "chosen"},
        ),
    ):
        for found in (read(row, **settings), *read_as_parquet([row], **settings)):  # type: ignore[arg-type]
            assert said(found) == expected
    # Elsewhere, and of other lists, the JSON is what is said.
    for completion in ("[1]", "[]", "[{}]", '[{"role": "x"}]', '["a"]', "[broken", "[" * 10**5):
        assert said(read({"prompt": "q", "completion": completion}))[1] == ("assistant", completion)
    assert said(read({"question": "q", "answer": good}))[1] == ("assistant", good)


def test_parts_of_text_that_are_null_add_nothing() -> None:
    parts = [{"type": "text", "text": "q", "value": None}, {"type": "text", "text": None}]
    summary = {"type": "reasoning", "summary": [{"type": "summary_text", "text": text} for text in "rs"]}
    answer = {"role": "assistant", "content": [summary, {"type": "text", "text": "a"}]}
    found = example(read({"messages": [{"role": "user", "content": parts}, answer]}))
    assert [turn["content"] for turn in found.messages] == ["q", "a"]
    assert found.messages[1]["reasoning_content"] == "r\ns"


def test_values_that_are_no_text_are_named() -> None:
    for output, told in (
        (datetime(2026, 1, 2), "output is a value of type datetime, not text"),
        (Decimal("1.5"), "output is a value of type Decimal, not text"),
    ):
        for found in (
            read({"instruction": "i", "output": output}),
            *read_as_parquet([{"instruction": "i", "output": output}]),
        ):
            assert isinstance(found, Refusal)
            assert found.message == told
    found = read({"messages": [ASKED, {"role": "assistant", "content": None, "other": "a"}]})
    assert isinstance(found, Refusal)
    assert "messages[1].content is null" in found.message


CHOSEN = {"preference": "chosen"}
COMPLETION = {"prompt": "q", "completion": "a"}


@pytest.mark.parametrize("form", [COMPLETION, {"messages": [ASKED, {"role": "assistant", "content": "a"}]}])
@pytest.mark.parametrize("tag", [True, 1, 1.0, "true", "True", " TRUE ", "1"])
def test_tags_of_a_kto_set_are_read_however_they_are_written(form: Row, tag: Any) -> None:
    bad = {"true": "false", "1": "0"}.get(tag.strip().lower()) if isinstance(tag, str) else type(tag)(0)
    for name in ("kto_tag", "label"):
        rows = [{**form, name: tag}, {**form, name: bad}]
        for found in ([read(row, **CHOSEN) for row in rows], read_as_parquet(rows, **CHOSEN)):
            assert [outcome(some) for some in found] == [outcome(read(form)), "(not_preferred)"]
            assert example(found[0]).not_kept == ()
    for row in ({**form, "kto_tag": tag}, {**form, "kto_tag": bad}):
        assert outcome(read(row)) == "<preference>"


@pytest.mark.parametrize("label", ["False", " true", b"FALSE"])
def test_a_kto_set_from_csv_is_not_taken_for_instructions(label: Any) -> None:
    rows = Rows(Examples())
    found = rows.example({"prompt": "p", "completion": "c", "label": label})
    assert isinstance(found, Refusal)
    assert found.error_class == "preference"
    # A classification's set may call its classes so.
    assert isinstance(rows.example({"instruction": "p", "output": "c", "label": label}), Example)


@pytest.mark.parametrize("tag", [None, "", "good", 2, 0.5, float("nan"), [True]])
def test_what_is_no_tag_of_a_kto_set_is_quarantined(tag: Any) -> None:
    columns = {"prompt": "p", "response": "c", "kto_tag": "label"}
    for row, settings in (
        ({**COMPLETION, "kto_tag": tag}, CHOSEN),
        ({**COMPLETION, "kto_tag": tag}, {}),
        ({"p": "q", "c": "a", "label": tag}, {**CHOSEN, "mapping": {"columns": columns}}),
    ):
        for found in (read(row, **settings), *read_as_parquet([row], **settings)):
            assert isinstance(found, Refusal)
            assert "not true or false" in found.message


def test_tags_of_a_mapped_column_are_read() -> None:
    settings = {**CHOSEN, "mapping": {"columns": {"prompt": "p", "response": "c", "kto_tag": "label"}}}
    found = [read({"p": "q", "c": "a", "label": tag}, **settings) for tag in (0, 1, "False")]
    assert [outcome(some) for some in found] == ["(not_preferred)", "alpaca", "(not_preferred)"]
    assert isinstance(read({"p": "q", "c": "a"}, **settings), Refusal)


def test_a_label_may_be_something_else() -> None:
    for label in (0, 1, "0", "good", 3, 0.5):
        assert example(read({**COMPLETION, "label": label})).not_kept == ("label",)
    for label in ("good", 3, 0.5):
        assert example(read({**COMPLETION, "label": label}, **CHOSEN)).not_kept == ("label",)
    assert example(read({**COMPLETION, "label": None})).not_kept == ()
    for label in (None, " ", float("nan")):
        assert isinstance(read({**COMPLETION, "label": label}, **CHOSEN), Refusal)


NO_FILES = [None, [], "", "[]", "null", "{}", " [null] ", "false", "0", False, 0, [None], {}, float("nan")]
NO_FILES += [[{"bytes": None, "path": None}], {"bytes": b"", "path": ""}, '[{"path": null}]', ["", []]]


@pytest.mark.parametrize("files", NO_FILES)
def test_media_that_hold_nothing_are_none(files: Any) -> None:
    turns = [ASKED | {"images": files}, {"role": "assistant", "content": "a"}]
    for row in ({**COMPLETION, "images": files}, {**COMPLETION, "png": files}, {"messages": turns}):
        assert example(read(row)).not_kept == ()


@pytest.mark.parametrize(
    "files", ["a.jpg", "[broken", '["a.jpg"]', ["a"], [{"bytes": b"\xff"}], b"\xff\xd8", True, 7]
)
def test_media_that_hold_something_make_a_row_multimodal(files: Any) -> None:
    turns = [ASKED | {"images": files}, {"role": "assistant", "content": "a"}]
    for row in ({**COMPLETION, "image": files}, {**COMPLETION, "mp4": files}, {"messages": turns}):
        assert outcome(read(row)) == "(multimodal)"
        assert [outcome(found) for found in read_as_parquet([row])] == ["(multimodal)"]


def test_an_answer_may_be_spoken_as_well() -> None:
    answer = {"role": "assistant", "content": "a", "audio": {"id": "x"}}
    assert example(read({"messages": [ASKED, answer]})).not_kept == ("messages[].audio",)


@pytest.mark.parametrize("column", ["jpg", "png", "mp4", "wav", "0.jpeg"])
def test_rows_of_a_tar_with_media_are_multimodal(column: str) -> None:
    row = {"__key__": "a/1", "json": COMPLETION, **COMPLETION}
    assert outcome(read(row | {column: None})) == "(multimodal)"
    assert outcome(read(row | {"cls": None})) == "prompt-completion"


def test_media_may_be_as_deep_as_json_is_read() -> None:
    deep: Any = None
    for _ in range(10**5):
        deep = [deep]
    assert example(read({**COMPLETION, "images": deep}))


def test_a_weight_may_be_a_text() -> None:
    for weight, expected in (("0", 0), (" 1 ", 1), (b"0", 0), ("0.5", None), ("yes", None)):
        found = read({"messages": [ASKED, {"role": "assistant", "content": "a", "weight": weight}]})
        if expected is None:
            assert isinstance(found, Refusal)
            assert f"messages[1].weight is '{weight!s}'" in found.message
        else:
            assert example(found).messages[1]["weight"] == expected


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
