"""The shape of some rows of JSON: which kinds of values lie where, as a schema says it of a table.

As bytes, equal shapes are equal, so that plan checks each once and keeps them
beside Arrow's schemas. Where rows have more different keys than a shape holds, it
says so, and nothing is known of the others.
"""

import json
from collections.abc import Iterable, Sequence
from typing import Any

from aitp_tasks.errors import InputError
from aitp_tasks.inputs.forms.values import kind as kind_of
from aitp_tasks.inputs.paths import TextPath

#: Keys of one object, and objects and lists within one another.
_MOST_KEYS = 200
_DEEPEST = 8
_TEXT, _NULL = "a text", "null"
#: A shape as JSON begins so, and an Arrow schema does not.
_BEGINNING = b"{"
#: What is at a place: kinds of values, what is in objects, what is in lists, and whether there is more.
_Place = dict[str, Any]


def of(rows: Iterable[Any]) -> bytes:
    """The shape of some rows."""
    place: _Place = {}
    for row in rows:
        _add(place, row, 0)
    return json.dumps(place, sort_keys=True).encode(errors="surrogatepass")


def is_shape(data: bytes) -> bool:
    """Whether these bytes are a shape, and no Arrow schema."""
    return data.startswith(_BEGINNING)


def is_empty(data: bytes) -> bool:
    """Whether these bytes are the shape of no rows."""
    return data == of([])


def has_text(shape: bytes, path: TextPath) -> bool:
    """Whether a row may have a text at a path."""
    kinds = _kinds_at(json.loads(shape), path)
    return kinds is None or _TEXT in kinds


def absent(shape: bytes, path: TextPath, where: str) -> InputError:
    """The error for rows of a shape that have no text at a path."""
    place = json.loads(shape)
    names = list(place.get("fields", {}))
    if not names:
        kinds = ", ".join(place.get("kinds", []))
        return InputError(f"{where}: its rows are {kinds}, without any keys: replace it, or take it away")
    if path.column not in names:
        return path.absent(names, where)
    kinds = ", ".join(_kinds_at(place, path) or ["nowhere"])
    return InputError(f"{where}: {path.spec} is {kinds}, not text: correct {path.setting}")


def _kinds_at(place: _Place, path: TextPath) -> Sequence[str] | None:
    """Kinds of what is at a path; None where that is not known."""
    for step in path.steps:
        found = place.get("fields", {}).get(step) if isinstance(step, str) else place.get("items")
        if found is None:
            return None if place.get("more") else []
        place = found
    return list(place.get("kinds", []))


def _add(place: _Place, value: Any, depth: int) -> None:
    kinds = place.setdefault("kinds", [])
    if (kind := kind_of(value)) not in kinds:
        kinds.append(kind)
        kinds.sort()
    if not isinstance(value, dict | list):
        return
    if depth == _DEEPEST:
        place["more"] = True
    elif isinstance(value, list):
        items = place.setdefault("items", {})
        for item in value[:_MOST_KEYS]:
            _add(items, item, depth + 1)
    else:
        fields = place.setdefault("fields", {})
        for name, item in value.items():
            if name not in fields and len(fields) == _MOST_KEYS:
                place["more"] = True
                return
            _add(fields.setdefault(name, {}), item, depth + 1)
