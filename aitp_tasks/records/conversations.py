"""Conversations as rows of a Parquet file: the column ``messages``, and ``tools`` where any of them has tools.

What only some conversations have, such as tool calls, has a place in a file only where
a row of it has that. Objects of free form (a call's arguments, the tools) are of
Parquet's type JSON: readers that do not know it see a JSON text, datasets gives the
object, and that is what chat templates take.
"""

import json
from collections.abc import Collection, Iterable, Mapping
from typing import Any

import pyarrow as pa

TOOLS = "tools"
#: What every turn has, and what some have besides.
_ALWAYS = {"role": pa.string(), "content": pa.large_string()}
_SOMETIMES = {
    "reasoning_content": pa.large_string(),
    "name": pa.string(),
    "tool_call_id": pa.string(),
    "tool_calls": pa.list_(
        pa.struct(
            [
                ("id", pa.string()),
                ("type", pa.string()),
                ("function", pa.struct([("name", pa.string()), ("arguments", pa.json_())])),
            ]
        )
    ),
    "weight": pa.int8(),
}
FURTHER = (*_SOMETIMES, TOOLS)


def further(messages: Iterable[Mapping[str, Any]], tools: Collection[Any] | None = None) -> set[str]:
    """Which of ``FURTHER`` a conversation has."""
    found = {name for turn in messages for name in _SOMETIMES if turn.get(name) not in (None, [])}
    return found | {TOOLS} if tools else found


def columns(used: Collection[str]) -> list[pa.Field]:
    """The columns of a file whose conversations have these of ``FURTHER``."""
    turn = _ALWAYS | {name: kind for name, kind in _SOMETIMES.items() if name in used}
    messages = pa.field("messages", pa.list_(pa.struct(list(turn.items()))))
    return [messages, pa.field(TOOLS, pa.json_())] if TOOLS in used else [messages]


def paths(used: Collection[str]) -> list[str]:
    """The same columns as Parquet names their parts."""
    turn = [f"messages.list.element.{name}" for name in (*_ALWAYS, *_SOMETIMES) if name in (*_ALWAYS, *used)]
    return [*turn, TOOLS] if TOOLS in used else turn


def table(rows: Iterable[Mapping[str, Any]], schema: pa.Schema) -> pa.Table:
    """Rows with ``messages`` and ``tools`` as a table.

    Args:
        rows: what is absent is null.
        schema: with ``columns``, and any others.
    """
    stored = pa.schema([pa.field(field.name, _as_text(field.type)) for field in schema])
    # Arrow does not make nested JSON of Python's objects, but of texts.
    return pa.Table.from_pylist([_row(row) for row in rows], stored).cast(schema)


def read(messages: Iterable[Mapping[str, Any]] | None, tools: str | None) -> tuple[list[dict[str, Any]], Any]:
    """The turns and tools of a row, as ``table`` was given them: what is null is left out."""
    turns = [{name: value for name, value in turn.items() if value is not None} for turn in messages or []]
    for turn in turns:
        if "tool_calls" in turn:
            turn["tool_calls"] = [_call_of(call) for call in turn["tool_calls"]]
    return turns, json.loads(tools) if tools else []


def to_json(value: Any) -> str:
    """JSON as it is stored: on one line, letters of all languages as they are."""
    return json.dumps(value, ensure_ascii=False)


def _row(row: Mapping[str, Any]) -> dict[str, Any]:
    made = dict(row)
    if row.get(TOOLS):
        made[TOOLS] = to_json(row[TOOLS])
    else:
        made.pop(TOOLS, None)
    made["messages"] = None if row["messages"] is None else [_turn(turn) for turn in row["messages"]]
    return made


def _turn(turn: Mapping[str, Any]) -> dict[str, Any]:
    calls = turn.get("tool_calls")
    return dict(turn) if calls is None else {**turn, "tool_calls": [_stored(call) for call in calls]}


def _stored(call: Mapping[str, Any]) -> dict[str, Any]:
    function = call["function"]
    return {**call, "function": {**function, "arguments": to_json(function["arguments"])}}


def _call_of(stored: Mapping[str, Any]) -> dict[str, Any]:
    function = stored["function"]
    arguments = json.loads(function["arguments"])
    call = {name: value for name, value in stored.items() if value is not None}
    return {**call, "function": {**function, "arguments": arguments}}


def _as_text(kind: pa.DataType) -> pa.DataType:
    """A type with texts in the place of JSON."""
    if isinstance(kind, pa.JsonType):
        return pa.string()
    if pa.types.is_list(kind):
        return pa.list_(_as_text(kind.value_type))
    if pa.types.is_struct(kind):
        return pa.struct([pa.field(field.name, _as_text(field.type)) for field in kind])
    return kind
