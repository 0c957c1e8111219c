"""The commands that README.md and docs/ show, as their ``console`` fences have them.

A line that begins with ``$ `` is a command, which a backslash at its end carries on
to the next line; all other lines are output. A fence with the line
``<!-- not run: reason -->`` right above it shows commands that no test runs.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
_FENCE = re.compile(r"( *)(`{3,}|~{3,}) *(\S*)")
_MARK = re.compile(r"<!-- not run: (.*) -->")


@dataclass(frozen=True)
class Fence:
    """A fenced block of a page: its place, language and lines, and the line above it."""

    place: str
    language: str
    lines: list[str]
    above: str


@dataclass(frozen=True)
class Command:
    """A command as it is shown; ``not_run`` is the reason why no test runs it."""

    place: str
    text: str
    not_run: str | None


def pages() -> list[Path]:
    """README.md and all of docs/, in order."""
    return [REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").rglob("*.md"))]


def shown(page: Path) -> list[Command]:
    """All commands of a page, in order.

    Raises:
        ValueError: a fence is not closed, or its lines are no commands with their output.
    """
    return [command for fence in fences(page) if fence.language == "console" for command in _commands(fence)]


def fences(page: Path) -> Iterator[Fence]:
    """All fenced blocks of a page, of any language.

    Raises:
        ValueError: one is not closed.
    """
    name = page.relative_to(REPOSITORY) if page.is_relative_to(REPOSITORY) else page.name
    lines = page.read_text(encoding="utf-8").splitlines()
    start, opened = 0, None
    for number, line in enumerate(lines):
        mark = _FENCE.match(line)
        if mark and opened is None:
            start, opened = number, mark
        elif mark and opened and mark[2].startswith(opened[2]) and not mark[3]:
            inside = [inner.removeprefix(opened[1]) for inner in lines[start + 1 : number]]
            above = lines[start - 1].strip() if start else ""
            yield Fence(f"{name}:{start + 1}", opened[3], inside, above)
            opened = None
    if opened is not None:
        raise ValueError(f"{name}:{start + 1}: the fence is not closed")


def _commands(fence: Fence) -> Iterator[Command]:
    mark = _MARK.fullmatch(fence.above)
    reason = mark[1] if mark else None
    command = ""
    carried = False
    for line in fence.lines:
        if carried:
            command += f"\n{line}"
        elif line.startswith("$ "):
            if command:
                yield Command(fence.place, command, reason)
            command = line.removeprefix("$ ")
        elif not command:
            raise ValueError(f"{fence.place}: {line!r} comes before any command: begin commands with '$ '")
        else:
            continue
        carried = command.endswith("\\")
    if carried or not command:
        raise ValueError(f"{fence.place}: the fence has no command, or its last one does not end")
    yield Command(fence.place, command, reason)
