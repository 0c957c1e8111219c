"""From rows to examples: the forms of SFT examples, and what is no text.

An SFT example from Parquet is turned into
what JSON would have given, and both go through the same rules.
"""

import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import pyarrow as pa

from aitp_tasks.config import SftText
from aitp_tasks.errors import InputError
from aitp_tasks.inputs.readable import is_blank

#: Names of JSON's types in messages.
_KINDS = {dict: "an object", list: "a list", float: "a number", int: "a number", bool: "a boolean"}
_NAMES_SHOWN = 20
_ROLES = {"human": "user", "gpt": "assistant", "user": "user", "assistant": "assistant", "system": "system"}


@dataclass(frozen=True)
class Refusal:
    """Why a row is quarantined."""

    error_class: str
    message: str


Turn = dict[str, str]


class Form(StrEnum):
    """How a file holds SFT examples."""

    MESSAGES = "messages"  # a list of turns with role and content
    SHAREGPT = "sharegpt"  # conversations: a list of turns with from and value
    ALPACA = "alpaca"  # instruction, output and, where there is one, input


#: Of the forms that are lists of turns: the list's name, and those of a turn's role and content.
_TURN_NAMES = {
    Form.MESSAGES: ("messages", "role", "content"),
    Form.SHAREGPT: ("conversations", "from", "value"),
}


def form_of(names: Iterable[str], where: str) -> Form:
    """The form of SFT examples with these columns or keys.

    Raises:
        InputError: none of the three forms; names ``where``.
    """
    names = list(names)
    for form, (column, _, _) in _TURN_NAMES.items():
        if column in names:
            return form
    if {"instruction", "output"} <= set(names):
        return Form.ALPACA
    raise InputError(
        f"{where} is no SFT set: it needs messages, conversations or instruction/input/output columns "
        f"(it has {listed(names)})"
    )


def sft_columns(schema: pa.Schema, where: str) -> list[str]:
    """The columns that hold an SFT example, by its form.

    Raises:
        InputError: none of the three forms, or a type that does not fit.
    """
    columns = _sft_types(schema, form_of(schema.names, where), where)
    return list(columns)


def conversations(batch: pa.RecordBatch) -> Iterator[list[Turn] | Refusal]:
    """Each row of a batch of SFT examples as ``turns`` gives it.

    The batch has the columns of ``sft_columns`` at least.
    """
    form = form_of(batch.schema.names, "batch")
    types = _sft_types(batch.schema, form, "batch")
    # Null lists, null turns and slices are all to_pylist's affair; bytes, as nothing has checked the text.
    columns = [batch.column(batch.schema.get_field_index(name)).cast(types[name]) for name in types]
    for values in zip(*(column.to_pylist() for column in columns), strict=True):
        yield turns(dict(zip(types, values, strict=True)), form)


def turns(example: Any, form: Form | None) -> list[Turn] | Refusal:
    """An SFT example as a list of turns ``{"role", "content"}``, or why it is none.

    Args:
        example: what JSON gave, or the same from Parquet with texts as bytes. What
            is absent counts as null. A turn without content (as tool calls have
            none) is a turn with an empty text; content in parts must be all text.
        form: the file's form; None where no row of it is an object.
    """
    if form is None or not isinstance(example, dict):
        return Refusal("not_an_example", f"the row is {kind_of(example)}, not an object")
    try:
        return _alpaca(example) if form is Form.ALPACA else _turns(example, *_TURN_NAMES[form])
    except _RefusedError as refused:
        return refused.refusal


def sft_text(example: list[Turn], rule: SftText) -> str | Refusal:
    """The text of an SFT example, by the configured rule."""
    match rule:
        case SftText.FIRST_TURNS:
            text = first_turns(example)
        case SftText.ALL_TURNS:
            text = _all_of(example, ("user", "assistant"))
        case SftText.USER_TURNS:
            text = _all_of(example, ("user",))
    return text if isinstance(text, Refusal) else checked(text)


def first_turns(example: list[Turn]) -> str | Refusal:
    """The paper's text of an SFT example: first user turn, newline, first assistant turn."""
    firsts = []
    for role in ("user", "assistant"):
        content = next((turn["content"] for turn in example if turn["role"] == role), None)
        if content is None or not content.strip():
            return Refusal("empty", f"the example has no {role} turn with text")
        firsts.append(content)
    return "\n".join(firsts)


def _all_of(example: list[Turn], roles: tuple[str, ...]) -> str | Refusal:
    """All turns of these roles that have text, in order, joined by newlines."""
    texts = [turn["content"] for turn in example if turn["role"] in roles and turn["content"].strip()]
    return "\n".join(texts) or Refusal("empty", f"the example has no {' or '.join(roles)} turn with text")


class _RefusedError(Exception):
    """Leaves the middle of an example; never leaves this module."""

    def __init__(self, error_class: str, message: str) -> None:
        super().__init__(message)
        self.refusal = Refusal(error_class, message)


def _turns(example: dict[str, Any], column: str, role_name: str, content_name: str) -> list[Turn]:
    values = example.get(column)
    if values is None:
        raise _RefusedError("null", f"{column} is null or missing")
    if not isinstance(values, list):
        raise _RefusedError("not_an_example", f"{column} is {kind_of(values)}, not a list of turns")
    if not values:
        raise _RefusedError("empty", "the example has no turns")
    result = []
    for number, value in enumerate(values):
        name = f"{column}[{number}]"
        if value is None:
            raise _RefusedError("null", f"{name} is null")
        if not isinstance(value, dict):
            raise _RefusedError("not_an_example", f"{name} is {kind_of(value)}, not a turn")
        role = _text(value.get(role_name), f"{name}.{role_name}")
        content = _content(value.get(content_name), f"{name}.{content_name}")
        result.append({"role": _ROLES.get(role, role), "content": content})
    return result


def _content(value: Any, name: str) -> str:
    if value is None:
        return ""
    if not isinstance(value, list):
        return _text(value, name)
    return "\n".join(_part(part, f"{name}[{number}]") for number, part in enumerate(value))


def _part(part: Any, name: str) -> str:
    """The text of one part of a multi-modal content, which has to be text."""
    if not isinstance(part, dict):
        raise _RefusedError("not_text", f"{name} is {kind_of(part)}, not a part of type text")
    kind = _text(part.get("type"), f"{name}.type")
    if kind != "text":
        raise _RefusedError("not_text", f"{name} is a part of type {kind[:40]!r}, not text")
    return _text(part.get("text"), f"{name}.text")


def _alpaca(example: dict[str, Any]) -> list[Turn]:
    """Instruction and input, where there is one, are one user turn."""
    asked = [_text(example.get("instruction"), "instruction")]
    if example.get("input") is not None:
        asked.append(_text(example["input"], "input"))
    answer = _text(example.get("output"), "output")
    return [
        {"role": "user", "content": "\n".join(text for text in asked if text)},
        {"role": "assistant", "content": answer},
    ]


def _text(value: Any, name: str) -> str:
    """A value that has to be a text: a string from JSON, or bytes from Parquet."""
    if value is None:
        raise _RefusedError("null", f"{name} is null or missing")
    try:
        if isinstance(value, bytes):
            return value.decode()
        if isinstance(value, str):
            value.encode()
            return value
    except UnicodeDecodeError as error:
        raise _RefusedError("not_utf8", f"{error.reason} at byte {error.start} of {name}")
    except UnicodeEncodeError as error:
        # What JSON's escapes can write, and what stands for bytes that were not UTF-8.
        raise _RefusedError("not_utf8", f"lone surrogate at character {error.start} of {name}")
    raise _RefusedError("not_text", f"{name} is {kind_of(value)}, not text")


def kind_of(value: Any) -> str:
    """What a value of JSON is, for messages."""
    return "null" if value is None else _KINDS.get(type(value), "a text")


def checked(text: str) -> str | Refusal:
    """The text, unless nothing of it can be read."""
    if is_blank(text):
        return Refusal("empty", f"{len(text)} characters, all white space or without width")
    if all(is_blank(character) or unicodedata.category(character) == "Cc" for character in text):
        return Refusal("control_characters", f"{len(text)} characters, none printable")
    return text


def _sft_types(schema: pa.Schema, form: Form, where: str) -> dict[str, pa.DataType]:
    """The columns of a form with the types that they are read as: texts as bytes."""
    types: dict[str, pa.DataType] = {}
    if form is Form.ALPACA:
        for name in ("instruction", "input", "output"):
            if name in schema.names:
                require_one(schema, name, where)
                kind = schema.field(name).type
                if not may_be_text(kind):
                    raise InputError(f"{where}: {name} is of type {kind}, not text: convert it")
                types[name] = pa.large_binary()
        return types
    column, role, content = _TURN_NAMES[form]
    require_one(schema, column, where)
    kind = schema.field(column).type
    fields = _struct_fields(kind)
    if not pa.types.is_null(kind):
        parts = _struct_fields(fields.get(content))
        if not may_be_text(fields.get(role)) or not (
            may_be_text(fields.get(content))
            or (may_be_text(parts.get("type")) and may_be_text(parts.get("text")))
        ):
            raise InputError(
                f"{where}: {column} is of type {kind}, not a list of turns with {role} and {content} "
                "as text: convert it"
            )
        in_parts = _list_of({"type": pa.large_binary(), "text": pa.large_binary()})
        kind = _list_of({role: pa.large_binary(), content: in_parts if parts else pa.large_binary()})
    return {column: kind}


def _list_of(fields: dict[str, pa.DataType]) -> pa.DataType:
    return pa.large_list(pa.struct(list(fields.items())))


def _struct_fields(kind: pa.DataType | None) -> dict[str, pa.DataType]:
    """The fields of a list of structs; none for any other type."""
    if kind is None or not (pa.types.is_list(kind) or pa.types.is_large_list(kind)):
        return {}
    return (
        {field.name: field.type for field in kind.value_type} if pa.types.is_struct(kind.value_type) else {}
    )


def require_one(schema: pa.Schema, column: str, where: str) -> None:
    """Make sure that a column's name is there once.

    Raises:
        InputError: there are several; names ``where``.
    """
    if schema.get_field_index(column) < 0:
        raise InputError(f"{where} has several columns {column!r}: rename all but one")


def listed(names: Sequence[str]) -> str:
    """Names of columns, for messages; of many the first."""
    return ", ".join(names[:_NAMES_SHOWN]) + (", …" if len(names) > _NAMES_SHOWN else "")


def may_be_text(kind: pa.DataType | None) -> bool:
    """Whether a column of this type holds texts, or nothing but nulls."""
    return kind is not None and (_is_text(kind) or pa.types.is_null(kind))


def _is_text(kind: pa.DataType) -> bool:
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    tests = (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view)
    return any(test(kind) for test in tests)
