"""From rows to texts: nested column paths, and what is no text.

Texts are taken out of Arrow as bytes and decoded row by row, so that one row
that is not UTF-8 costs itself only. How rows of an SFT set are read: ``forms``.
"""

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from aitp_tasks.errors import InputError

_STEP = re.compile(r"\.?([^.\[\]]+)|\[(\d+)\]")
_NAMES_SHOWN = 20


@dataclass(frozen=True)
class Refusal:
    """Why a row is quarantined."""

    error_class: str
    message: str


@dataclass(frozen=True)
class TextPath:
    """A path to one text in a row, such as ``text`` or ``conversations[0].value``."""

    spec: str
    #: The setting that it was given by, for messages.
    setting: str = "text_columns"

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
                    f"{self.setting}: {self.spec!r} is not a column path such as conversations[0].value"
                )
            steps.append(match[1] if match[1] is not None else int(match[2]))
            position = match.end()
        if not steps or isinstance(steps[0], int):
            raise InputError(f"{self.setting}: {self.spec!r} does not start with a column name")
        return steps

    def check(self, schema: pa.Schema, where: str) -> None:
        """Make sure that the path leads to a text.

        Raises:
            InputError: a name is missing or a type does not fit; names ``where``.
        """
        if self.column not in schema.names:
            raise InputError(
                f"{where} has no column {self.column!r} (it has {_listed(schema.names)}): "
                f"correct {self.setting}"
            )
        _require_one(schema, self.column, where)
        kind = schema.field(self.column).type
        for step in self._steps()[1:]:
            kind = _step_type(kind, step, self.spec, where)
        if not _may_be_text(kind):
            raise InputError(f"{where}: {self.spec} is of type {kind}, not text: correct {self.setting}")

    def extract(self, batch: pa.RecordBatch) -> list[bytes | None]:
        """The path's value in each row, as bytes; None where it is null or absent."""
        values = batch.column(batch.schema.get_field_index(self.column))
        for step in self._steps()[1:]:
            if pa.types.is_null(values.type):
                break
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
    return _checked(text)


def join(values: Sequence[bytes | None]) -> str | Refusal:
    """A row's text from its text columns: those that are not blank, joined by a newline."""
    if len(values) == 1:
        return decode(values[0])
    present = [value for value in values if value is not None]
    filled = [value for value in present if value.decode(errors="replace").strip()]
    return decode(b"\n".join(filled or present) if present else None)


def _checked(text: str) -> str | Refusal:
    """The text, unless nothing of it can be read."""
    if not text.strip():
        return Refusal("empty", f"{len(text)} characters, all white space")
    if all(character.isspace() or unicodedata.category(character) == "Cc" for character in text):
        return Refusal("control_characters", f"{len(text)} characters, none printable")
    return text


def _require_one(schema: pa.Schema, column: str, where: str) -> None:
    if schema.get_field_index(column) < 0:
        raise InputError(f"{where} has several columns {column!r}: rename all but one")


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:_NAMES_SHOWN]) + (", …" if len(names) > _NAMES_SHOWN else "")


def _may_be_text(kind: pa.DataType | None) -> bool:
    """Whether a column of this type holds texts, or nothing but nulls."""
    return kind is not None and (_is_text(kind) or pa.types.is_null(kind))


def _is_text(kind: pa.DataType) -> bool:
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    tests = (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view)
    return any(test(kind) for test in tests)


def _step_type(kind: pa.DataType, step: str | int, spec: str, where: str) -> pa.DataType:
    if pa.types.is_null(kind):
        return kind
    if isinstance(step, int):
        if not (pa.types.is_list(kind) or pa.types.is_large_list(kind)):
            raise InputError(
                f"{where}: [{step}] in {spec} is applied to {kind}, not a list: correct text_columns"
            )
        return kind.value_type
    if not pa.types.is_struct(kind) or kind.get_field_index(step) < 0:
        raise InputError(f"{where}: {kind} has no field {step!r} for {spec}: correct text_columns")
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
