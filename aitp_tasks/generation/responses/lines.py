"""Marks on lines that start with their key: ``Quality: 8``, ``- **Quality:** 8/10 – clear``."""

import re
from functools import lru_cache
from typing import Any

from aitp_tasks.generation.responses import courtesies, remarks
from aitp_tasks.generation.responses.errors import UnreadableError
from aitp_tasks.generation.responses.keys import Keys
from aitp_tasks.generation.responses.values import Repairs, Response, said, to_response

_ROW = re.compile(r"^[ \t]*+\|(.{1,200})\|[ \t]*+$", re.MULTILINE)
_DIGITS = re.compile(r"[\d.]++")


def read(text: str, keys: Keys, repairs: Repairs) -> Response | None:
    """The response that has each key with its number, or yes or no, on a line; None without any.

    Raises:
        UnreadableError: lines are missing, contradict one another, or have no clear value.
    """
    members = _row(text, keys)
    if members:
        return to_response(members, keys, repairs | {"lines": None})
    found = values(text, keys)
    if not found:
        return None
    for name, given in found.items():
        if None in given:
            raise UnreadableError(f"the line of {name} has no clear value")
    *_, last = _line(keys.spellings).finditer(text)
    if remarks.takes_back(text[last.end() :].partition("\n")[2]):
        raise UnreadableError("the text behind the lines takes them back")
    members = [(name, value) for name, given in found.items() for value in given]
    return to_response(members, keys, repairs | {"lines": None}, repeatable=True)


def _row(text: str, keys: Keys) -> list[tuple[str, Any]]:
    """The members in a table of one row; empty without one, or where it is not all that is said."""
    rows = list(_ROW.finditer(text))
    cells = [[cell.strip(" *`") for cell in row[1].split("|")] for row in rows]
    if len(cells) != 3 or any(cell.strip("-:") for cell in cells[1]) or len(cells[0]) != len(cells[2]):
        return []
    heading = text[: rows[0].start()].strip()
    if (heading and not heading.endswith((":", "："))) or not courtesies.are_all(text[rows[2].end() :]):
        return []
    named = [(keys.name(head), cell) for head, cell in zip(cells[0], cells[2], strict=True)]
    return [(name, said(cell, keys, name)) for name, cell in named if name] if all(dict(named)) else []


def values(text: str, keys: Keys) -> dict[str, list[Any]]:
    """What the lines say of each property that is a number or a boolean; None where it is not clear."""
    found: dict[str, list[Any]] = {}
    matches = list(_line(keys.spellings).finditer(text))
    stops = [match.start() for match in matches[1:]] + [len(text)]
    for match, stop in zip(matches, stops, strict=False):
        name = keys.name(match[1])
        if name is not None and keys.kinds[name] & {"integer", "boolean"}:
            line = text[match.end() : stop].split("\n", 1)[0]
            at_end = match.end() + len(line) == len(text)
            found.setdefault(name, []).append(_value(line, keys, name, at_end))
    return found


@lru_cache(maxsize=16)
def _line(spellings: str) -> re.Pattern[str]:
    """A key at the start of a line, or behind another one's value, up to its value."""
    return re.compile(
        r"(?:^|[,;|])[ \t>*+\-•·–#|]*+(?:\d{1,2}[.)][ \t]*+)?+"
        rf"[\"'*_`“]{{0,4}}+({spellings})[\"'*_`”]{{0,4}}+"
        r"(?:[ \t]*+\([^()\n]{0,40}\))?+[\"'*_`”]{0,4}+[ \t]*+(?:[:：|]|=>?+)[ \t\"'*_`“]*+",
        re.IGNORECASE | re.MULTILINE,
    )


def _value(line: str, keys: Keys, name: str, at_end: bool) -> Any:
    value = said(line, keys, name)
    # Where the response ends, it may have been cut before another digit.
    cut = at_end and _DIGITS.fullmatch(line)
    return None if cut and value and value * 10 <= keys.properties[name].get("maximum", value * 10) else value
