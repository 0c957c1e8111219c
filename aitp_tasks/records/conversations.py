"""Conversations as rows of a Parquet file: the column ``messages``, and ``tools`` where any has tools.

Where turns have no more than a role and a content, a turn is a struct of the two. Where
any of a file has more, such as tool calls, each turn is of Parquet's type JSON: a struct
would have every name in every turn, null in most, and many chat templates ask whether a
name is there. Readers that do not know that type see a JSON text; datasets gives trainers
the object, which is what chat templates take.
"""

import json
from collections.abc import Collection, Iterable, Mapping
from typing import Any

import pyarrow as pa

from aitp_tasks.records.spelling import spelt

TOOLS = "tools"
#: What some turns have besides role and content.
_FURTHER = ("reasoning_content", "name", "tool_call_id", "tool_calls", "weight")
_PLAIN = pa.struct([("role", pa.string()), ("content", pa.large_string())])


def further(messages: Iterable[Mapping[str, Any]], tools: Collection[Any] | None = None) -> set[str]:
    """What a conversation has besides roles and contents, by its name."""
    found = {name for turn in messages for name in _FURTHER if turn.get(name) not in (None, [])}
    return found | {TOOLS} if tools else found


def columns(used: Collection[str]) -> list[pa.Field]:
    """The columns of a file whose conversations have this besides roles and contents."""
    turn = pa.json_() if set(used) & set(_FURTHER) else _PLAIN
    messages = pa.field("messages", pa.list_(turn))
    return [messages, pa.field(TOOLS, pa.json_())] if TOOLS in used else [messages]


def table(rows: Iterable[Mapping[str, Any]], schema: pa.Schema) -> pa.Table:
    """Rows with ``messages`` and ``tools`` as a table.

    Args:
        rows: what is absent is null.
        schema: with ``columns``, and any others.
    """
    as_text = pa.schema([pa.field(field.name, _text_of(field.type)) for field in schema])
    in_json = pa.types.is_string(as_text.field("messages").type.value_type)
    # Arrow makes JSON of texts only.
    return pa.Table.from_pylist([_stored(row, in_json) for row in rows], as_text).cast(schema)


def read(messages: Iterable[Any] | None, tools: str | None = None) -> tuple[list[dict[str, Any]], list[Any]]:
    """The turns and tools of a row, as ``table`` was given them."""
    turns = [json.loads(turn) if isinstance(turn, str) else turn for turn in messages or []]
    return turns, json.loads(tools) if tools else []


def to_json(value: Any) -> str:
    """JSON as it is stored: on one line, letters of all languages as they are."""
    return json.dumps(value, ensure_ascii=False)


def _stored(row: Mapping[str, Any], in_json: bool) -> dict[str, Any]:
    tools, messages = row.get(TOOLS), row["messages"]
    if messages is not None and in_json:
        # Nothing else in a turn has numbers with a point.
        messages = [spelt(to_json(turn)) if turn.get("tool_calls") else to_json(turn) for turn in messages]
    return {**row, "messages": messages, TOOLS: spelt(to_json(tools)) if tools else None}


def _text_of(kind: pa.DataType) -> pa.DataType:
    """A type with text in the place of JSON."""
    if isinstance(kind, pa.JsonType):
        return pa.string()
    is_json = pa.types.is_list(kind) and isinstance(kind.value_type, pa.JsonType)
    return pa.list_(pa.string()) if is_json else kind
