"""Each row of docs/operations.md is a test, and each test that is said to be a row is in it."""

import re
from collections import defaultdict
from pathlib import Path

from tests.docs.console import REPOSITORY

PAGE = REPOSITORY / "docs" / "operations.md"
_ROW = re.compile(r"^\|.*\|$", re.MULTILINE)
_MARK = re.compile(r"mark\.operation\(\s*\"([a-z-]+)\"")
_TEST = re.compile(r"\[`([a-z-]+)`\]\(\.\./(tests/[\w/]+\.py)\)")


def test_rows_and_tests_belong_together() -> None:
    marked = marks(REPOSITORY / "tests")
    shown = dict(_TEST.findall(PAGE.read_text(encoding="utf-8")))
    assert shown.keys() == marked.keys()
    assert {name: file for name, file in shown.items() if file not in marked[name]} == {}


def test_each_row_names_one_test() -> None:
    rows = [
        row for row in _ROW.findall(PAGE.read_text(encoding="utf-8")) if not row.endswith(("| test |", "-|"))
    ]
    assert [row for row in rows if len(_TEST.findall(row)) != 1] == []
    names = [name for row in rows for name, _ in _TEST.findall(row)]
    assert len(names) == len(set(names)) > 20


def marks(folder: Path) -> dict[str, set[str]]:
    """The files of the tests that are rows, by the rows' names."""
    found = defaultdict(set)
    for path in folder.rglob("test_*.py"):
        for name in _MARK.findall(path.read_text(encoding="utf-8")):
            found[name].add(path.relative_to(folder.parent).as_posix())
    return found
