"""From members as they were written to an object that the schema accepts."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from jsonschema import Draft202012Validator

from aitp_tasks.responses.errors import UnreadableError, excerpt
from aitp_tasks.responses.keys import Keys

#: Names of repairs, in the order in which they were made.
Repairs = dict[str, None]

BOOLEANS = {"yes": True, "true": True, "no": False, "false": False}
SURROGATE = re.compile(r"[\ud800-\udfff]")
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f]")
_WHOLE_NUMBER = re.compile(
    r"\s*+(-?(?:0|[1-9]\d{0,30}+))(?:\.0{1,30}+)?+\s*+(?:/\s*+(\d{1,30}+)\s*+)?+", re.ASCII
)


@dataclass(frozen=True)
class Response:
    """What a response says.

    Attributes:
        value: an object of the schema.
        repairs: what had to be done; empty where it was JSON of the schema as it came.
    """

    value: dict[str, Any]
    repairs: tuple[str, ...]


def to_response(
    members: Sequence[tuple[str, Any]], keys: Keys, repairs: Repairs, repeatable: bool = False
) -> Response:
    """Members as an object of the schema.

    Args:
        members: keys and values; a key may come twice with one value.
        keys: those of the schema.
        repairs: made by now.
        repeatable: whether a key that comes twice is no repair.

    Raises:
        UnreadableError: they are none.
    """
    repairs = dict(repairs)
    value: dict[str, Any] = {}
    for written, item in members:
        name = keys.name(written) or written
        if name != written:
            repairs["key"] = None
        if name in value and not repeatable:
            repairs["repeated key"] = None
        item = _coerced(item, keys, name, repairs)
        if value.setdefault(name, item) != item:
            raise UnreadableError(f"{name[:40]} is given twice, with different values")
    _check(value, keys)
    return Response(value, tuple(repairs))


def whole_number(text: str, keys: Keys, name: str) -> int | None:
    """``8``, ``8.0``, or ``8/10`` where the maximum of the property is 10."""
    match = _WHOLE_NUMBER.fullmatch(text)
    if match is None or (match[2] and int(match[2]) != keys.properties[name].get("maximum")):
        return None
    return int(match[1])


def _coerced(item: Any, keys: Keys, name: str, repairs: Repairs) -> Any:
    """A number or a boolean that was written as text; ``8.0`` is JSON Schema's integer 8."""
    kinds = keys.kinds.get(name, set())
    if isinstance(item, float) and "integer" in kinds and item.is_integer():
        return int(item)
    if not isinstance(item, str) or "string" in kinds:
        return item
    if "integer" in kinds and (whole := whole_number(item, keys, name)) is not None:
        repairs["number"] = None
        return whole
    if "boolean" in kinds and item.strip().casefold() in BOOLEANS:
        repairs["boolean"] = None
        return BOOLEANS[item.strip().casefold()]
    return item


def _check(value: dict[str, Any], keys: Keys) -> None:
    error = next(Draft202012Validator(keys.schema).iter_errors(value), None)
    if error is not None:
        where = error.json_path.removeprefix("$").removeprefix(".")[:40] or "the object"
        raise UnreadableError(
            f"{where} breaks the schema's {error.validator}: {excerpt(str(error.instance))}"
        )
    for text in _texts(value):
        if SURROGATE.search(text):
            raise UnreadableError("the response has a lone surrogate")
        if control := _CONTROL.search(text):
            raise UnreadableError(f"the response has the control character U+{ord(control[0]):04X}")


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _texts(item)
