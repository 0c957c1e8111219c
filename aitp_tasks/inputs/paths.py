"""Column paths: the way to one text in a row, whether the row is Arrow's or JSON's.

Texts are taken out of Arrow as bytes and decoded row by row, so that one row
that is not UTF-8 costs itself only.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from aitp_tasks.errors import InputError
from aitp_tasks.inputs.forms.values import kind as kind_of
from aitp_tasks.inputs.forms.values import listed
from aitp_tasks.inputs.readable import is_blank
from aitp_tasks.inputs.rows import Refusal, checked, may_be_text, require_one, surrogate

_STEP = re.compile(r"\.?(?:`([^`]+)`|([^.\[\]`]+))|\[(\d+)\]")
#: The value at a path, as it lies in the row.
Value = str | bytes | None


@dataclass(frozen=True)
class TextPath:
    """A path to one text in a row, such as ``text``, ``conversations[0].value`` or ```a.b`.c``."""

    spec: str
    #: The setting that it was given by, for messages.
    setting: str = "text_columns"

    @property
    def column(self) -> str:
        """The top-level column that has to be read."""
        return str(self.steps[0])

    @cached_property
    def steps(self) -> list[str | int]:
        """Names of fields and numbers of items, in order.

        Raises:
            InputError: it is no path.
        """
        steps: list[str | int] = []
        position = 0
        while position < len(self.spec):
            match = _STEP.match(self.spec, position)
            if match is None:
                raise InputError(
                    f"{self.setting}: {self.spec!r} is not a column path such as conversations[0].value; "
                    "a name with dots or brackets is written in backquotes: `a.b`"
                )
            quoted, plain, index = match.groups()
            steps.append(int(index) if index is not None else quoted or plain)
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
            raise self.absent(schema.names, where)
        require_one(schema, self.column, where)
        kind = schema.field(self.column).type
        for step in self.steps[1:]:
            kind = self._step_type(kind, step, where)
        if may_be_text(kind):
            return
        raise InputError(
            f"{where}: {self.spec} is of type {kind}, not text: {_remedy(kind)}correct {self.setting}"
        )

    def absent(self, names: Sequence[str], where: str) -> InputError:
        """The error for rows that have these names only."""
        hint = f"write `{self.spec}` in backquotes, or " if self.spec in names else ""
        return InputError(
            f"{where} has no column {self.column!r} (it has {listed(names)}): {hint}correct {self.setting}"
        )

    def extract(self, batch: pa.RecordBatch) -> list[bytes | None]:
        """The path's value in each row, as bytes; None where it is null or absent."""
        values = batch.column(batch.schema.get_field_index(self.column))
        for step in self.steps[1:]:
            if pa.types.is_null(values.type):
                break
            values = _element(values, step) if isinstance(step, int) else pc.struct_field(values, step)
        return _as_bytes(values)

    def find(self, row: Mapping[str, Any]) -> str | Refusal | None:
        """The path's value in a row of JSON; None where it is null or absent."""
        value: Any = row
        for step in self.steps:
            if value is None:
                return None
            if isinstance(step, str) and isinstance(value, dict):
                value = value.get(step)
            elif isinstance(step, int) and isinstance(value, list):
                value = value[step] if step < len(value) else None
            else:
                return Refusal("not_text", f"{self.spec}: {kind_of(value)} has no {_named(step)}")
        if value is None or isinstance(value, str):
            return value
        return Refusal("not_text", f"{self.spec} is {kind_of(value)}, not text")

    def _step_type(self, kind: pa.DataType, step: str | int, where: str) -> pa.DataType:
        if pa.types.is_null(kind):
            return kind
        if isinstance(step, int):
            if not _is_list(kind):
                raise InputError(
                    f"{where}: [{step}] in {self.spec} is applied to {kind}, not a list: "
                    f"correct {self.setting}"
                )
            return kind.value_type
        if not pa.types.is_struct(kind) or kind.get_field_index(step) < 0:
            raise InputError(f"{where}: {kind} has no field {step!r} for {self.spec}: correct {self.setting}")
        return kind.field(step).type


def text_of(row: Any, paths: Sequence[TextPath]) -> str | Refusal:
    """The text of a row of JSON, or why it has none."""
    if not isinstance(row, dict):
        return Refusal("not_an_object", f"the row is {kind_of(row)}, not an object")
    found: list[Value] = []
    for path in paths:
        value = path.find(row)
        if isinstance(value, Refusal):
            return value
        found.append(value)
    if any(value is not None for value in found) or any(path.column in row for path in paths):
        return join(found)
    specs = " or ".join(path.spec for path in paths)
    return Refusal("null", f"there is no {specs}: the row has {listed(list(row)) or 'no keys'}")


def decode(value: Value) -> str | Refusal:
    """A row's text, or why it has none."""
    if value is None:
        return Refusal("null", "the text is null")
    try:
        text = value if isinstance(value, str) else value.decode("utf-8")
        if value is text:
            text.encode()
    except UnicodeDecodeError as error:
        return Refusal("not_utf8", f"{error.reason} at byte {error.start} of {len(value)}")
    except UnicodeEncodeError as error:
        return Refusal("not_utf8", f"{surrogate(error)} at character {error.start} of {len(value)}")
    return checked(text)


def join(values: Sequence[Value]) -> str | Refusal:
    """A row's text from its text columns: those that are not blank, joined by a newline."""
    if len(values) == 1:
        return decode(values[0])
    present = [_bytes(value) for value in values if value is not None]
    filled = [value for value in present if not is_blank(value.decode(errors="replace"))]
    return decode(b"\n".join(filled or present) if present else None)


def _bytes(value: str | bytes) -> bytes:
    # A lone surrogate becomes bytes that are not UTF-8, and is refused as such.
    return value if isinstance(value, bytes) else value.encode(errors="surrogatepass")


def _named(step: str | int) -> str:
    return f"field {step!r}" if isinstance(step, str) else f"item {step}"


def _remedy(kind: pa.DataType) -> str:
    binary = (pa.types.is_binary, pa.types.is_large_binary, pa.types.is_binary_view)
    if not any(test(kind) for test in binary):
        return ""
    return (
        "write the column as a string (in pyarrow column.cast('string'), in DuckDB decode(column), in Spark "
        "CAST(column AS STRING)), or "
    )


def _is_list(kind: pa.DataType) -> bool:
    types = pa.types
    tests = (types.is_list, types.is_large_list, types.is_fixed_size_list, types.is_list_view)
    return any(test(kind) for test in (*tests, types.is_large_list_view))


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
    """Column of text as bytes, without decoding; rows of a dictionary share what they have in common."""
    if pa.types.is_null(values.type):
        return [None] * len(values)
    if pa.types.is_dictionary(values.type):
        # A dictionary may hold far more than these rows use.
        used = values.indices.unique().drop_null()
        distinct = dict(zip(used.to_pylist(), _as_bytes(values.dictionary.take(used)), strict=True))
        return [distinct.get(number) for number in values.indices.to_pylist()]
    result: list[bytes | None] = values.cast(pa.large_binary()).to_pylist()
    return result
