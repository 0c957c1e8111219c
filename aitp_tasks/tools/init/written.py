"""The configuration as a file: YAML with the settings' titles, written at once and never over another."""

import contextlib
import errno
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import BaseModel

from aitp_tasks.config import RunConfig
from aitp_tasks.errors import InputError


def require_new(output: Path) -> None:
    """Make sure that a file can be written there, and none is.

    Raises:
        InputError: there is one, or no folder for it.
    """
    if os.path.lexists(output):
        raise _exists(output)
    if not output.parent.is_dir():
        raise InputError(
            f"--output {output} is in no folder that exists: make {output.parent}, or name another"
        )


def text(values: Mapping[str, Any], head: Sequence[str], reasons: Mapping[str, str]) -> str:
    """YAML of a configuration's values, in the order of its settings.

    Args:
        values: as ``RunConfig`` takes them.
        head: lines of the comment at the top.
        reasons: of some settings, by their dotted names, why they are what they are.
    """
    lines = [*(f"# {line}" for line in head), *_settings(values, RunConfig, "", reasons)]
    return "\n".join(lines) + "\n"


def write(output: Path, content: str) -> None:
    """Write a configuration that is read back as one; it is there as a whole or not at all.

    Raises:
        InputError: another file is there by now, nothing can be written there, or it is no configuration.
    """
    aside = output.with_name(f".{output.name}.{os.getpid()}.unfinished")
    try:
        with os.fdopen(os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666), "wb") as stream:
            stream.write(content.encode())
            stream.flush()
            os.fsync(stream.fileno())
        RunConfig.load(aside)
        # A link is refused where a rename would replace.
        os.link(aside, output)
    except FileExistsError:
        raise _exists(output) from None
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise InputError(
            f"--output {output} cannot be written ({error.strerror}): name a file on another place"
        ) from None
    finally:
        with contextlib.suppress(OSError):
            aside.unlink()


def _settings(
    values: Mapping[str, Any], model: type[BaseModel], prefix: str, reasons: Mapping[str, str]
) -> Iterator[str]:
    indent = "  " * prefix.count(".")
    for name, field in model.model_fields.items():
        if name not in values:
            continue
        value, path = values[name], f"{prefix}{name}"
        if path in reasons:
            yield f"{indent}# {reasons[path]}"
        section = _section(field.annotation)
        if section is None or not value:
            yield f"{indent}{name}: {_flow(value)}  # {_title(field.annotation, field.title)}"
        else:
            yield f"{indent}{name}:"
            yield from _settings(value, section, f"{path}.", reasons)


def _section(kind: Any) -> type[BaseModel] | None:
    kinds = (kind, *get_args(kind))
    return next((one for one in kinds if isinstance(one, type) and issubclass(one, BaseModel)), None)


def _title(kind: Any, title: str | None) -> str:
    return title or str(getattr(kind, "__name__", ""))


def _flow(value: Any) -> str:
    said: str = yaml.safe_dump(value, default_flow_style=True, width=10_000)
    return said.removesuffix("...\n").strip()


def _exists(output: Path) -> InputError:
    return InputError(
        f"--output {output} is there, and init overwrites nothing: name another, or take it away"
    )
