"""The picture of the walls, from the layers contract in pyproject.toml and the rooms' docstrings."""

import ast
import re
import textwrap
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.sax.saxutils import escape

_WIDTH, _MARGIN, _GAP, _PADDING = 900, 20, 8, 10
_TOP, _ARROW = 74, 34
_NAME, _LINE, _MOST_LINES = 128, 16, 6
#: The mean width of a caption's letters, in the wide one of the usual fonts.
_LETTER = 6.6
_SANS = "system-ui, -apple-system, 'Segoe UI', Helvetica, Arial, sans-serif"
_MONO = "ui-monospace, SFMono-Regular, Menlo, Consolas, 'DejaVu Sans Mono', monospace"
_STYLE = f"""\
  <style>
    text {{ font-family: {_SANS}; font-size: 12px; fill: #44546a; }}
    .room {{ font-family: {_MONO}; font-size: 14px; font-weight: 600; fill: #12263f; }}
    .title {{ font-size: 15px; font-weight: 600; fill: #12263f; }}
  </style>"""


@dataclass(frozen=True)
class Room:
    """A room, and what it is for in a line."""

    name: str
    caption: str


def picture(repository: Path) -> str:
    """SVG: the layers as bands from top to bottom, the rooms of each side by side."""
    layers = _layers(repository)
    bottom = _TOP
    bands: list[str] = []
    for number, rooms in enumerate(layers):
        height, drawn = _band(rooms, bottom, number / (len(layers) - 1))
        bands += drawn
        bottom += height + _GAP
    height = bottom - _GAP + _MARGIN
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" width="{_WIDTH}" '
        f'height="{height}" role="img">',
        "  <title>The rooms of aitp_tasks and the walls between them</title>",
        _STYLE,
        _box(0, 0, _WIDTH, height, "#ffffff"),
        _text(_MARGIN, 34, "The rooms of aitp_tasks/", "title"),
        _text(
            _MARGIN,
            54,
            "A room imports from those below it: never from one above it, nor from one beside it.",
        ),
        *_arrow(_TOP, height - _MARGIN),
        *bands,
        "</svg>\n",
    ]
    return "\n".join(lines)


def _layers(repository: Path) -> list[list[Room]]:
    """The rooms of each layer, from top to bottom."""
    settings = tomllib.loads((repository / "pyproject.toml").read_text(encoding="utf-8"))
    contracts = settings["tool"]["importlinter"]["contracts"]
    (contract,) = [contract for contract in contracts if contract["type"] == "layers"]
    (container,) = contract["containers"]
    return [
        [
            Room(name.strip(), _caption(repository / container / name.strip()))
            for name in re.split("[|:]", layer)
        ]
        for layer in contract["layers"]
    ]


def _caption(room: Path) -> str:
    """The first line of a package's or module's docstring."""
    module = room / "__init__.py" if room.is_dir() else room.with_suffix(".py")
    docstring = ast.get_docstring(ast.parse(module.read_text(encoding="utf-8"))) or ""
    return docstring.partition("\n")[0].replace("``", "").rstrip(".")


def _band(rooms: Sequence[Room], top: int, depth: float) -> tuple[int, list[str]]:
    """The height of a layer, and what it is drawn by."""
    left, right = _MARGIN + _ARROW, _WIDTH - _MARGIN
    width = (right - left - 2 * _PADDING - (len(rooms) - 1) * _GAP) / len(rooms)
    # A caption stands below its room's name, or right of it where there is space.
    aside, down = (_NAME, 0) if len(rooms) == 1 else (0, _LINE + 4)
    letters = int((width - 2 * _PADDING - aside) / _LETTER)
    captions = [
        textwrap.wrap(room.caption, letters, max_lines=_MOST_LINES, placeholder=" …") for room in rooms
    ]
    height = 2 * _PADDING + down + _LINE * max(map(len, captions))
    drawn = [_box(left, top, right - left, height + 2 * _PADDING, _tint(depth), radius=8)]
    for number, (room, caption) in enumerate(zip(rooms, captions, strict=True)):
        x, y = left + _PADDING + number * (width + _GAP), top + _PADDING
        drawn.append(_box(x, y, width, height, "#ffffff", "#b9c6d6", 5))
        drawn.append(_text(x + _PADDING, y + _PADDING + 12, room.name, "room"))
        for line, words in enumerate(caption):
            drawn.append(_text(x + _PADDING + aside, y + _PADDING + 12 + down + line * _LINE, words))
    return height + 2 * _PADDING, drawn


def _tint(depth: float) -> str:
    """From a light top (0) to a firm ground (1)."""
    top, ground = (0xF0, 0xF5, 0xFB), (0xBF, 0xD3, 0xEA)
    return "#" + "".join(f"{round(a + (b - a) * depth):02x}" for a, b in zip(top, ground, strict=True))


def _arrow(top: int, bottom: int) -> Iterator[str]:
    """Along the left side, downwards."""
    x, y = _MARGIN + 14, (top + bottom) // 2
    yield f'  <path d="M{x} {top} V{bottom - 8}" stroke="#8a9bb0" stroke-width="1.5" fill="none"/>'
    yield f'  <path d="M{x - 5} {bottom - 9} h10 l-5 9 z" fill="#8a9bb0"/>'
    yield _box(x - 9, y - 36, 18, 72, "#ffffff")
    yield f'  <text transform="translate({x + 4} {y}) rotate(-90)" text-anchor="middle">imports</text>'


def _box(
    x: float, y: float, width: float, height: float, fill: str, stroke: str = "none", radius: int = 0
) -> str:
    place = f'x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" rx="{radius}"'
    return f'  <rect {place} fill="{fill}" stroke="{stroke}"/>'


def _text(x: float, y: float, words: str, kind: str = "caption") -> str:
    return f'  <text x="{x:g}" y="{y:g}" class="{kind}">{escape(words)}</text>'
