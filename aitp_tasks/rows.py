"""From Parquet rows to texts: nested column paths, SFT forms, and what is no text.

Texts are taken out of Arrow as bytes and decoded row by row, so that one row
that is not UTF-8 costs itself only.
"""

import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from aitp_tasks.errors import InputError

_STEP = re.compile(r"\.?([^.\[\]]+)|\[(\d+)\]")
#: Alpaca's prompt: instruction and input belong to one user turn.
_ALPACA_JOIN = "\n"
_ROLES = {"human": "user", "gpt": "assistant", "user": "user", "assistant": "assistant", "system": "system"}


@dataclass(frozen=True)
class Refusal:
    """Why a row is quarantined."""

    error_class: str
    message: str


@dataclass(frozen=True)
class TextPath:
    """A path to one text in a row, such as ``text`` or ``conversations[0].value``."""

    spec: str

    @property
    def column(self) -> str:
        """The top-level column that has to be read."""
        return str(self._steps()[0])

    def _steps(self) -> list[str | int]:
        steps: list[str | int] = []
        position = 0
        while position < len(self.spec):
            match = _STEP.match(self.spec, position)
            if match is None:
                raise InputError(
                    f"text_column {self.spec!r} is not a column path such as conversations[0].value"
                )
            steps.append(match[1] if match[1] is not None else int(match[2]))
            position = match.end()
        if not steps or isinstance(steps[0], int):
            raise InputError(f"text_column {self.spec!r} does not start with a column name")
        return steps

    def check(self, schema: pa.Schema, where: str) -> None:
        """Make sure that the path leads to a text.

        Raises:
            InputError: a name is missing or a type does not fit; names ``where``.
        """
        if self.column not in schema.names:
            raise InputError(
                f"{where} has no column {self.column!r} (it has {', '.join(schema.names)}): "
                "correct text_column"
            )
        kind = schema.field(self.column).type
        for step in self._steps()[1:]:
            kind = _step_type(kind, step, self.spec, where)
        if not (_is_text(kind) or pa.types.is_null(kind)):
            raise InputError(f"{where}: {self.spec} is of type {kind}, not text: correct text_column")

    def extract(self, batch: pa.RecordBatch) -> list[bytes | None]:
        """The path's value in each row, as bytes; None where it is null or absent."""
        values = batch.column(batch.schema.get_field_index(self.column))
        for step in self._steps()[1:]:
            values = _element(values, step) if isinstance(step, int) else pc.struct_field(values, step)
        return _as_bytes(values)


def decode(value: bytes | None) -> str | Refusal:
    """A row's text, or why it has none."""
    if value is None:
        return Refusal("null", "the text is null")
    try:
        text = value.decode("utf-8")
    except UnicodeDecodeError as error:
        return Refusal("not_utf8", f"{error.reason} at byte {error.start} of {len(value)}")
    if not text.strip():
        return Refusal("empty", f"{len(text)} characters, all white space")
    if all(character.isspace() or unicodedata.category(character) == "Cc" for character in text):
        return Refusal("control_characters", f"{len(text)} characters, none printable")
    return text


def sft_columns(schema: pa.Schema, where: str) -> list[str]:
    """The columns that hold an SFT example, by its form.

    ``messages`` (role, content), ShareGPT ``conversations`` (from, value), or
    Alpaca ``instruction``, ``input``, ``output``.

    Raises:
        InputError: none of the three forms.
    """
    names = schema.names
    for column in ("messages", "conversations"):
        if column in names:
            return [column]
    if {"instruction", "output"} <= set(names):
        return [name for name in ("instruction", "input", "output") if name in names]
    raise InputError(
        f"{where} is no SFT set: it needs messages, conversations or instruction/input/output columns "
        f"(it has {', '.join(names)})"
    )


Turn = dict[str, str]


def conversations(batch: pa.RecordBatch) -> Iterator[list[Turn] | Refusal]:
    """Each SFT row as a list of turns ``{"role", "content"}``, or why it is none."""
    columns = {name: batch.column(index) for index, name in enumerate(batch.schema.names)}
    if "messages" in columns:
        yield from _turn_rows(columns["messages"], "role", "content")
    elif "conversations" in columns:
        yield from _turn_rows(columns["conversations"], "from", "value")
    else:
        yield from _alpaca_rows(columns)


def first_turns(turns: list[Turn]) -> str | Refusal:
    """The paper's text of an SFT example: first user turn, newline, first assistant turn."""
    firsts = []
    for role in ("user", "assistant"):
        content = next((turn["content"] for turn in turns if turn["role"] == role), None)
        if content is None or not content.strip():
            return Refusal("empty", f"the example has no {role} turn with text")
        firsts.append(content)
    return "\n".join(firsts)


def _turn_rows(column: pa.Array, role_name: str, content_name: str) -> Iterator[list[Turn] | Refusal]:
    flat = pc.list_flatten(column)
    roles = _as_bytes(pc.struct_field(flat, role_name))
    contents = _as_bytes(pc.struct_field(flat, content_name))
    position = 0
    for count in pc.list_value_length(column).to_pylist():
        end = position + (count or 0)
        yield _turns(roles[position:end], contents[position:end])
        position = end


def _turns(roles: list[bytes | None], contents: list[bytes | None]) -> list[Turn] | Refusal:
    turns = []
    for role, content in zip(roles, contents, strict=True):
        try:
            name, text = (role or b"").decode(), (content or b"").decode()
        except UnicodeDecodeError as error:
            return Refusal("not_utf8", f"{error.reason} at byte {error.start} of a turn")
        turns.append({"role": _ROLES.get(name, name), "content": text})
    return turns or Refusal("empty", "the example has no turns")


def _alpaca_rows(columns: dict[str, pa.Array]) -> Iterator[list[Turn] | Refusal]:
    rows = zip(*(_as_bytes(column) for column in columns.values()), strict=True)
    for row in rows:
        try:
            fields = {name: (value or b"").decode() for name, value in zip(columns, row, strict=True)}
        except UnicodeDecodeError as error:
            yield Refusal("not_utf8", f"{error.reason} at byte {error.start} of a field")
            continue
        asked = _ALPACA_JOIN.join(text for text in (fields["instruction"], fields.get("input", "")) if text)
        yield [{"role": "user", "content": asked}, {"role": "assistant", "content": fields["output"]}]


def _is_text(kind: pa.DataType) -> bool:
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    tests = (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view)
    return any(test(kind) for test in tests)


def _step_type(kind: pa.DataType, step: str | int, spec: str, where: str) -> pa.DataType:
    if isinstance(step, int):
        if not (pa.types.is_list(kind) or pa.types.is_large_list(kind)):
            raise InputError(
                f"{where}: [{step}] in {spec} is applied to {kind}, not a list: correct text_column"
            )
        return kind.value_type
    if not pa.types.is_struct(kind) or kind.get_field_index(step) < 0:
        raise InputError(f"{where}: {kind} has no field {step!r} for {spec}: correct text_column")
    return kind.field(step).type


def _element(values: pa.Array, index: int) -> pa.Array:
    """Element ``index`` of each list; null where the list is null or too short."""
    lengths = pc.fill_null(pc.list_value_length(values), 0).to_numpy(zero_copy_only=False)
    positions: list[int | None] = []
    start = 0
    for length in lengths.tolist():
        positions.append(start + index if index < length else None)
        start += length
    return pc.list_flatten(values).take(pa.array(positions, pa.int64()))


def _as_bytes(values: Any) -> list[bytes | None]:
    """Column of text as bytes, without decoding."""
    if pa.types.is_null(values.type):
        return [None] * len(values)
    if pa.types.is_dictionary(values.type):
        values = values.dictionary_decode()
    result: list[bytes | None] = values.cast(pa.large_binary()).to_pylist()
    return result
