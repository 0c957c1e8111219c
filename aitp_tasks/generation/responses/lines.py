"""Responses without JSON: marks on lines or in tags, and questions in a list.

A line starts with its key: ``Quality: 8``, ``- **Quality:** 8/10 – clear``; tags are
each once and closed: ``<quality>8</quality>``. Of a list only lines that end with a
question mark are items; one with a label of its own (``Factual: ...``), or in
quotation marks that may be inner ones, is not clear: then there is no list.
"""

import re
from functools import lru_cache
from itertools import pairwise
from typing import Any

from aitp_tasks.generation.responses import remarks
from aitp_tasks.generation.responses.errors import UnreadableError
from aitp_tasks.generation.responses.keys import Keys
from aitp_tasks.generation.responses.values import Members, Repairs, Response, said, to_response

_ROW = re.compile(r"^[ \t]*+\|(.{1,200})\|[ \t]*+$", re.MULTILINE)
_DIGITS = re.compile(r"[\d.]++")
#: Whether they stand for themselves or for other signs is not clear.
_ENTITY = re.compile(r"&(?:lt|gt|amp|quot|apos|#\w++);|<!\[CDATA\[")

_LABEL = "(?:Q|Question|Frage|Pregunta|Domanda|Pergunta|Vraag|Вопрос|问题|質問)"
_NUMBER = r"\d{1,2}|[一二三四五六七八九十]"
_ITEM = re.compile(
    rf"(?:\*\*)?+(?:[-*•·–+](?=[\s\"“])|[(（]?(?P<number>{_NUMBER})[.):、．）]"
    rf"|{_LABEL}[ .]?#?(?P<label>{_NUMBER})\s*+[.):：]|Q(?=:)"
    rf"|第(?P<ordinal>{_NUMBER})个?[问問][题題][:：])"
    r"[*:]{0,3}+\s*+(?P<text>\S.*+)",
    re.IGNORECASE,
)
_NUMERALS = [*"一二三四五六七八九十"]
_HEADING = re.compile(r"#.*+|.{0,200}[:：]\*{0,2}|\*\*[^*]{1,60}\*\*|```\w*+|---")
#: Question marks.
ASKS = ("?", "？", "؟")
#: An item that may not be a question alone.
_UNCLEAR = re.compile(r"[(\[{<]|[^\W\d_][\w-]*+(?: [\w-]++){0,2}[:：]\s|.*(?:\*\*|__)", re.DOTALL)


def read(text: str, keys: Keys, repairs: Repairs) -> Response | None:
    """The response that says all on lines, in a text that is no attempt at an object; None without any.

    Raises:
        UnreadableError: lines are missing, contradict one another, or have no clear value.
    """
    if "{" not in text and (members := _row(text, keys) or _marks(text, keys)):
        return to_response(members, keys, repairs | {"lines": None})
    questions = _items(text) if keys.only_list and not keys.any_object.search(text) else []
    if not questions or keys.only_list is None:
        return None
    return to_response([(keys.only_list, questions)], keys, repairs | {"list without JSON": None})


def _marks(text: str, keys: Keys) -> list[tuple[str, Any]]:
    """The members that each have their number, or yes or no, on a line."""
    found = values(text, keys)
    if unclear := next((name for name, given in found.items() if None in given), None):
        raise UnreadableError(f"the line of {unclear} has no clear value")
    *_, last = [0, *(match.end() for match in _line(keys.spellings).finditer(text))]
    if found and remarks.takes_back(text[last:].partition("\n")[2]):
        raise UnreadableError("the text behind the lines takes them back")
    return [(name, value) for name, given in found.items() for value in dict.fromkeys(given)]


def _row(text: str, keys: Keys) -> list[tuple[str, Any]]:
    """The members in a table of one row; empty without one, or where it is not all that is said."""
    rows = list(_ROW.finditer(text))
    cells = [[cell.strip(" *`") for cell in row[1].split("|")] for row in rows]
    if len(cells) != 3 or any(cell.strip("-:") for cell in cells[1]) or len(cells[0]) != len(cells[2]):
        return []
    heading = text[: rows[0].start()].strip()
    if (heading and not heading.endswith((":", "："))) or not remarks.are_courtesies(text[rows[2].end() :]):
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


def tagged(text: str, keys: Keys) -> tuple[int, int, Members] | None:
    """Where they start and end, and the members; None if the tags do not pair, or text is between them."""
    # Of a list in tags, those of its items; those around them say nothing more.
    of_items = f"<{keys.singular}>" in text.casefold()
    names = rf"{keys.singular}|(?!{keys.only_list}>)(?:{keys.spellings})" if of_items else keys.spellings
    pairs = list(_pair(names).finditer(text))
    whole = [pair for pair in pairs if pair["value"] is not None and not _ENTITY.search(pair["value"])]
    between = "".join(text[one.end() : two.start()] for one, two in pairwise(pairs))
    if not pairs or len(whole) < len(pairs) or re.sub(rf"</?{keys.only_list}>", "", between).strip():
        return None
    return pairs[0].start(), pairs[-1].end(), Members((pair["name"], pair["value"].strip()) for pair in pairs)


@lru_cache(maxsize=16)
def _pair(names: str) -> re.Pattern[str]:
    """A tag up to the next one, with its value if that one closes it."""
    tag = rf"</?+(?:{names})>"
    return re.compile(rf"<(?P<name>{names})>(?P<value>(?:(?!{tag}).)*+)</(?P=name)>|{tag}", re.I | re.S)


def _items(text: str) -> list[str]:
    """The questions of a list, numbered, with bullets or labels; empty where there is none, or no clear one.

    Nothing but a heading may stand before them, and a courtesy behind them.
    """
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    found = [_ITEM.fullmatch(line) for line in lines]
    places = [place for place, match in enumerate(found) if match]
    if not places or not _stand_alone(lines, places):
        return []
    numbers = [
        _number(match["number"] or match["label"] or match["ordinal"] or "") for match in found if match
    ]
    if any(numbers) and numbers != list(range(1, len(numbers) + 1)):
        return []
    questions = [_question(match["text"]) for match in found if match]
    return [question for question in questions if question] if all(questions) else []


def _number(written: str) -> int:
    return _NUMERALS.index(written) + 1 if written in _NUMERALS else int(written or 0)


def _stand_alone(lines: list[str], places: list[int]) -> bool:
    before, behind = lines[: places[0]], lines[places[-1] + 1 :]
    return (
        places[-1] - places[0] + 1 == len(places)
        and len(before) + len(behind) <= 4
        and all(_HEADING.fullmatch(line) and not remarks.is_provisional(line) for line in before)
        and remarks.are_courtesies("\n".join(behind))
    )


def _question(text: str) -> str | None:
    text = text.strip("*_ \t,")
    quotes = [sign for sign in text if sign in '"“”„']
    if text[:1] == text[-1:] == "'" or (len(quotes) == 2 and text[0] in quotes and text[-1] in quotes):
        text = text[1:-1].strip()
    if text.startswith("'") or len(quotes) % 2:
        return None
    return text if text.endswith(ASKS) and not _UNCLEAR.match(text) else None
