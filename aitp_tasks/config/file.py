"""A configuration file as plain values: YAML on top of what it extends, paths resolved, overrides applied."""

import difflib
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from aitp_tasks.errors import InputError

#: What stands before the host in a URL: often a password, so no message repeats it.
_USER_PART = re.compile(r"://[^\s'\"]*@")

_REFERENCE = "docs/reference/configuration.md"
#: Names the file that another one is put on top of.
_EXTENDS = "extends"


def read(path: Path, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """The values of a YAML file, on top of those of the file that it extends, overrides applied.

    Args:
        path: of the file.
        overrides: ``section.key=value``, the value in YAML.

    Raises:
        InputError: a file is missing or no YAML mapping, files extend each other in a circle, or an override
            is no such pair.
    """
    values = _layered(path, ())
    for override in overrides:
        _apply_override(values, override)
    return values


def _layered(path: Path, above: tuple[Path, ...]) -> dict[str, Any]:
    """A file's values on top of those that it extends.

    Args:
        path: of the file.
        above: the files that extend it, the first one first.
    """
    here = path.resolve()
    if here in above:
        circle = " extends ".join(str(one) for one in (*above[above.index(here) :], here))
        raise InputError(f"configuration {circle}: take {_EXTENDS} out of one of them")
    values = _alone(path)
    if _EXTENDS not in values:
        return values
    extended = values.pop(_EXTENDS)
    if not isinstance(extended, str) or not extended:
        raise InputError(f"configuration {path}: {_EXTENDS}={extended!r} is no file: name one")
    return _on_top(_layered(here.parent / extended, (*above, here)), values)


def _on_top(below: dict[str, Any], values: dict[str, Any]) -> dict[str, Any]:
    """Sections setting by setting; any other value takes the place of the one below."""
    merged = dict(below)
    for name, value in values.items():
        known = merged.get(name)
        both = isinstance(known, dict) and isinstance(value, dict)
        merged[name] = _on_top(known, value) if both else value  # type: ignore[arg-type]
    return merged


def _alone(path: Path) -> dict[str, Any]:
    """The values of one file."""
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"configuration {path} cannot be read ({error.strerror}): name an existing file")
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"configuration {path} is not YAML: {_one_line(error)}")
    if not isinstance(values, dict):
        raise InputError(f"configuration {path} is not a mapping of settings: write `name: value`")
    _resolve_paths(values, path.resolve().parent)
    return values


def _resolve_paths(values: dict[str, Any], base: Path) -> None:
    for key, value in values.items():
        if isinstance(value, dict):
            _resolve_paths(value, base)
        elif isinstance(value, str) and re.match(r"\.{1,2}/", value):
            values[key] = str((base / value).resolve())


def _apply_override(values: dict[str, Any], override: str) -> None:
    path, separator, text = override.partition("=")
    if not separator or not path:
        raise InputError(f"override {masked(override)!r} is not of the form section.key=value: correct it")
    *sections, key = path.split(".")
    for section in sections:
        values = values.setdefault(section, {})
        if not isinstance(values, dict):
            raise InputError(f"override {masked(override)!r}: {section!r} is a value, not a section")
    try:
        values[key] = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise InputError(f"override {masked(override)!r}: the value is not YAML: {_one_line(error)}")


def described(error: ValidationError, model: type[BaseModel]) -> str:
    """All wrong settings of a configuration, with their values, in one line.

    Args:
        error: what pydantic says.
        model: that was to be made; where a setting does not exist, its nearest one is named.
    """
    known = _names(model)
    return "; ".join(_described(item, known) for item in error.errors(include_url=False))


def _described(item: ErrorDetails, known: Sequence[str]) -> str:
    # Between the names stand pydantic's own of the kinds that a value may be of.
    setting = ".".join(str(part) for part in item["loc"] if str(part).isidentifier() or isinstance(part, int))
    if item["type"] == "missing":
        return f"{setting} is missing"
    said = item["msg"]
    if item["type"] == "extra_forbidden":
        near = _nearest(setting, known)
        hint = f"the nearest is {near}; " if near else ""
        said = f"there is no such setting: {hint}correct it or take it out ({_REFERENCE} has all)"
    # Of the whole configuration, the value is all of it.
    return f"{setting}={masked(repr(item['input']))}: {said}" if setting else said


def _names(model: type[BaseModel], section: str = "") -> list[str]:
    """Dotted names of all settings and sections of a model."""
    found = []
    for name, field in model.model_fields.items():
        found.append(section + name)
        kinds = (field.annotation, *get_args(field.annotation))
        for inner in (kind for kind in kinds if isinstance(kind, type) and issubclass(kind, BaseModel)):
            found += _names(inner, f"{section}{name}.")
    return found


def _nearest(setting: str, known: Sequence[str]) -> str | None:
    """The setting that may be meant: one of the same name in another section, or of one like it."""
    moved = [name for name in known if name.rpartition(".")[2] == setting.rpartition(".")[2]]
    return next(iter(moved or difflib.get_close_matches(setting, known, n=1, cutoff=0.75)), None)


def _one_line(error: Exception) -> str:
    return masked(" ".join(str(error).split()))


def masked(text: str) -> str:
    """A text without what the URLs in it say of a user."""
    return _USER_PART.sub("://…@", text)
