"""From members as they were written to an object that the schema accepts."""

import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from jsonschema import Draft202012Validator

from aitp_tasks.generation.responses import remarks
from aitp_tasks.generation.responses.errors import UnreadableError, excerpt
from aitp_tasks.generation.responses.keys import Keys, squash

#: Names of repairs, in the order in which they were made.
Repairs = dict[str, None]

#: In the languages of the gates.
_YES = "yes|true|ja|wahr|sí|si|oui|vrai|sì|vero|sim|verdadeiro|verdadero|waar|да|истина|はい|是|真"
_NO = "no|false|nein|falsch|non|faux|falso|não|nao|nee|onwaar|нет|ложь|いいえ|否|假|偽"
BOOLEANS = dict.fromkeys(_YES.split("|"), True) | dict.fromkeys(_NO.split("|"), False)
_WORDS = ("nought", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
#: Objects and lists in one another; more would overrun the stack.
_MOST_LAYERS = 50
SURROGATE = re.compile(r"[\ud800-\udfff]")
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f]")
_NUMBER = re.compile(
    r"(\d{1,30}+)(?:\.0{1,30}+)?+(?:\s*+(?:/|out of)\s*+(\d{1,30}+))?+(?![\w.,]*+\d)", re.ASCII
)
_BOOLEAN = re.compile(rf"({_YES}|{_NO})\b", re.IGNORECASE)
#: Behind a value that was said: nothing, or what explains it.
_REST = re.compile(r"[\"'*_`”]{0,4}+\s*+(?:\Z|[,;.|}\]]\s*+\Z|[(\-–—:,;.#/|](?P<explanation>.*+))", re.DOTALL)
_ANOTHER_VALUE = re.compile(
    r"\d|\b(?:yes|no|true|false|or|but|maybe|perhaps|except|unless|although|though|however)\b",
    re.IGNORECASE,
)


class Members(list[tuple[str, Any]]):
    """An object's members in their order; a key may come twice."""


@dataclass(frozen=True)
class Response:
    """What a response says.

    Attributes:
        value: an object of the schema.
        repairs: what had to be done; empty where it was JSON of the schema as it came.
    """

    value: dict[str, Any]
    repairs: tuple[str, ...]


def to_response(members: Sequence[tuple[str, Any]], keys: Keys, repairs: Repairs) -> Response:
    """Members as an object of the schema.

    Args:
        members: keys and values; a key may come twice with one value.
        keys: those of the schema.
        repairs: made by now.

    Raises:
        UnreadableError: they are none.
    """
    repairs = dict(repairs)
    value: dict[str, Any] = {}
    for written, item in members:
        name = keys.name(written) or written
        if name != written:
            repairs["key"] = None
        if name in value:
            repairs["repeated key"] = None
        item = _coerced(_plain(item), keys, name, repairs)
        if value.setdefault(name, item) != item:
            raise UnreadableError(f"{name[:40]} is given twice, with different values")
    _check(value, keys)
    return Response(value, tuple(repairs))


def said(text: str, keys: Keys, name: str) -> Any:
    """The number or boolean with which a text starts, explained behind it; None where it is not clear.

    A number may have its scale behind it if that is the maximum of the property: ``8/10``.
    """
    is_number = "integer" in keys.kinds[name]
    match = (_NUMBER if is_number else _BOOLEAN).match(text)
    rest = match and _REST.match(text, match.end())
    if match is None or rest is None or _ANOTHER_VALUE.search(rest["explanation"] or ""):
        return None
    if not is_number:
        return BOOLEANS[match[1].casefold()]
    has_scale = match[2] is None or int(match[2]) == keys.properties[name].get("maximum")
    return int(match[1]) if has_scale else None


def _plain(item: Any, layer: int = 0) -> Any:
    """A member's value with the objects in it, if there are any, as dictionaries.

    Raises:
        UnreadableError: a key within it comes twice with different values, or it is too deep.
    """
    if layer > _MOST_LAYERS:
        raise UnreadableError(f"objects and lists in more than {_MOST_LAYERS} layers")
    if isinstance(item, Members):
        value: dict[str, Any] = {}
        for key, inner in item:
            inner = _plain(inner, layer + 1)
            if value.setdefault(key, inner) != inner:
                raise UnreadableError(f"{key[:40]} is given twice, with different values")
        return value
    return [_plain(inner, layer + 1) for inner in item] if isinstance(item, list) else item


def _coerced(item: Any, keys: Keys, name: str, repairs: Repairs) -> Any:
    """A number or a boolean that was written as text, or the reverse; ``8.0`` is JSON Schema's integer 8."""
    kinds = keys.kinds.get(name, set())
    if isinstance(item, float) and "integer" in kinds and item.is_integer():
        return int(item)
    if type(item) is int and kinds == {"string"}:
        repairs["number"] = None
        return str(item)
    if isinstance(item, str) and "string" in kinds:
        return _listed(item, keys, name, repairs)
    if not isinstance(item, str) or not kinds & {"integer", "boolean"}:
        return item
    text = unicodedata.normalize("NFKC", item).strip().casefold()
    is_word = "integer" in kinds and text in _WORDS
    value = _WORDS.index(text) if is_word else said(text, keys, name)
    if value is None:
        return item
    repairs["number" if "integer" in kinds else "boolean"] = None
    return value


def _listed(item: str, keys: Keys, name: str, repairs: Repairs) -> str:
    """One of the words that the schema lists, where it is written in another case or with other blanks."""
    listed = [word for word in keys.properties[name].get("enum", ()) if isinstance(word, str)]
    meant = [word for word in listed if squash(word) == squash(item)]
    if item in listed or len(meant) != 1:
        return item
    repairs["case"] = None
    return meant[0]


def _check(value: dict[str, Any], keys: Keys) -> None:
    error = next(Draft202012Validator(keys.schema).iter_errors(value), None)
    if error is not None:
        where = error.json_path.removeprefix("$").removeprefix(".")[:40] or "the object"
        raise UnreadableError(
            f"{where} breaks the schema's {error.validator}: {excerpt(str(error.instance))}"
        )
    for text in within(value):
        if not isinstance(text, str):
            continue
        if remarks.is_placeholder(text):
            raise UnreadableError(f"a placeholder: {excerpt(text)}")
        if SURROGATE.search(text):
            raise UnreadableError("the response has a lone surrogate")
        if control := _CONTROL.search(text):
            raise UnreadableError(f"the response has the control character U+{ord(control[0]):04X}")


def within(value: Any) -> Iterator[Any]:
    """A value, and all that is in it."""
    waiting = [value]
    while waiting:
        yield (item := waiting.pop())
        if isinstance(item, list | tuple | dict):
            waiting += item.values() if isinstance(item, dict) else item
