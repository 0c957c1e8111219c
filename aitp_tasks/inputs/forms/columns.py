"""Columns of Parquet as rows: what JSON would have given, with texts as bytes.

Nothing has checked the texts of a Parquet file; as bytes, one that is not UTF-8
costs its own row only. A field of a struct that is null is one that the row does
not have.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa

from aitp_tasks.config import Examples
from aitp_tasks.errors import InputError
from aitp_tasks.inputs.forms import table
from aitp_tasks.inputs.forms.table import Mapped
from aitp_tasks.inputs.forms.values import listed


def wanted(schema: pa.Schema, where: str, settings: Examples) -> list[str]:
    """The columns that are read of a set with this schema.

    Raises:
        InputError: no form has them, or one is there twice; names ``where``.
    """
    names = schema.names
    if settings.mapping is not None:
        mapped = Mapped(settings.mapping)
        _require(names, list(mapped.needs), where)
        known: Sequence[str] = list(mapped.columns.values())
    else:
        known = table.KNOWN
        if not table.may_hold(names):
            raise InputError(f"{where} is no SFT set: {_needed(names)} (it has {listed(names)})")
    found = [name for name in dict.fromkeys(known) if name in names]
    for name in found:
        if schema.get_field_index(name) < 0:
            raise InputError(f"{where} has several columns {name!r}: rename all but one")
    return found


def _require(names: Sequence[str], needed: Sequence[str], where: str) -> None:
    for name in needed:
        if name not in names:
            raise InputError(
                f"{where} has no column {name!r} (it has {listed(names)}): correct examples.mapping"
            )


def _needed(names: Sequence[str]) -> str:
    if table.TEXT in names:
        return (
            f"in a column {table.TEXT} turns can only be guessed; give a list of turns as messages, or name "
            "its columns in examples.mapping"
        )
    return f"it needs one of {table.described()}; rename its columns, or name them in examples.mapping"


def rows(batch: pa.RecordBatch) -> Iterator[dict[str, Any]]:
    """The rows of a batch."""
    names = batch.schema.names
    columns = [_values(column) for column in batch.columns]
    for values in zip(*columns, strict=True):
        yield dict(zip(names, values, strict=True))


def _values(column: Any) -> list[Any]:
    if isinstance(column, pa.ExtensionArray):
        column = column.storage
    values = column.cast(_unchecked(column.type)).to_pylist(maps_as_pydicts="lossy")
    return values if not pa.types.is_nested(column.type) else [_present(value) for value in values]


def _present(value: Any) -> Any:
    if isinstance(value, dict):
        return {_name(name): _present(item) for name, item in value.items() if item is not None}
    return [_present(item) for item in value] if isinstance(value, list) else value


def _name(key: Any) -> str:
    """A field's name; the key of a map is a value."""
    return key.decode(errors="replace") if isinstance(key, bytes) else str(key)


def _unchecked(kind: pa.DataType) -> pa.DataType:
    """A type with bytes in the place of texts."""
    types = pa.types
    if isinstance(kind, pa.ExtensionType | pa.BaseExtensionType):
        return _unchecked(kind.storage_type)
    if types.is_dictionary(kind):
        return _unchecked(kind.value_type)
    if types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind):
        return pa.large_binary()
    if types.is_struct(kind):
        return pa.struct([pa.field(field.name, _unchecked(field.type)) for field in kind])
    if types.is_fixed_size_list(kind):
        return pa.list_(_unchecked(kind.value_type), kind.list_size)
    if any(
        test(kind)
        for test in (types.is_list, types.is_large_list, types.is_list_view, types.is_large_list_view)
    ):
        return pa.large_list(_unchecked(kind.value_type))
    if types.is_map(kind):
        return pa.map_(_unchecked(kind.key_type), _unchecked(kind.item_type))
    return kind
