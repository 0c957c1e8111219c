"""One flat object out of text that is nearly JSON: its members are scalars, strings and lists of them.

The schema leads: its keys may be written anyhow, others in quotation marks only,
and their strings may not hold any. Where a text has two readings it has none here.
"""

import json
import re
import unicodedata
from collections.abc import Callable, Sized
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Any

from aitp_tasks.generation.responses import escapes
from aitp_tasks.generation.responses.errors import UnreadableError, excerpt
from aitp_tasks.generation.responses.keys import ANY_KEY, CLOSING, COMMA, QUOTED_KEY, QUOTES, Keys
from aitp_tasks.generation.responses.strings import PLUS, CutError, End, Strings
from aitp_tasks.generation.responses.values import Members

#: No list that is asked for has more items, and no object more members.
_MOST = 1000
_SPACE = re.compile(r"(?:[\s\ufeff\u200b]++|//[^\n]*+|#[^\n]*+|/\*.*?\*/)*+", re.DOTALL)
_ESCAPED = re.compile(r"\\.", re.DOTALL)
_OTHER_KEY = re.compile(ANY_KEY)
_BARE = re.compile(r"[+-]?\w[\w.+-]*+(?:\s*+/\s*+\d++)?+")
_COMMA = re.compile(COMMA)
_QUOTED_KEY = re.compile(QUOTED_KEY)
#: ``9 (clear)``
_REMARK = re.compile(r"[^\S\n]*+\([^()\d\n{}\[\]]{1,80}\)")
_AFTER_BARE = re.compile(rf"[^\S\n]*+(?:{COMMA}|[}}\]\n#{QUOTES}]|//|/\*|\Z)")
_LEADING_ZERO = re.compile(r"0(?=\d\Z)", re.ASCII)
_NUMBER = re.compile(r"-?(?:0|[1-9]\d{0,30}+)(?:\.\d{1,30}+)?+(?:[eE][+-]?\d{1,3}+)?+", re.ASCII)
_RATIO = re.compile(r"\d++(?:\.0++)?+\s*+/\s*+\d++", re.ASCII)
_LITERALS = {"true": True, "false": False, "null": None, "none": None}


class PlaceholderError(Exception):
    """A placeholder stands where a value should: this is no object, but one may follow."""


@dataclass
class Found:
    """What may be the object, and where it stands."""

    start: int
    end: int
    value: Any = field(default_factory=Members)
    repairs: dict[str, None] = field(default_factory=dict)


def read_object(text: str, start: int, keys: Keys) -> Found:
    """The object whose opening brace, or first key or list where there is no brace, is at ``start``.

    Raises:
        UnreadableError: it is cut off, or may be meant in several ways.
        PlaceholderError: it is none.
    """
    reader = _Reader(text, start, keys)
    try:
        return reader.object()
    except UnreadableError as error:
        if reader.is_asked_for:
            raise
        raise PlaceholderError from error


def _style(quotes: str) -> str:
    if len(quotes) == 3:
        return "triple quotes"
    return "single quotes" if quotes in "'`" else "smart quotes"


class _Reader:
    """Reads from a position on; each method takes what it names and leaves the position behind it."""

    def __init__(self, text: str, start: int, keys: Keys) -> None:
        self._text = text
        self._at = start
        self._keys = keys
        self._strings = Strings(text, keys)
        self._value_end = start
        self._found = Found(start, start)
        self.is_asked_for = not text.startswith("{", start)

    @cached_property
    def _doubled(self) -> bool:
        return escapes.doubles(self._text)

    def object(self) -> Found:
        if not self._take("{"):
            self._note("missing bracket")
        while not self._is_object_end():
            name = self._key()
            self._skip()
            self._found.value.append((name, self._value(name)))
            self._check_size(self._found.value)
            self._value_end = self._at
            self._separator("}")
        self._found.end = self._at
        if not dict(self._found.value).keys() <= self._keys.kinds.keys() and not self._strings.is_whole(
            self._at
        ):
            raise UnreadableError(f"where the object ends is not clear: {excerpt(self._text, self._at)}")
        return self._found

    def _note(self, repair: str) -> None:
        self._found.repairs[repair] = None

    def _take(self, sign: str) -> bool:
        taken = self._text.startswith(sign, self._at)
        self._at += len(sign) * taken
        return taken

    def _skip(self) -> None:
        match = _SPACE.match(self._text, self._at)
        assert match is not None
        if odd := match[0].strip(" \t\r\n"):
            self._note("comment" if odd.strip("\ufeff\u200b").strip() else "blank")
        self._at = match.end()

    def _check_size(self, values: Sized) -> None:
        if len(values) > _MOST:
            raise UnreadableError(f"more than {_MOST} members, items or parts of a string")

    def _is_text_end(self) -> bool:
        return self._at >= len(self._text) or self._text.startswith("```", self._at)

    def _is_object_end(self) -> bool:
        self._skip()
        if self._text.startswith("]}", self._at):
            self._note("extra bracket")
            self._at += 1
        if self._take("}"):
            return True
        if self._is_text_end() or self._is_prose():
            self._note("missing bracket")
            return True
        return False

    def _is_prose(self) -> bool:
        """Whether the object is whole but for its brace, and prose follows on another line."""
        whole = dict(self._found.value).keys() >= self._keys.required
        on_other_line = "\n" in self._text[self._value_end : self._at]
        return whole and on_other_line and not _OTHER_KEY.match(self._text, self._at)

    def _key(self) -> str:
        if self._keys.only_list and not self._found.value and self._text.startswith("[", self._at):
            self._note("bare list")
            return self._keys.only_list
        match = self._keys.key.match(self._text, self._at)
        name = match and self._keys.name(match[2])
        self.is_asked_for |= match is not None
        if match is None or name is None or not self._is_key(match, name):
            return self._other_key()
        quotes, written = match[1] or match[3], match[2]
        if len(match[1]) != len(match[3]):
            self._note("missing quote")
        if written != name or "*" in quotes:
            self._note("key")
        if not quotes:
            self._note("unquoted key")
        elif quotes != '"' and quotes.strip("*"):
            self._note(_style(quotes.strip("*")))
        if not match[0].endswith(":"):
            self._note("punctuation")
        self._at = match.end()
        return name

    def _is_key(self, match: re.Match[str], name: str) -> bool:
        """Whether its quotation marks pair, or one is missing where no string follows."""
        if len(match[1]) == len(match[3]):
            return True
        behind = self._text[match.end() : match.end() + 20].lstrip()[:1]
        return (
            len(match[1] + match[3]) == 1 and "string" not in self._keys.kinds[name] and behind not in QUOTES
        )

    def _other_key(self) -> str:
        match = _QUOTED_KEY.match(self._text, self._at)
        if match is None or match["close"] not in CLOSING[match["open"]] or self._keys.name(match["other"]):
            raise UnreadableError(f"a key of the schema should follow, not {excerpt(self._text, self._at)}")
        self._at = match.end()
        return match["other"]

    def _value(self, name: str) -> Any:
        kinds = self._keys.kinds.get(name, {"array", "number"})
        if self._text.startswith(tuple(CLOSING), self._at):
            try:
                return self._string(partial(self._strings.member_end, named=dict(self._found.value)))
            except CutError:
                raise UnreadableError(f"the response ends within {name}") from None
        if "array" in kinds and self._take("["):
            return self._list(name)
        return self._bare(kinds)

    def _list(self, name: str) -> list[Any]:
        items: list[Any] = []
        try:
            while not self._is_list_end():
                if self._text.startswith(tuple(CLOSING), self._at):
                    items.append(self._string(self._strings.item_end))
                else:
                    items.append(self._bare(self._keys.item_kinds.get(name, set())))
                self._check_size(items)
                self._separator("]")
        except CutError:
            self._note("cut")
            self._at = len(self._text)
        if "inner quotes" in self._found.repairs and any(str(item) != str(item).strip() for item in items):
            # What looks like a separator may be inner text: "a ", " b".
            raise UnreadableError(f"where the items of {name} end is not clear")
        return items

    def _is_list_end(self) -> bool:
        self._skip()
        if self._take("]"):
            return True
        if self._is_text_end() or self._text.startswith("}", self._at):
            self._note("missing bracket")
            return True
        return False

    def _separator(self, closing: str) -> None:
        self._skip()
        if comma := _COMMA.match(self._text, self._at):
            self._at = comma.end()
            if comma[0] != ",":
                self._note("punctuation")
        else:
            if not self._is_text_end() and not self._text.startswith(("]", "}"), self._at):
                self._note("missing comma")
            return
        self._skip()
        if self._text.startswith(closing, self._at):
            self._note("trailing comma")

    def _bare(self, kinds: set[str]) -> Any:
        """A number or a word without quotation marks."""
        match = _BARE.match(self._text, self._at)
        if match is None:
            if self._found.value and self._text.startswith(("{", "["), self._at):
                raise UnreadableError(f"an object within another one: {excerpt(self._text, self._at)}")
            if self._text.startswith(("<", "{", ".", "…", "["), self._at):
                raise PlaceholderError
            raise UnreadableError(f"a value should follow, not {excerpt(self._text, self._at)}")
        word = _LEADING_ZERO.sub("", unicodedata.normalize("NFKC", match[0]))
        if word != match[0]:
            self._note("number")
        if kinds == {"string"} and not word.isdecimal():
            raise PlaceholderError
        if match.end() == len(self._text) and word.casefold() not in _LITERALS:
            raise UnreadableError("the response ends within a value")
        remark = _REMARK.match(self._text, match.end())
        if not _AFTER_BARE.match(self._text, remark.end() if remark else match.end()):
            raise UnreadableError(f"more than a value: {excerpt(self._text, self._at)}")
        if remark:
            self._note("comment")
        self._at = remark.end() if remark else match.end()
        return self._bare_value(word)

    def _bare_value(self, word: str) -> Any:
        if _NUMBER.fullmatch(word):
            return json.loads(word)
        if word.casefold() in _LITERALS:
            if word not in ("true", "false", "null"):
                self._note("literal")
            return _LITERALS[word.casefold()]
        if _RATIO.fullmatch(word) or word.casefold() in ("yes", "no"):
            return word
        raise PlaceholderError

    def _string(self, find_end: Callable[[int, str], End]) -> str:
        """A string, or several ones with plus signs between them."""
        parts = [self._literal(find_end)]
        while plus := PLUS.match(self._text, self._at):
            self._at = plus.end()
            parts.append(self._literal(find_end))
            one_blank = parts[-2][-1:].isspace() != parts[-1][:1].isspace()
            if "inner quotes" in self._found.repairs or not ("\n" in plus[0] or one_blank):
                raise UnreadableError(f"whether strings are joined is not clear: {excerpt(parts[-1])}")
            self._note("joined strings")
            self._check_size(parts)
        return "".join(parts)

    def _literal(self, find_end: Callable[[int, str], End]) -> str:
        opening = self._text[self._at]
        delimiter = opening * 3 if self._text.startswith(opening * 3, self._at) else opening
        start = self._at + len(delimiter)
        end = find_end(start, opening) if delimiter == opening else End(self._text.find(delimiter, start), 0)
        if end.position < 0:
            raise CutError
        if delimiter != '"':
            self._note(_style(delimiter))
        if end.quotes:
            self._note("inner quotes")
        self._at = end.position + len(delimiter)
        return self._decoded(self._text[start : end.position], opening)

    def _decoded(self, raw: str, opening: str) -> str:
        if opening in "'`":
            raw = _ESCAPED.sub(lambda match: opening if match[0][1] == opening else match[0], raw)
        fixed, repairs = escapes.repair(raw, self._doubled)
        for repair in repairs:
            self._note(repair)
        return str(json.loads(f'"{fixed}"'))
