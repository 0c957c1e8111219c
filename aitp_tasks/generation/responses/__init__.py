"""Reading a model's response as the JSON that its prompt asked for.

Engines that decode under a schema give JSON; others give it in fences, after
reasoning, in a tool call, with comments or single quotes, cut off, or as
``Quality: 8`` lines. ``read`` takes what can be meant in one way only and names
each repair; the rest it refuses. A wrong pair costs more than a missing one, so
nothing is guessed: no member is dropped that may change another one, no number
rounded, no text without quotation marks or tags taken for an answer, and no
placeholder for anything, though it be JSON. LaTeX that lost its backslashes to
JSON's escapes is restored also where the response is JSON (``escapes``).

How: reasoning and repetition are taken off and delimiters made JSON's (``reasoning``,
``payload``), what is JSON is loaded, and what is nearly JSON is read under the schema
(``objects``, ``strings``); else there are tags, lines or lists (``lines``). What is
found is brought to the schema's shape (``shapes``, ``values``), and what the text says
of it is heard (``remarks``).

Control characters but tabs and line breaks, and lone surrogates, are no text: what
is left of them after the repairs is refused.
"""

import re
from collections.abc import Mapping
from itertools import islice
from typing import Any

from aitp_tasks.generation.responses import (
    keys,
    lines,
    objects,
    payload,
    reasoning,
    remarks,
    shapes,
)
from aitp_tasks.generation.responses.errors import UnreadableError, excerpt
from aitp_tasks.generation.responses.keys import Keys
from aitp_tasks.generation.responses.objects import Found, PlaceholderError
from aitp_tasks.generation.responses.values import SURROGATE, Members, Repairs, Response, to_response

__all__ = ["Response", "UnreadableError", "read"]

#: A response with more objects answers no prompt.
_MOST_OBJECTS = 20
#: How often a response may be encoded as a string.
_MOST_ENCODED = 3
_FENCE = re.compile(r"```\w*+")
_WRAPPER = re.compile(r"\{\s*+(?:[\"'“]?+(?P<key>[^\W\d][\w -]{0,40})[\"'”]?+\s*+[:：]\s*+\[?+\s*+)?+\Z")
_WRAPPER_END = re.compile(r"[\s,]*+\]?+[\s,]*+(?:\}|\Z)")


def read(text: str, schema: Mapping[str, Any]) -> Response:
    """Read a response as one object of a schema.

    Args:
        text: the whole response, reasoning included.
        schema: of an object, in JSON Schema 2020-12. What is not JSON is read only where
            its properties are strings, numbers, booleans and lists of strings.

    Raises:
        UnreadableError: there is no such object, or more than one reading of it.
    """
    if SURROGATE.search(text):
        raise UnreadableError("the response has a lone surrogate")
    return _read(text, keys.of(schema), {})


def _read(text: str, asked: Keys, repairs: Repairs, layer: int = 0) -> Response:
    if layer > _MOST_ENCODED:
        raise UnreadableError(f"encoded as a string more than {_MOST_ENCODED} times")
    if text.startswith("\ufeff"):
        text, repairs = text.lstrip("\ufeff"), repairs | {"byte order mark": None}
    value = payload.loaded(text, repairs)
    if value is not None:
        return _of_value(value, asked, repairs, layer)
    text = reasoning.without(text, repairs)
    text = payload.plain(payload.once(text, asked, repairs), repairs)
    found = _find_all(text, asked, repairs)
    if found:
        return _choose(found, _gaps(text, found), asked, repairs, layer)
    response = lines.read(text, asked, repairs)
    if response is None:
        raise UnreadableError(f"no object of the schema in {excerpt(text.strip())}")
    return response


def _of_value(value: Any, asked: Keys, repairs: Repairs, layer: int) -> Response:
    """What JSON's value, or the members that were read, say to the schema."""
    repairs = dict(repairs)
    value = shapes.unwrapped(value, asked, repairs)
    if isinstance(value, str):
        return _read(value, asked, repairs | {"encoded twice": None}, layer + 1)
    if value is None:
        raise UnreadableError("no object of the schema in the JSON")
    return to_response(shapes.shaped(value, asked, repairs), asked, repairs)


def _find_all(text: str, asked: Keys, repairs: Repairs) -> list[Found]:
    if within := payload.json_within(text, repairs):
        return [Found(*within)]
    found = _find(text, asked)
    if not found and "{" not in text:
        found = _find_without_brace(text, asked)
    if not found and (tagged := lines.tagged(text, asked)):
        found = [Found(*tagged, repairs={"tags": None})]
    return found


def _find(text: str, asked: Keys) -> list[Found]:
    """All objects in their order."""
    if len(list(islice(asked.any_object.finditer(text), _MOST_OBJECTS + 1))) > _MOST_OBJECTS:
        raise UnreadableError(f"more than {_MOST_OBJECTS} objects")
    found: list[Found] = []
    position = 0
    while match := asked.any_object.search(text, position):
        try:
            one = objects.read_object(text, match.start(), asked)
            position = one.end
            found += [one] if shapes.holds(one.value, asked) else []
        except PlaceholderError:
            position = match.end()
    return found


def _find_without_brace(text: str, asked: Keys) -> list[Found]:
    """Members whose opening brace is missing, or a bare list."""
    key = rf"(?:[\"“](?:{asked.spellings})[\"”]\s*+[:：]|(?:{asked.spellings}):\s*+(?=[\"\[]))"
    bare = r"|(?=\[\s*+[\"'“„«‘])" if asked.only_list else ""
    match = re.search(rf"^[ \t]*+(?={key}){bare}", text, re.IGNORECASE | re.MULTILINE)
    try:
        found = match and objects.read_object(text, match.end(), asked)
    except PlaceholderError:
        return []
    if not found:
        return []
    is_list, is_closed = "bare list" in found.repairs, text[found.end - 1] == "}"
    if is_closed if is_list else "inner quotes" in found.repairs:
        raise UnreadableError(f"without a brace, the end is not clear: {excerpt(text, found.start)}")
    return [found]


def _choose(found: list[Found], gaps: list[str], asked: Keys, repairs: Repairs, layer: int) -> Response:
    """The one object that is meant.

    Drafts, examples and placeholders before it do not count, nor do objects that
    the schema does not accept. Of several that differ it is the last one where the
    text says that this is the final one. Several with nothing between them, none of
    them whole, may be one.
    """
    labels = [_label(gap) for gap in gaps[:-1]]
    readings = [_reading(item, label, asked, layer) for item, label in zip(found, labels, strict=True)]
    if _are_parts(readings, gaps):
        together = Found(0, 0, Members(member for item in found for member in item.value))
        readings, labels = [_reading(together, labels[0], asked, layer)], labels[:1]
    *earlier, chosen = readings
    if isinstance(chosen, UnreadableError):
        raise chosen
    differ = any(isinstance(other, Response) and other.value != chosen.value for other in earlier)
    if differ and not remarks.says_final(labels[-1]):
        raise UnreadableError(f"{len(found)} objects that differ")
    _check_around(gaps, chosen, asked)
    repairs |= _around(gaps) | dict.fromkeys(chosen.repairs)
    if len(found) > 1:
        repairs["several objects"] = None
    return Response(chosen.value, tuple(repairs))


def _are_parts(readings: list[Response | UnreadableError], gaps: list[str]) -> bool:
    between = [_FENCE.sub("", gap).strip(" \t\r\n,;[]") for gap in gaps[1:-1]]
    whole = any(isinstance(reading, Response) for reading in readings)
    return len(readings) > 1 and not whole and not any(between)


def _gaps(text: str, found: list[Found]) -> list[str]:
    """The text before each object, and behind the last one."""
    ends = [0, *(item.end for item in found)]
    starts = [*(item.start for item in found), len(text)]
    return [text[end:start] for end, start in zip(ends, starts, strict=True)]


def _reading(found: Found, label: str, asked: Keys, layer: int) -> Response | UnreadableError:
    if remarks.is_provisional(label):
        return UnreadableError(f"an example or a draft: {excerpt(label)}")
    try:
        return _of_value(found.value, asked, found.repairs, layer)
    except UnreadableError as error:
        return error


def _label(gap: str) -> str:
    """The last line before an object, without a fence."""
    candidates = reversed(_FENCE.sub("", gap[-remarks.NEAR :]).split("\n"))
    return next((line.strip() for line in candidates if line.strip(" \t*#>{")), "")


def _check_around(gaps: list[str], chosen: Response, asked: Keys) -> None:
    """Refuse an object that is part of another one, is contradicted, or is not the end of what is said."""
    before, behind = gaps[-2], gaps[-1]
    if before.count("{") > before.count("}"):
        wrapper = _WRAPPER.search(before)
        if not wrapper or not _WRAPPER_END.match(behind) or remarks.holds_no_answer(wrapper["key"] or ""):
            raise UnreadableError(f"the object is part of another one: {excerpt(before, before.find('{'))}")
    if any(map(remarks.asks_for_input, gaps)):
        raise UnreadableError("the text around the object asks for what the prompt gives: it is an example")
    for gap in gaps:
        for name, given in lines.values(gap, asked).items():
            if any(value not in (None, chosen.value.get(name)) for value in given):
                raise UnreadableError(f"{name} is given twice, with different values")
    if not remarks.are_courtesies(behind):
        raise UnreadableError(f"text behind the object may change it: {excerpt(behind.strip())}")


def _around(gaps: list[str]) -> Repairs:
    outside = "\n".join(gaps)
    repairs: Repairs = {"fence": None} if "```" in outside else {}
    if _FENCE.sub("", outside).strip():
        repairs["text around"] = None
    return repairs
