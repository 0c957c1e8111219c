r"""Where mathematics and code stand in a JSON string, escapes and all.

Mathematics is what stands between ``$``, ``$$``, ``\(``, ``\[`` or ``\begin`` and
what closes them, of nested ones the outer; code, what stands in a fence or between
backticks. A dollar is no delimiter where text would have one: before or behind a
name, a price, or in lines of a program.
"""

import re
from bisect import bisect_right
from typing import NamedTuple


class Region(NamedTuple):
    """Mathematics or code.

    Attributes:
        start: behind the opening delimiter.
        end: before the closing one.
        kind: "inline", "display" or "code".
    """

    start: int
    end: int
    kind: str


class Regions:
    """The regions of one string."""

    def __init__(self, raw: str) -> None:
        self._found = _found(raw)

    def at(self, position: int) -> Region | None:
        """The region in which a position is; None in plain text."""
        number = bisect_right(self._found, position, key=lambda region: region.start) - 1
        return self._found[number] if number >= 0 and position < self._found[number].end else None


_DELIMITER = re.compile(
    r"(?P<code>```.*?(?:```|\Z)|(?<!`)`[^`]{1,300}`(?!`))"
    r"|\\{1,2}\$|\$\$|\$|\\{1,2}[()\[\]]|\\{1,2}begin\{[A-Za-z]+\*?\}(?:\{[a-z| ]*\})?|\\{1,2}end\{",
    re.DOTALL,
)
_CLOSING = {"$": "$", "$$": "$$", "\\(": "\\)", "\\[": "\\]", "\\begin": "\\end"}
_INLINE = ("$", "\\(")
_LONGEST = {"$": 300, "\\(": 600}
_LONGEST_DISPLAY = 4000
#: A dollar opens or closes behind or before anything but a name; ``$n$th`` is one that closes.
_OPENS = re.compile(r"(?:(?<![A-Za-z0-9_])|(?<=\\[nrt]))\$(?=[^\s$])")
_CLOSES = re.compile(r"\$(?![A-Za-z0-9_({@]|\\\\?[\"(])|\$(?=(?:s|st|nd|rd|th)\b)")
_ENDS_BLANK = re.compile(r"(?:\s|(?<!\\)\\[nrt])\Z")
_IN_BRACES = re.compile(r"\\+[A-Za-z]++|[_{][^{}]*")
_PROSE = re.compile(r"[^\W\d_]{3}")
_LINE_BREAK = re.compile(r"(?<!\\)\\n[A-Za-z]*+|\n")
_CODE = re.compile(
    r"(?<![\\\w])(?:[A-Za-z]\w++\(|[A-Za-z]{2,}_\w{2})|\"|(?<!\\)[;{]\s*\Z|[=!]=|&&|\|\||[-=]>|\+=|::|\A\s*(?:#|//)"
)


def _found(raw: str) -> list[Region]:
    found: list[Region] = []
    opening, start = "", 0
    for match in _DELIMITER.finditer(raw):
        if match["code"]:
            found.append(Region(match.start(), match.end(), "code"))
            opening = ""
            continue
        mark = match[0].replace("\\\\", "\\").partition("{")[0]
        near = match.start() - start <= _LONGEST.get(opening, _LONGEST_DISPLAY)
        if opening and mark == _CLOSING[opening] and near and _is_formula(raw, opening, start, match.start()):
            found.append(Region(start, match.start(), "inline" if opening in _INLINE else "display"))
            opening = ""
        elif mark in _CLOSING and (not opening or not near or (opening == "$" and mark != "\\begin")):
            opening, start = mark, match.end()
            if mark == "$" and not _OPENS.match(raw, match.start()):
                opening = ""
    return found


def _is_formula(raw: str, opening: str, start: int, end: int) -> bool:
    """Whether dollars are delimiters: no blank inside them, no name behind, no prose or code between."""
    content = raw[start:end]
    if opening != "$":
        return opening == "\\begin" or not _is_code(content)
    if not content or _ENDS_BLANK.search(content) or not _CLOSES.match(raw, end):
        return False
    return not _PROSE.search(_IN_BRACES.sub(" ", content)) and not _is_code(content)


def _is_code(content: str) -> bool:
    """Whether a formula would be lines of a program; one that opens with an escape is none."""
    first, *others = _LINE_BREAK.split(content)
    return bool(others and first and any(_CODE.search(line) for line in (first, *others)))
