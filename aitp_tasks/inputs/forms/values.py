"""The values of a row: as JSON gives them, or the same from Arrow with texts as bytes.

What cannot be used leaves the middle of a row by an exception, which says what becomes of the row.
"""

import json
import math
from collections.abc import Sequence
from typing import Any

from aitp_tasks.inputs.examples import Rejection
from aitp_tasks.inputs.readable import is_blank
from aitp_tasks.inputs.rows import Refusal, surrogate

#: Names of JSON's types in messages.
_KINDS: dict[type, str] = {
    dict: "an object",
    list: "a list",
    float: "a number",
    int: "a number",
    bool: "a boolean",
    str: "a text",
    bytes: "a text",
}
_BOOLEANS = {"true": True, "1": True, "false": False, "0": False}
_NAMES_SHOWN = 12
_NAME_CHARACTERS = 40
_MOST_DIGITS = 400
#: What goes through such values later, in this process or a trainer's, does so by calls within calls.
_MOST_LEVELS = 100
#: Whole numbers that the JSON reader of datasets takes.
_WHOLE = range(-(2**63), 2**64)


class RefusedError(Exception):
    """The row is damaged, or no example; never leaves ``forms``."""

    def __init__(self, error_class: str, message: str) -> None:
        super().__init__(message)
        self.outcome = Refusal(error_class, printable(message))


class RejectedError(Exception):
    """The row is sound, and no example; never leaves ``forms``."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.outcome = Rejection(reason, printable(message))


def printable(name: str) -> str:
    """A name or message that can be stored, whatever keys a row has."""
    return name.encode(errors="replace").decode()


def holds(value: Any) -> bool:
    """Whether there is anything: no null, no blank text, no empty list or object."""
    if isinstance(value, bytes):
        value = value.decode(errors="replace")
    if isinstance(value, str):
        return not blank(value)
    return value is not None and value != [] and value != {}


def holds_file(value: Any) -> bool:
    """Whether there is a file or what tells of one: not false, 0, or lists and objects of nothing.

    These may be written as JSON in a text.
    """
    if isinstance(value, bytes | str):
        try:
            value = json.loads(value, parse_int=whole)
        except (ValueError, RecursionError):
            return holds(value)
    # No calls within calls: the value may be as deep as JSON is read.
    left = [value]
    while left:
        item = left.pop()
        if isinstance(item, list | dict):
            left += item.values() if isinstance(item, dict) else item
        elif isinstance(item, bytes | str):
            if holds(item):
                return True
        # NaN is how tables write that there is none.
        elif item and item == item:
            return True
    return False


def boolean(value: Any) -> bool | None:
    """A boolean, which may be written as 0 or 1, or as a text; None where the value is none."""
    if isinstance(value, bytes | str):
        written = value.decode(errors="replace") if isinstance(value, bytes) else value
        return _BOOLEANS.get(written.strip().lower())
    return bool(value) if isinstance(value, bool | int | float) and value in (0, 1) else None


def blank(text: str) -> bool:
    """Whether nothing of a text can be seen: white space, and characters without a width."""
    return is_blank(text)


def text(value: Any, name: str) -> str:
    """A value that has to be a text."""
    if value is None:
        raise RefusedError("null", f"{name} is null or missing")
    try:
        if isinstance(value, bytes):
            return value.decode()
        if isinstance(value, str):
            value.encode()
            return value
    except UnicodeDecodeError as error:
        raise RefusedError("not_utf8", f"{error.reason} at byte {error.start} of {name}") from None
    except UnicodeEncodeError as error:
        raise RefusedError("not_utf8", f"{surrogate(error)} at character {error.start} of {name}") from None
    raise RefusedError("not_text", f"{name} is {kind(value)}, not text")


def plain(value: Any, name: str, levels: int = _MOST_LEVELS) -> Any:
    """A value of any structure, as JSON and its readers can hold it, of so many levels at most."""
    if not levels:
        raise RefusedError("not_json", f"{name} is nested too deeply")
    if isinstance(value, bytes | str):
        return text(value, name)
    if isinstance(value, list):
        return [plain(item, name, levels - 1) for item in value]
    if isinstance(value, dict):
        return {text(key, name): plain(item, name, levels - 1) for key, item in value.items()}
    if isinstance(value, float) and not math.isfinite(value):
        raise RefusedError(
            "not_json", f"{name} holds {json.dumps(value)}, which JSON has not: write it as text"
        )
    if isinstance(value, int) and value not in _WHOLE:
        digits = str(value)
        shown = digits if len(digits) <= _NAME_CHARACTERS else f"{digits[:_NAME_CHARACTERS]}…"
        raise RefusedError(
            "not_json", f"{name} holds {shown}, which readers of JSON do not take: write it as text"
        )
    if value is None or isinstance(value, bool | int | float):
        return value
    raise RefusedError("not_text", f"{name} holds a value of type {type(value).__name__}: write it as text")


def parsed(value: Any, name: str) -> Any:
    """A list or an object, which may be written as JSON in a text."""
    if not isinstance(value, bytes | str):
        return value
    written = text(value, name)
    try:
        return json.loads(written, parse_int=whole)
    except json.JSONDecodeError as error:
        raise RefusedError(
            "not_json", f"{name} is a text that is no JSON ({error.msg} at character {error.pos})"
        ) from None
    except RecursionError:
        raise RefusedError("not_json", f"{name} is nested too deeply") from None


def held(value: Any, name: str) -> Any:
    """The same, or an empty list where nothing is in it, which programs write as texts too: ``null``."""
    found = parsed(value, name) if holds(value) else None
    return found if holds(found) else []


def whole(digits: str) -> int | float:
    """A number of JSON without a point; as a float where it has very many digits."""
    return int(digits) if len(digits) <= _MOST_DIGITS else float(digits)


def kind(value: Any) -> str:
    """What a value is, for messages."""
    return "null" if value is None else _KINDS.get(type(value), f"a value of type {type(value).__name__}")


def listed(names: Sequence[str]) -> str:
    """Names of keys or columns, for messages."""
    shown = ", ".join(name[:_NAME_CHARACTERS] for name in names[:_NAMES_SHOWN])
    return shown + (", …" if len(names) > _NAMES_SHOWN else "")
