r"""What of a response is its text proper, once and with JSON's own delimiters; and the JSON in it.

``{&quot;answer&quot;: ...}``, ``{\"answer\": ...}`` and ``｛"answer"：...｝`` become JSON's
before anything is read. A text that also has plain delimiters stays as it is.
"""

import html
import json
import re
from typing import Any

from aitp_tasks.generation.responses import escapes
from aitp_tasks.generation.responses.keys import Keys
from aitp_tasks.generation.responses.values import Members, Repairs

#: A string; one that does not end takes the rest of the text, so that it is looked at once only.
_LITERAL = re.compile(r'"([^"\\]*+(?:\\.[^"\\]*+)*+)("?)', re.DOTALL)
_ENTITY = re.compile(r"[{\[,]\s*+&(?:quot|#0*+34|#x0*+22);", re.IGNORECASE)
_ESCAPED = re.compile(r'\{\s*+\\++"')
_PLAIN_QUOTE = re.compile(r'(?<!\\)"')
_WIDE = re.compile(r"[｛｝［］]")
_WIDE_OPENING = re.compile(r"｛(?=\s*+[\"'“])|(?<=[:：])(\s*+)［(?=\s*+[\"'“])")
_WIDE_CLOSING = re.compile(r"(?<=[\"'”\d\w])\s*+[］｝][］｝\s]*+(?=\}|\Z|```|\s*+[,，]\s*+[\"'“])")
_NARROW = str.maketrans("｛｝［］", "{}[]")


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


def plain(text: str, repairs: Repairs) -> str:
    """The text with JSON's own delimiters."""
    if '"' not in text and "＂" in text:
        repairs["smart quotes"] = None
        text = text.replace("＂", '"')
    if '"' not in text and _ENTITY.search(text):
        repairs["html entities"] = None
        text = html.unescape(text)
    if '\\"' in text:
        text = _unescaped(text, repairs)
    return _narrow(text, repairs) if _WIDE.search(text) else text


def _unescaped(text: str, repairs: Repairs) -> str:
    match = _ESCAPED.search(text)
    start, end = match.start() if match else 0, text.rfind("}") + 1
    if match is None or _PLAIN_QUOTE.search(text, start, end):
        return text
    try:
        inner = json.loads(f'"{text[start:end]}"', strict=False)
    except ValueError:
        return text
    repairs["encoded twice"] = None
    quoted = text[:start].endswith('"') and text.startswith('"', end)
    return f"{text[: start - quoted]}{inner}{text[end + quoted :]}"


def _narrow(text: str, repairs: Repairs) -> str:
    """Full-width brackets as ASCII's, if all of them are delimiters."""
    narrow = text
    for pattern in (_WIDE_OPENING, _WIDE_CLOSING):
        narrow = pattern.sub(lambda match: match[0].translate(_NARROW), narrow)
    if _WIDE.search(narrow):
        return text
    repairs["punctuation"] = None
    return narrow


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
