"""What a row gives that gives no text, and which columns may hold texts."""

import unicodedata
from dataclasses import dataclass

import pyarrow as pa

from aitp_tasks.errors import InputError
from aitp_tasks.inputs.readable import is_blank


@dataclass(frozen=True)
class Refusal:
    """Why a row is quarantined."""

    error_class: str
    message: str


def checked(text: str) -> str | Refusal:
    """The text, unless nothing of it can be read."""
    if is_blank(text):
        return Refusal("empty", f"{len(text)} characters, all white space or without width")
    if all(is_blank(character) or unicodedata.category(character) == "Cc" for character in text):
        return Refusal("control_characters", f"{len(text)} characters, none printable")
    return text


def surrogate(error: UnicodeEncodeError) -> str:
    """What cannot be encoded: what JSON's escapes can write, or what stands for a byte that was not UTF-8."""
    code = ord(error.object[error.start])
    # The surrogates that stand for bytes can be escapes, too.
    return (
        f"byte 0x{code - 0xDC00:02x}, which is not UTF-8," if 0xDC80 <= code <= 0xDCFF else "lone surrogate"
    )


def require_one(schema: pa.Schema, column: str, where: str) -> None:
    """Make sure that a column's name is there once.

    Raises:
        InputError: there are several; names ``where``.
    """
    if schema.get_field_index(column) < 0:
        raise InputError(f"{where} has several columns {column!r}: rename all but one")


def may_be_text(kind: pa.DataType) -> bool:
    """Whether a column of this type holds texts, or nothing but nulls."""
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    tests = (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view, pa.types.is_null)
    return any(test(kind) for test in tests)
