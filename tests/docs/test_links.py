"""Every link from one page of the repository to another leads to a file, and its anchor to a heading."""

import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote

import pytest

from tests.docs.console import REPOSITORY

PAGES = sorted([*REPOSITORY.glob("*.md"), *(REPOSITORY / "docs").rglob("*.md")])
_FENCED = re.compile(r"^ *(`{3,}|~{3,}).*?^ *\1[`~]*$", re.MULTILINE | re.DOTALL)
_CODE = re.compile(r"`[^`\n]*`")
_LINK = re.compile(
    r"\]\(\s*<?([^\s)>]+)>?[^)]*\)|^\[[^\]]+\]:\s*(\S+)|(?:href|src)=\"([^\"]+)\"", re.MULTILINE
)
_ELSEWHERE = re.compile(r"[a-z][a-z0-9+.-]*:")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(REPOSITORY)))
def test_links_lead_somewhere(page: Path) -> None:
    broken = [link for link in links(page.read_text(encoding="utf-8")) if not leads_somewhere(page, link)]
    assert broken == []


def links(text: str) -> Iterator[str]:
    """The targets of all links and pictures that lie in this repository."""
    for found in _LINK.finditer(_CODE.sub("", _FENCED.sub("", text))):
        target = next(filter(None, found.groups()))
        if not _ELSEWHERE.match(target):
            yield target


def leads_somewhere(page: Path, link: str) -> bool:
    """Whether a link's file exists below the repository, and its anchor in it."""
    path, _, anchor = unquote(link).partition("#")
    target = (page.parent / path).resolve() if path else page
    if not target.exists() or not target.is_relative_to(REPOSITORY):
        return False
    return not anchor or (target.suffix == ".md" and anchor in anchors(target.read_text(encoding="utf-8")))


def anchors(text: str) -> set[str]:
    """The anchors that GitHub gives the headings of a page."""
    seen: Counter[str] = Counter()
    found = set()
    for heading in re.findall(r"^#{1,6} +(.*?)(?: +#+)?$", _FENCED.sub("", text), re.MULTILINE):
        words = re.sub(r"!?\[([^\]]*)\]\([^)]*\)", r"\1", heading).strip().lower()
        slug = re.sub(r"[^\w\- ]", "", words).replace(" ", "-")
        found.add(f"{slug}-{seen[slug]}" if seen[slug] else slug)
        seen[slug] += 1
    return found


def test_links_and_headings_are_found() -> None:
    text = "# A *b*: `c.d`\n## Twice\n## Twice\n```\n# no [x](no.md)\n```\n"
    text += "[a](b.md#c) ![p](d.png) `[x](no.md)`\n"
    text += '[r]: e.md\n<img src="f.png"> [out](https://g.h/i) [t](j.md "title")\n'
    assert list(links(text)) == ["b.md#c", "d.png", "e.md", "f.png", "j.md"]
    assert anchors(text) == {"a-b-cd", "twice", "twice-1"}


@pytest.mark.parametrize(
    "link", ["no-such-file.md", "README.md#no-such-heading", "#no-such-heading", "../.."]
)
def test_a_link_that_leads_nowhere_is_found(link: str) -> None:
    assert not leads_somewhere(REPOSITORY / "README.md", link)
