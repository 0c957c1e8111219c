"""Where a string ends that holds quotation marks which are not escaped.

A mark ends a string if what follows goes on as an object or a list of the
schema does. Where two marks do, or the marks within may belong to the
delimiters, or the text may be cut there, the end is not clear and the string
is refused. Time is linear in the text, but for a bounded number of ends.
"""

import re
import sys
from collections.abc import Collection, Iterator
from typing import NamedTuple

from aitp_tasks.generation.responses.errors import UnreadableError, excerpt
from aitp_tasks.generation.responses.keys import ANY_KEY, CLOSING, COMMA, QUOTED_KEY, QUOTES, Keys

#: A string with more quotation marks, or more places to end at, has no clear end.
_MOST_QUOTES = 20_000
_MOST_ENDS = 20
#: Marks that are a string's own: in a fence, or one that closes a German one.
_OWN = r"```\w*+(?:\\n|\n)[^`]*+(?:`{1,2}+(?!`)[^`]*+)*+```|„[^\"“”„{}\n]{1,200}+\"|"
_APOSTROPHES = "'‘’‚"
#: Beside a quotation mark, they tell an opening one from a closing one.
_BEFORE_WORD = tuple(" \t\n([{<-–—/=:¿¡")
_AFTER_WORD = tuple(" \t\n)]}>,.;:!?，。；：！？、")
_SENTENCE_ENDS = tuple(".?!…。？！")

_GAP = r"(?:\s++|(?://|#)[^\n]*+(?:\n|\Z)|/\*[^*]*+\*/)*+"
#: A closing mark alone on its line, at the end of everything.
_CLOSING_LINE = re.compile(r"\n[\"'][\s,}`]*+\Z")
_FENCE = r"(?<=\n)```"
_CLOSING_BRACE = r"\}(?![A-Za-z0-9_\"'“])"
_SEPARATOR = re.compile(rf"{_GAP}(?P<comma>{COMMA})?+{_GAP}")
_OBJECT_END = re.compile(rf"{_GAP}{COMMA}?+{_GAP}{_CLOSING_BRACE}")
#: Without a bracket, the end of the fence or of everything; what is cut may look like that too.
_TEXT_END = re.compile(rf"{_GAP}{COMMA}?+{_GAP}(?:{_FENCE}|\Z)")
_FENCE_END = re.compile(r"(?=```\s*+\Z)")
_NEXT_ITEM = re.compile(rf"{_GAP}{COMMA}{_GAP}[{QUOTES}]")
#: The next item, the comma before it missing.
_ITEM = re.compile(rf"(?P<gap>\s++)[{QUOTES}](?=\w)")
#: The end of a list, or of an object whose list is not closed, and something that may come then.
_LIST_END = re.compile(
    rf"{_GAP}{COMMA}?+{_GAP}"
    rf"(?:\](?:[^\S\n]*+(?=\n|\Z)|{_GAP}(?=[}}\]]|```|{COMMA}\s*+(?:\}}|{ANY_KEY})))"
    rf"|(?=\}}\]?+[^\S\n]*+(?:\n|```|\Z))){COMMA}?+\s*+(?:{_CLOSING_BRACE})?+"
)
_LATER_LIST_END = re.compile(r"[\"'”’]\s*+\]")
_LATER_OBJECT_END = re.compile(r"[\"'”’]\s*+\}")
#: Text behind a quotation mark that looks like another member, or like another string to be joined.
_MEMBER = re.compile(
    rf"\s*+(?:[{QUOTES}]?+\s*+{COMMA}(?:{COMMA}|[\s{QUOTES}]){{0,8}}+{ANY_KEY}|[{QUOTES}]{ANY_KEY})"
)
#: Between two strings to be joined.
PLUS = re.compile(rf"\s*+\+\s*+(?=[{QUOTES}])")
_QUOTED_KEY = re.compile(QUOTED_KEY)
_JOINED = re.compile(rf"\s*+\+\s*+[{QUOTES}]|\s++[{QUOTES}]")
_OTHER_KEY = re.compile(ANY_KEY)
_OBJECT = re.compile(rf"\{{\s*+{ANY_KEY}")
_BRACE = re.compile(r"[{}]")


class CutError(Exception):
    """The text ends within the string."""


class End(NamedTuple):
    """Where a string ends, or may end.

    Attributes:
        position: of its closing mark.
        quotes: marks within it.
        rest: where the text behind a member's object starts; None where another member follows.
        level: whether the braces within it pair.
    """

    position: int
    quotes: int
    rest: int | None = None
    level: bool = True


class _Mark(NamedTuple):
    """A quotation mark, and what it may be by its neighbours."""

    position: int
    ends: bool  # one of the marks that close what the opening mark opens
    closes: bool
    opens: bool
    stray: bool  # inches, or the apostrophe of a plural or a decade


def _is_own(mark: re.Match[str]) -> bool:
    return len(mark[0]) > 2 and mark[0][0] in "`„"


class Strings:
    """The strings of one text, in an object of a schema."""

    def __init__(self, text: str, keys: Keys) -> None:
        self._text = text
        self._keys = keys

    def member_end(self, start: int, opening: str, named: Collection[str]) -> End:
        """The end of a member's string: the only one that leaves whole text within and behind the object.

        Args:
            start: where the content starts, behind the opening mark.
            opening: that mark.
            named: the properties that the object has by now.

        Raises:
            UnreadableError: the string may end in several places, or in none.
            CutError: the text ends first.
        """
        found = list(self._candidates(start, opening, named))
        if found and not found[0].quotes and (found[0].rest is None or self._is_only(found)):
            return found[0]
        fitting = [end for end in found if end.level and end.quotes % 2 == 0 and self.is_whole(end.rest)]
        if not fitting and len(found) == 1 and found[0].level and self._ends_text(found[0].rest):
            fitting = found
        if len(fitting) != 1 or not self._may_hold_quotes(start, fitting[0], opening):
            raise self._unclear(start)
        return self._checked(start, fitting[0])

    def item_end(self, start: int, opening: str) -> End:
        """The end of an item: the first mark, outside of marks that pair, before a comma or the list's end.

        Raises:
            UnreadableError: the marks within the item do not pair, or none ends it.
            CutError: the text ends first.
        """
        inside, quotes = False, 0
        for mark in self._quotes(start, opening):
            joined = not quotes and PLUS.match(self._text, mark.position + 1)
            ends = mark.ends and (joined or self._is_item_end(mark.position))
            if ends and not inside:
                return self._checked(start, End(mark.position, quotes))
            quotes += 1
            if inside and (not mark.closes or (ends and self._text[mark.position - 1] in _SENTENCE_ENDS)):
                break
            if not inside and not mark.opens and opening not in _APOSTROPHES:
                break
            inside = not inside and mark.opens
        if not quotes and not self._text.rstrip(" \n`").endswith(("]", "}")):
            raise CutError
        raise self._unclear(start)

    def _unclear(self, start: int) -> UnreadableError:
        return UnreadableError(f"where a string ends is not clear: {excerpt(self._text, start)}")

    def _marks(self, start: int, opening: str, end: int = sys.maxsize) -> Iterator[re.Match[str]]:
        """Runs of braces, and marks like the opening one but those escaped or within a word."""
        own = _OWN if opening == '"' else ""
        pattern = re.compile(rf"(?:\\.)++|\{{++|\}}++|{own}[{opening}{CLOSING[opening]}]", re.DOTALL)
        quotes = 0
        for mark in pattern.finditer(self._text, start, end):
            if mark[0][0] == "\\" or (mark[0] in _APOSTROPHES and self._is_in_word(mark)):
                continue
            quotes += mark[0][0] not in "{}" and not _is_own(mark)
            if quotes > _MOST_QUOTES:
                raise UnreadableError(f"more than {_MOST_QUOTES} quotation marks in a string")
            yield mark

    def _is_in_word(self, mark: re.Match[str]) -> bool:
        return self._text[mark.start() - 1].isalnum() and self._text[mark.end() : mark.end() + 1].isalnum()

    def _quotes(self, start: int, opening: str, end: int = sys.maxsize) -> Iterator[_Mark]:
        for mark in self._marks(start, opening, end):
            if mark[0][0] in "{}" or _is_own(mark):
                continue
            before, after = self._text[mark.start() - 1], self._text[mark.end() : mark.end() + 1]
            opens = after not in _AFTER_WORD
            stray = before.isdigit() and not opens
            if opening in _APOSTROPHES:
                stray = after.isdigit() or (before.isalpha() and not opens)
            yield _Mark(mark.start(), mark[0] in CLOSING[opening], before not in _BEFORE_WORD, opens, stray)

    def _candidates(self, start: int, opening: str, named: Collection[str]) -> Iterator[End]:
        found = quotes = depth = lowest = 0
        for mark in self._marks(start, opening):
            if mark[0][0] in "{}":
                depth += len(mark[0]) if mark[0][0] == "{" else -len(mark[0])
                lowest = min(lowest, depth)
                continue
            if _is_own(mark):
                quotes += 2
                continue
            if mark[0] in CLOSING[opening]:
                for rest in self._after_member(mark, named, not quotes and depth == lowest == 0):
                    yield End(mark.start(), quotes, rest, depth == lowest == 0)
                    found += 1
            another = _MEMBER.match(self._text, mark.end()) if depth <= 0 else None
            joined = _JOINED.match(self._text, mark.end()) if quotes % 2 == 0 else None
            if another or joined or found > _MOST_ENDS:
                # Another member, strings to join, or text that looks so: no end behind it would be clear.
                return
            quotes += 1
        if not quotes:
            raise CutError

    def _after_member(self, mark: re.Match[str], named: Collection[str], is_first: bool) -> list[int | None]:
        """Where the text behind the object starts, None where another member follows; empty for neither.

        Behind the first mark that may also be one which the schema does not ask for, or a string to join.
        """
        if match := _OBJECT_END.match(self._text, mark.end()) or self._text_end(mark.start()):
            return [match.end()]
        gap = _SEPARATOR.match(self._text, mark.end())
        assert gap is not None
        key = self._keys.key.match(self._text, gap.end()) if gap["comma"] or "\n" in gap[0] else None
        name = key and self._keys.name(key[2])
        if name:
            return [None] if name not in named else []
        other = (gap["comma"] or "\n" in gap[0]) and _QUOTED_KEY.match(self._text, gap.end())
        return [None] if is_first and (other or PLUS.match(self._text, mark.end())) else []

    def _text_end(self, position: int) -> re.Match[str] | None:
        """The end of the text behind a mark, where a sentence or a fence ends: elsewhere it may be cut."""
        pattern = _TEXT_END if self._text[position - 1] in _SENTENCE_ENDS else _FENCE_END
        return pattern.match(self._text, position + 1)

    def _is_only(self, found: list[End]) -> bool:
        rest = found[0].rest or 0
        return len(found) == 1 and (not _LATER_OBJECT_END.search(self._text, rest) or self.is_whole(rest))

    def is_whole(self, rest: int | None) -> bool:
        """Whether the text behind an object can stand alone: its marks and braces pair."""
        if rest is None:
            return True
        depth = 0
        for brace in _BRACE.finditer(self._text, rest):
            depth += 1 if brace[0] == "{" else -1
            if depth < 0:
                return False
        closing = _LATER_OBJECT_END.search(self._text, rest)
        explained = closing is None or _OBJECT.search(self._text, rest, closing.start())
        return depth == 0 and self._text.count('"', rest) % 2 == 0 and bool(explained)

    def _ends_text(self, rest: int | None) -> bool:
        """Whether the object ends with a brace, and the text with the object."""
        return rest is not None and self._text[rest - 1] == "}" and not self._text[rest:].strip(" \n`")

    def _may_hold_quotes(self, start: int, end: End, opening: str) -> bool:
        """Whether the marks within a string are its own: none of them is one of a pair with a delimiter."""
        if end.quotes % 2 == 0 and opening in _APOSTROPHES:
            return True
        inside = False
        for mark in self._quotes(start, opening, end.position):
            if inside or not mark.stray:
                if not (mark.closes if inside else mark.opens):
                    return False
                inside = not inside
        return not inside

    def _checked(self, start: int, end: End) -> End:
        """An end, unless marks within the string may be part of its delimiters, or an object is in it."""
        text, position = self._text, end.position
        if end.quotes:
            beside = (text[start] == text[position]) + (text[position - 1] == text[position])
            doubled = (beside == 2 and end.quotes == 2) or (beside and end.quotes % 2 == 1)
            blank = text[position - 1].isspace() and not _CLOSING_LINE.match(text, position - 1)
            if doubled or blank or self._keys.object.search(text, start, position):
                raise self._unclear(start)
        return end

    def _is_item_end(self, position: int) -> bool:
        behind = position + 1
        if _NEXT_ITEM.match(self._text, behind) or self._text_end(position) or self._is_item_after(position):
            return True
        match = _LIST_END.match(self._text, behind)
        if match and not _OTHER_KEY.match(self._text, match.end()):
            later = _LATER_LIST_END.search(self._text, match.end())
            if later and not self.is_whole(match.end()):
                raise UnreadableError(f"where a list ends is not clear: {excerpt(self._text, behind)}")
        return match is not None

    def _is_item_after(self, position: int) -> bool:
        """Whether another item follows without a comma: on another line, or behind the end of a sentence."""
        match = _ITEM.match(self._text, position + 1)
        if match is None:
            return False
        return "\n" in match["gap"] or self._text[position - 1] in _SENTENCE_ENDS
