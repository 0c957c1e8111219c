"""Reading a model's response as the JSON that its prompt asked for.

Engines that decode under a schema give JSON; others give it in fences, after
reasoning, with comments or single quotes, cut off, or as ``Quality: 8`` lines.
``read`` takes what can be meant in one way only and names each repair; the rest
it refuses. A wrong pair costs more than a missing one, so nothing is guessed: no
unknown member is dropped, no number rounded, no text without quotation marks
taken for an answer. LaTeX that lost its backslashes to JSON's escapes is restored
also where the response is JSON (``escapes``).

Control characters but tabs and line breaks, and lone surrogates, are no text: what
is left of them after the repairs is refused.
"""

import json
import re
from collections.abc import Callable, Mapping
from itertools import islice
from typing import Any

from aitp_tasks.responses import escapes, keys, lines, objects
from aitp_tasks.responses.errors import UnreadableError, excerpt
from aitp_tasks.responses.keys import Keys
from aitp_tasks.responses.objects import Found, PlaceholderError
from aitp_tasks.responses.values import SURROGATE, Repairs, Response, to_response

__all__ = ["Response", "UnreadableError", "read"]

#: A response with more objects answers no prompt.
_MOST_OBJECTS = 20
#: Characters before or behind an object that say what it is.
_LABEL = 300
_LITERAL = re.compile(r'"([^"\\]*+(?:\\.[^"\\]*+)*+)"', re.DOTALL)
_THOUGHT = "(?:think|thinking|thoughts?|reasoning|reflection)"
_REASONING_START = re.compile(rf"\s*+[<\[]{_THOUGHT}[>\]]", re.IGNORECASE)
_REASONING_END = re.compile(rf"[<\[]/{_THOUGHT}[>\]]", re.IGNORECASE)
_MARK_OR_REASONING_END = re.compile(rf"\\.|[\"{{}}]|{_REASONING_END.pattern}", re.IGNORECASE | re.DOTALL)
_FENCE = re.compile(r"```\w*+")
_LIST = re.compile(r"\[\s*+[\"'“„«‘]")
_PLACEHOLDER = re.compile(
    r"\s*+(?:\.{3,}+|…|[<\[](?:your|the)? ?(?:answer|question|string|text)\b[^<>\[\]]{0,40}+[>\]])\s*+",
    re.IGNORECASE,
)
_WRAPPER = re.compile(r"\{\s*+(?:[\"'“]?+[^\W\d][\w -]{0,40}[\"'”]?+\s*+[:：]\s*+\[?+\s*+)?+\Z")
_WRAPPER_END = re.compile(r"\s*+\]?+\s*+(?:\}|\Z)")
_PROVISIONAL = re.compile(
    r"\b(?:for example|for instance|e\.g\.|such as|example\s*+:?+\Z|preliminary"
    r"|example (?:of|for|format|output|response|json|answer)\b|draft|first (?:attempt|try|version)"
    r"|z\. ?B\.|Beispiel|Entwurf|exemple|brouillon|ejemplo|borrador|esempio|bozza|например|пример|черновик)"
    r"|例えば|例如|示例|草稿|下書き",
    re.IGNORECASE,
)
_FINAL = re.compile(
    r"\b(?:final(?:ly|e|es|er|en)?|revised|corrected|correction|let me (?:correct|revise|redo|fix)"
    r"|endgültig\w*|überarbeitet\w*|korrigiert\w*|Korrektur|définiti\w+|corrigée?s?|definitiv\w+|corregid\w+"
    r"|corrett\w+|окончательн\w+|исправленн\w+)\b|最终|最終|修正",
    re.IGNORECASE,
)
_NEGATION = re.compile(r"\b(?:not|no|isn't|never|before|nicht|kein\w*|pas|не)\b", re.IGNORECASE)
_RETRACTION = re.compile(
    r"\bwait\s*+(?:[,.!…—–-]|\Z)|\b(?:correction|scratch that|on second thoughts?|made a mistake|is a mistake"
    r"|should (?:have been|rather be|instead be|actually be)"
    r"|(?:score|mark|rating|value|quality|difficulty)\b[^.\n]{0,20}\bshould be"
    r"|(?:disregard|ignore) (?:the|that|this|my)|let me (?:correct|revise|redo|fix|reconsider|try again)"
    r"|Korrektur|corrección|correzione|исправление)\b|更正",
    re.IGNORECASE,
)


def read(text: str, schema: Mapping[str, Any]) -> Response:
    """Read a response as one object of a schema.

    Args:
        text: the whole response, reasoning included.
        schema: of a flat object, in JSON Schema 2020-12.

    Raises:
        UnreadableError: there is no such object, or more than one reading of it.
    """
    if SURROGATE.search(text):
        raise UnreadableError("the response has a lone surrogate")
    asked = keys.of(schema)
    repairs: Repairs = {}
    if text.startswith("\ufeff"):
        text, repairs = text.lstrip("\ufeff"), {"byte order mark": None}
    return _read_json(text, asked, repairs) or _read_loosely(text, asked, repairs)


def _read_json(text: str, asked: Keys, repairs: Repairs) -> Response | None:
    """The reading of a response that is JSON from end to end: the schema's object, or its only list."""
    repairs = dict(repairs)
    try:
        json.loads(text)
        text = _with_latex(text, repairs)
        value = json.loads(text, object_pairs_hook=_without_repetition, parse_constant=_refuse)
    except (ValueError, RecursionError):
        return None
    if isinstance(value, list) and asked.only_list and all(isinstance(item, str) for item in value):
        return to_response([(asked.only_list, value)], asked, repairs | {"bare list": None})
    if isinstance(value, dict) and any(asked.name(key) for key in value):
        return to_response(list(value.items()), asked, repairs)
    return None


def _with_latex(text: str, repairs: Repairs) -> str:
    def replace(match: re.Match[str]) -> str:
        fixed, made = escapes.repair(match[1])
        repairs.update(dict.fromkeys(made))
        return f'"{fixed}"'

    return _LITERAL.sub(replace, text) if "\\" in text else text


def _without_repetition(members: list[tuple[str, Any]]) -> dict[str, Any]:
    # Of a repeated key JSON takes the last value in silence; read loosely, they are compared.
    value = dict(members)
    if len(value) < len(members):
        raise ValueError("a key comes twice")
    return value


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no JSON")


def _read_loosely(text: str, asked: Keys, repairs: Repairs) -> Response:
    text = _without_reasoning(text, repairs)
    found = _find(text, asked.object, objects.read_object, asked)
    if not found and "{" not in text:
        found = _find_without_brace(text, asked)
    if found:
        return _choose(found, _gaps(text, found), asked, repairs)
    response = None if "{" in text else lines.read(text, asked, repairs)
    if response is None:
        raise UnreadableError(f"no object of the schema in {excerpt(text.strip())}")
    return response


def _without_reasoning(text: str, repairs: Repairs) -> str:
    """The text behind the reasoning, which a prompt may have opened already.

    Raises:
        UnreadableError: the reasoning does not end.
    """
    while start := _REASONING_START.match(text):
        end = _REASONING_END.search(text, start.end())
        if end is None:
            raise UnreadableError("the reasoning does not end")
        text = text[end.end() :]
        repairs["reasoning"] = None
    behind = _end_of_opened_reasoning(text)
    if behind:
        repairs["reasoning"] = None
    return text[behind:]


def _end_of_opened_reasoning(text: str) -> int:
    """Behind the last closing tag that stands in no string or object."""
    if not _REASONING_END.search(text):
        return 0
    behind = quotes = depth = 0
    for mark in _MARK_OR_REASONING_END.finditer(text):
        if mark[0] == '"':
            quotes += 1
        elif mark[0] in "{}":
            depth += 1 if mark[0] == "{" else -1
        elif mark[0][0] != "\\" and depth == 0 and quotes % 2 == 0:
            behind = mark.end()
    return behind


def _find(
    text: str, start: re.Pattern[str], read_one: Callable[[str, int, Keys], Found], asked: Keys
) -> list[Found]:
    """All objects, or bare lists, in their order."""
    if len(list(islice(start.finditer(text), _MOST_OBJECTS + 1))) > _MOST_OBJECTS:
        raise UnreadableError(f"more than {_MOST_OBJECTS} objects")
    found: list[Found] = []
    position = 0
    while match := start.search(text, position):
        try:
            found.append(read_one(text, match.start(), asked))
            position = found[-1].end
        except PlaceholderError as error:
            position = max(error.position, match.end())
    return found


def _find_without_brace(text: str, asked: Keys) -> list[Found]:
    """Members whose opening brace is missing, or bare lists."""
    key = rf"[\"“](?:{asked.spellings})[\"”]\s*+[:：]"
    match = re.search(rf"^[ \t]*+(?={key})", text, re.IGNORECASE | re.MULTILINE)
    if match is None:
        return _find(text, _LIST, objects.read_list, asked) if asked.only_list else []
    try:
        found = objects.read_object(text, match.end(), asked)
    except PlaceholderError:
        return []
    if "inner quotes" in found.repairs:
        raise UnreadableError(f"without a brace, the end is not clear: {excerpt(text, match.end())}")
    return [found]


def _choose(found: list[Found], gaps: list[str], asked: Keys, repairs: Repairs) -> Response:
    """The one object that is meant.

    Drafts, examples and placeholders before it do not count, nor do objects that
    the schema does not accept. Of several that differ it is the last one where the
    text says that this is the final one.
    """
    labels = [_label(gap) for gap in gaps[:-1]]
    *earlier, chosen = [_reading(item, label, asked) for item, label in zip(found, labels, strict=True)]
    if isinstance(chosen, UnreadableError):
        raise chosen
    differ = any(isinstance(other, Response) and other.value != chosen.value for other in earlier)
    if differ and not _says_final(labels[-1]):
        raise UnreadableError(f"{len(found)} objects that differ")
    _check_around(gaps, chosen, asked)
    repairs |= _around(gaps) | dict.fromkeys(chosen.repairs)
    if len(found) > 1:
        repairs["several objects"] = None
    return Response(chosen.value, tuple(repairs))


def _gaps(text: str, found: list[Found]) -> list[str]:
    """The text before each object, and behind the last one."""
    ends = [0, *(item.end for item in found)]
    starts = [*(item.start for item in found), len(text)]
    return [text[end:start] for end, start in zip(ends, starts, strict=True)]


def _reading(found: Found, label: str, asked: Keys) -> Response | UnreadableError:
    if _PROVISIONAL.search(label):
        return UnreadableError(f"an example or a draft: {excerpt(label)}")
    try:
        response = to_response(found.members, asked, found.repairs)
    except UnreadableError as error:
        return error
    for value in response.value.values():
        if isinstance(value, str) and _PLACEHOLDER.fullmatch(value):
            return UnreadableError(f"a placeholder: {excerpt(value)}")
    return response


def _label(gap: str) -> str:
    """The last line before an object, without a fence."""
    candidates = reversed(_FENCE.sub("", gap[-_LABEL:]).split("\n"))
    return next((line.strip() for line in candidates if line.strip(" \t*#>{")), "")


def _says_final(label: str) -> bool:
    return bool(_FINAL.search(label)) and not _NEGATION.search(label)


def _check_around(gaps: list[str], chosen: Response, asked: Keys) -> None:
    """Refuse an object that is part of another one, is taken back, or is contradicted."""
    before, behind = gaps[-2], gaps[-1]
    within = before.count("{") > before.count("}")
    if within and not (_WRAPPER.search(before) and _WRAPPER_END.match(behind)):
        raise UnreadableError(f"the object is part of another one: {excerpt(before, before.find('{'))}")
    if _RETRACTION.search(behind[:_LABEL]):
        raise UnreadableError(f"the text behind the object takes it back: {excerpt(behind.strip())}")
    for gap in gaps:
        for name, given in lines.values(gap, asked).items():
            if any(value not in (None, chosen.value.get(name)) for value in given):
                raise UnreadableError(f"{name} is given twice, with different values")


def _around(gaps: list[str]) -> Repairs:
    outside = "\n".join(gaps)
    repairs: Repairs = {"fence": None} if "```" in outside else {}
    if _FENCE.sub("", outside).strip():
        repairs["text around"] = None
    return repairs
