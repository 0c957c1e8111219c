r"""Paths and regular expressions in a JSON string whose backslashes are not doubled.

In ``C:\new\table`` and ``(\d+)\n`` a backslash is meant as it stands, also where JSON
has an escape of that name. A path is told by what it begins with, and by a backslash
that JSON does not know or a tab within it; an expression by the class beside it.
"""

import re

from aitp_tasks.generation.responses.errors import UnreadableError, excerpt

#: A folder or a file; a capital behind an escape begins a line.
_FOLDER = r"\\(?!u[0-9a-fA-F]{4}|[nrt](?:[A-Z\\]|[^\w.-]|\Z))[\w.()-]++(?: [A-Z(][\w.()-]*+(?=\\))?+"
_VARIABLE = (
    "%(?:ALLUSERSPROFILE|APPDATA|HOMEDRIVE|HOMEPATH|LOCALAPPDATA|PROGRAMDATA|PROGRAMFILES|PUBLIC"
    "|SYSTEMDRIVE|SYSTEMROOT|TEMP|TMP|USERPROFILE|WINDIR)%"
)
_PATH = re.compile(
    rf"(?:(?<![A-Za-z\\])[A-Za-z]:|{_VARIABLE}|(?<![\w\\])\\\\[A-Za-z][\w.-]*+(?=(?:{_FOLDER}){{2}}))"
    rf"(?P<folders>(?:{_FOLDER})++)(?![\\:])"
)
_UNKNOWN = re.compile(r"\\(?:[^bfnrtu]|u(?![0-9a-fA-F]{4}))")
_EXTENSION = re.compile(r"\.[A-Za-z]{2,4}\Z")
_LINE_BREAK = re.compile(r"\\n|\n")

_CLASS = r"\\(?:[dDsSwW](?![A-Za-z])|[0-9.*+?^|])"
_EXPRESSION = re.compile(rf"{_CLASS}[^\s\"'`\\]*+\Z")
_CLASS_AHEAD = re.compile(rf"[()\[?*+|^]*+{_CLASS}")
#: How far a part of an expression goes at most.
_NEAR = 80
_SENTENCE_END = tuple(".:;,!?")
_LINE_STARTS = re.compile(r"[A-Z0-9*-]")
_GOES_ON = re.compile(r"[()\[\]*+?{|$^/`'\"]| [a-z]|\\[^n]")
_OPEN = tuple(" ([|^+*?`'\"")


def of_paths(raw: str) -> frozenset[int]:
    """Where the backslashes of paths are.

    Raises:
        UnreadableError: what stands there may be a path, or text on two lines.
    """
    paths = [match for match in _PATH.finditer(raw) if _is_path(raw, match)]
    return frozenset(place for path in paths for place in range(*path.span()) if raw[place] == "\\")


def is_share(text: str, position: int) -> bool:
    """Whether the two backslashes at a position begin the path of a share, whose others are not doubled."""
    match = _PATH.match(text, position)
    return bool(match and _UNKNOWN.search(match["folders"]))


def _is_path(raw: str, match: re.Match[str]) -> bool:
    folders = match["folders"]
    if _UNKNOWN.search(folders) or "\\b" in folders or "\\f" in folders:
        return True
    if match[0].startswith("\\"):
        return False
    on_one_line = not _LINE_BREAK.search(raw, 0, match.start()) and not _LINE_BREAK.search(raw, match.end())
    several, breaks_only = folders.count("\\") > 1, not re.search(r"\\[rtu]", folders)
    if several and (not breaks_only or (on_one_line and match[0].startswith("%"))):
        return True
    if breaks_only and not on_one_line and not _EXTENSION.search(folders):
        return False
    raise UnreadableError(f"{excerpt(raw, match.start())} may be a path, or text on two lines")


def is_of_expression(raw: str, start: int) -> bool:
    r"""Whether the ``\n``, ``\r`` or ``\t`` at ``start`` belongs to a regular expression.

    Raises:
        UnreadableError: it stands beside one, and may be a line break or a tab.
    """
    end, follows = start + 2, _EXPRESSION.search(raw, max(start - _NEAR, 0), start)
    leads = _CLASS_AHEAD.match(raw, end)
    if not follows and not leads:
        return False
    behind, is_break = raw[max(start - 2, 0) : start], raw[start + 1] == "n"
    if is_break and (behind.endswith("\\n") or raw.startswith("\\n", end) or not behind):
        return False
    if is_break and behind.endswith(_SENTENCE_END) and (leads or _LINE_STARTS.match(raw, end)):
        return False
    if (follows and _GOES_ON.match(raw, end)) or (leads and behind.endswith(_OPEN)):
        return True
    raise UnreadableError(f"{excerpt(raw, start)} may be a line break or a tab, or part of an expression")
