"""What of a response is its text proper, without repetition; and the JSON in it."""

import json
import re
from typing import Any

from aitp_tasks.generation.responses import escapes
from aitp_tasks.generation.responses.keys import Keys
from aitp_tasks.generation.responses.values import Members, Repairs

#: A string; one that does not end takes the rest of the text, so that it is looked at once only.
_LITERAL = re.compile(r'"([^"\\]*+(?:\\.[^"\\]*+)*+)("?)', re.DOTALL)


def once(text: str, keys: Keys, repairs: Repairs) -> str:
    """The text up to the second one of objects that repeat to the end, the last of which may be cut."""
    first = keys.any_object.search(text)
    start = first.start() if first else 0
    unit = text[start : text.find("}", start) + 1]
    again = text.find(unit, start + len(unit)) if unit else -1
    period, body = again - start, text[start:]
    if again < 0 or len(body) < 2 * period or body[period:] != body[:-period]:
        return text
    repairs["several objects"] = None
    return text[:again]


def json_within(text: str, repairs: Repairs) -> tuple[int, int, Any] | None:
    """Where JSON starts and ends, and its value, if nothing outside of it could belong to it."""
    starts = {text.find("{"), text.find("[")} - {-1}
    for start in sorted(starts):
        end = max(text.rfind(sign) for sign in ("}]" if text.startswith("[", start) else "}")) + 1
        if '"' not in text[:start] and '"' not in text[end:] and end > start:
            value = loaded(text[start:end], repairs)
            if value is not None:
                return start, end, value
    return None


def loaded(text: str, repairs: Repairs) -> Any:
    """The value of JSON in which nothing but escapes may be wrong, objects as members; None if it is none.

    Raises:
        UnreadableError: an escape has two readings.
    """
    if not text.lstrip().startswith(("{", "[", '"')) or _parsed(_LITERAL.sub('""', text)) is None:
        return None
    made: Repairs = {}
    doubled = escapes.doubles(text)

    def replace(match: re.Match[str]) -> str:
        fixed, names = escapes.repair(match[1], doubled)
        made.update(dict.fromkeys(names))
        return f'"{fixed}{match[2]}'

    value = _parsed(_LITERAL.sub(replace, text))
    repairs.update(made if value is not None else {})
    return value


def _parsed(text: str) -> Any:
    try:
        return json.loads(text, object_pairs_hook=Members, parse_constant=_refuse)
    except (ValueError, RecursionError):
        return None


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no JSON")
