"""Configuration files that are put on top of others."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from aitp_tasks.config import file
from aitp_tasks.errors import InputError


def written(folder: Path, **files: Any) -> Path:
    """Configuration files of these contents; the first one's path."""
    for name, content in files.items():
        text = content if isinstance(content, str) else yaml.safe_dump(content)
        (folder / f"{name}.yaml").write_text(text)
    return folder / f"{next(iter(files))}.yaml"


@pytest.mark.parametrize(
    ("mine", "base", "read"),
    [
        ({}, {"a": 1}, {"a": 1}),
        ({"a": 2}, {"a": 1, "b": 3}, {"a": 2, "b": 3}),
        # Sections are joined, at any depth; lists are values.
        ({"s": {"t": {"x": 1}}}, {"s": {"t": {"y": 2}, "u": 3}}, {"s": {"t": {"x": 1, "y": 2}, "u": 3}}),
        ({"l": [3]}, {"l": [1, 2]}, {"l": [3]}),
        # A section gives way to a value, and the other way round.
        ({"s": None}, {"s": {"x": 1}}, {"s": None}),
        ({"s": {"x": 1}}, {"s": None}, {"s": {"x": 1}}),
        ({"s": {}}, {"s": {"x": 1}}, {"s": {"x": 1}}),
    ],
)
def test_a_file_says_only_what_differs(
    tmp_path: Path, mine: dict[str, Any], base: dict[str, Any], read: dict[str, Any]
) -> None:
    path = written(tmp_path, mine={**mine, "extends": "./base.yaml"}, base=base)
    assert file.read(path) == read


def test_a_chain_is_followed_and_paths_are_relative_to_the_file_that_says_them(tmp_path: Path) -> None:
    inner = tmp_path / "inner"
    inner.mkdir()
    written(inner, middle={"extends": "base.yaml", "p": "./p", "b": 1}, base={"q": "../q", "b": 2})
    path = written(tmp_path, mine={"extends": "inner/middle.yaml", "r": "./r"})
    assert file.read(path, ["b=3"]) == {
        "p": str(inner / "p"),
        "q": str(tmp_path / "q"),
        "r": str(tmp_path / "r"),
        "b": 3,
    }
    absolute = written(tmp_path, other={"extends": str(inner / "base.yaml")})
    assert file.read(absolute) == {"q": str(tmp_path / "q"), "b": 2}


def test_the_file_that_is_extended_stays_as_it_is(tmp_path: Path) -> None:
    path = written(tmp_path, mine={"extends": "./base.yaml", "s": {"x": 1}}, base={"s": {"y": 2}})
    file.read(path)
    assert file.read(tmp_path / "base.yaml") == {"s": {"y": 2}}


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"a": {"extends": "./a.yaml"}}, r"configuration \S*/a.yaml extends \S*/a.yaml: take extends out"),
        (
            {"a": {"extends": "./b.yaml"}, "b": {"extends": "c.yaml"}, "c": {"extends": "../c/b.yaml"}},
            r"b.yaml extends \S*/c.yaml extends \S*/b.yaml: take extends out of one of them",
        ),
        ({"a": {"extends": "./gone.yaml"}}, r"gone.yaml cannot be read \(No such file or directory\)"),
        ({"a": {"extends": ["./b.yaml"]}}, r"a.yaml: extends=\['./b.yaml'\] is no file: name one"),
        ({"a": {"extends": None}}, "extends=None is no file"),
        ({"a": {"extends": ""}}, "extends='' is no file"),
        ({"a": {"extends": "./b.yaml"}, "b": "- 1"}, r"b.yaml is not a mapping"),
        ({"a": {"extends": "."}}, r"cannot be read \(Is a directory\)"),
    ],
)
def test_a_file_that_cannot_be_extended_is_named(tmp_path: Path, files: dict[str, Any], message: str) -> None:
    folder = tmp_path / "c"
    folder.mkdir()
    with pytest.raises(InputError, match=message):
        file.read(written(folder, **files))
