"""What lies in the storage: which dump and SFT set a configuration takes, and where its texts are."""

import logging
import re
from collections.abc import Sequence
from typing import Any

from aitp_tasks.config import RunConfig
from aitp_tasks.config.run import DUMP_SEPARATOR
from aitp_tasks.errors import InputError
from aitp_tasks.inputs import agreement, footers, formats, listing
from aitp_tasks.storage import Storage
from aitp_tasks.tools.terminal import printable

log = logging.getLogger(__name__)

#: What a configuration can name; others are told of and left alone.
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_DATE = re.compile(r"\d{4}-?\d{2}(-?\d{2})?")
#: How published corpora call the column of their texts, the most common first.
_TEXTS = ("text", "content", "raw_content", "document", "body")
#: Shards whose columns are looked at, the first ones of each dump.
_LOOKED_AT = 5


def dump(storage: Storage, wanted: str | None) -> str:
    """The dump that is wanted, or the newest one.

    Where all folders are named by a date, the newest is the last of them; else the one in which something
    was written last.

    Raises:
        InputError: there is none, or not the one that is wanted.
    """
    there = _folders(storage, "corpus")
    if wanted is not None:
        for name in wanted.split(DUMP_SEPARATOR):
            _require(storage, "corpus", name, there)
        return wanted
    if not there:
        raise _nothing(storage, "corpus", "dump")
    dated = all(_DATE.match(name) for name in there)
    newest = max(there, key=lambda name: name if dated else (there[name], name))
    if len(there) > 1:
        by = "by their names" if dated else "by the time of their objects"
        log.info(
            "dump=%s is the newest of %d, %s: %s; --dump names another",
            newest,
            len(there),
            by,
            _listed(there),
        )
    return newest


def sft(storage: Storage, wanted: str | None) -> str:
    """The SFT set that is wanted, or the only one.

    Raises:
        InputError: there is none, or not the one that is wanted, or there are several.
    """
    there = _folders(storage, "sft")
    if wanted is not None:
        return _require(storage, "sft", wanted, there)
    if not there:
        raise _nothing(storage, "sft", "SFT set")
    if len(there) > 1:
        raise InputError(
            f"{storage.uri('sft/')} holds {len(there)} SFT sets, {_listed(there)}: name one by --sft"
        )
    return next(iter(there))


def text_columns(storage: Storage, values: dict[str, Any], wanted: Sequence[str]) -> list[str]:
    """The columns that are wanted, or the one by which corpora call their texts, if the dump has it.

    Args:
        values: of the configuration so far.
        wanted: paths of columns, if any.

    Raises:
        InputError: the dump's shards have no such column.
    """
    tries = [list(wanted)] if wanted else [[name] for name in _TEXTS]
    problems = [_problems(storage, values | {"text_columns": names}) for names in tries]
    for names, problem in zip(tries, problems, strict=True):
        if not problem:
            return names
    raise InputError(f"{agreement.told(problems[0])}; --text-column names it")


def _problems(storage: Storage, values: dict[str, Any]) -> list[str]:
    config = RunConfig.model_validate(values)
    found: list[str] = []
    for name in config.dumps:
        shards = listing.read(storage, "corpus", name).shards[:_LOOKED_AT]
        found += agreement.problems(storage, "corpus", shards, footers.look(storage, shards), config)
    return found


def _folders(storage: Storage, role: str) -> dict[str, float]:
    """Folders with shards below a role's, each with the time at which something was written last."""
    there: dict[str, float] = {}
    others: dict[str, None] = {}
    for info, written in storage.list_dated(f"{role}/"):
        _, name, *path = info.key.split("/")
        hidden = any(part.startswith(("_", ".")) for part in (name, *path))
        if not path or hidden or formats.of(info.key) is None:
            continue
        if _NAME.fullmatch(name):
            there[name] = max(written, there.get(name, 0.0))
        else:
            others.setdefault(printable(name, 80))
    if others:
        log.warning(
            "%s holds folders whose names no configuration can have (letters, digits, dots, _ and -): %s",
            *(storage.uri(f"{role}/"), _listed(others)),
        )
    return there


def _require(storage: Storage, role: str, name: str, there: dict[str, float]) -> str:
    if not _NAME.fullmatch(name):
        raise InputError(
            f"{role}/{printable(name, 80)}/ has a name that no configuration can have (letters, digits, "
            "dots, _ and -): give the folder another"
        )
    if name not in there:
        others = f"name one of {_listed(there)}" if there else f"upload shards to it ({formats.READ})"
        raise InputError(f"{storage.uri(f'{role}/{name}/')} holds no shards: {others}")
    return name


def _nothing(storage: Storage, role: str, what: str) -> InputError:
    return InputError(
        f"{storage.uri(f'{role}/')} holds no {what}: upload shards to {storage.uri(f'{role}/<name>/')} "
        f"({formats.READ})"
    )


def _listed(names: dict[str, Any]) -> str:
    return listing.shortened(sorted(names))
