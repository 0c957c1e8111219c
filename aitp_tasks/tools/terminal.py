"""Text for a terminal: document text is data there too, and moves no cursor."""

import unicodedata
from itertools import zip_longest


def printable(text: str, characters: int | None = None) -> str:
    """The beginning of a text in one line: whatever does not print is written as an escape."""
    shown = "".join(
        one if one.isprintable() else one.encode("unicode_escape").decode("ascii")
        for one in text[:characters]
    )
    return shown if characters is None or len(text) <= characters else f"{shown} …"


def wrapped(text: str, width: int) -> list[str]:
    """A text in lines of at most so many columns, its own line ends kept; broken at blanks where it has any.

    Letters that take two columns, such as Chinese ones, count so.
    """
    return [part for line in text.splitlines() or [""] for part in _broken(printable(line), width)]


def side_by_side(left: str, right: str, width: int) -> list[str]:
    """Two texts in columns of one width."""
    pairs = zip_longest(wrapped(left, width), wrapped(right, width), fillvalue="")
    return [f"{one}{' ' * (width - columns(one))} | {other}".rstrip() for one, other in pairs]


def columns(text: str) -> int:
    """How many columns a text that is printable takes."""
    return sum(_columns(one) for one in text)


def _columns(letter: str) -> int:
    if unicodedata.combining(letter):
        return 0
    return 2 if unicodedata.east_asian_width(letter) in "WF" else 1


def _broken(line: str, width: int) -> list[str]:
    parts = []
    while columns(line) > width:
        fits = _first(line, width)
        blank = len(fits) if line[len(fits) :].startswith(" ") else fits.rfind(" ")
        end = blank if blank > 0 else len(fits)
        parts.append(line[:end].rstrip())
        line = line[end:].lstrip(" ")
    return [*parts, line] if line or not parts else parts


def _first(text: str, width: int) -> str:
    """As much of a text as fits, one letter at least."""
    taken = 0
    for place, letter in enumerate(text):
        taken += _columns(letter)
        if taken > width:
            return text[: max(place, 1)]
    return text
