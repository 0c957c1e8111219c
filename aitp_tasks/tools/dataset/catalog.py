"""What is known of the versions of a line."""

import re
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from aitp_tasks.errors import InputError
from aitp_tasks.records import manifest, pairs, version_rows, versions
from aitp_tasks.records.manifest import Manifest
from aitp_tasks.records.versions import Version
from aitp_tasks.storage import Storage
from aitp_tasks.tools.terminal import printable

#: What is told where nothing was written down.
NOT_ON_RECORD = "not on record"
_NAME = re.compile("[A-Za-z0-9][A-Za-z0-9._+-]*")
_KINDS = {"sft_rows": "sft", "new_pairs": "new_pairs", "earlier_pairs": "earlier_pairs"}
#: The same in the figures of an earlier release, which has written no ``contents``.
_FIGURES = {"sft_rows": "sft_examples", "new_pairs": "pairs", "earlier_pairs": "earlier_pairs"}


@dataclass(frozen=True)
class Line:
    """The versions of a line.

    Attributes:
        versions: by name, each after those that it builds on, else the oldest first.
        dated: when each was made, UTC; of an earlier release, when that was written down.
        unreadable: why others cannot be read, by their names.
    """

    versions: dict[str, Version]
    dated: dict[str, str]
    unreadable: dict[str, str]

    @classmethod
    def read(cls, storage: Storage, line: str) -> "Line":
        """Read them all; what has no ``version.json`` is none."""
        written: dict[str, float] = {}
        for info, at in storage.list_dated(f"datasets/{line}/"):
            parts = info.key.split("/")
            if len(parts) == 4 and parts[3] == "version.json":
                written[parts[2]] = at

        def load(name: str) -> Version | InputError:
            try:
                return versions.load(storage, line, name)
            except InputError as error:
                return error

        with ThreadPoolExecutor(storage.concurrency) as pool:
            read = dict(zip(written, pool.map(load, written), strict=True))
        found = {name: one for name, one in read.items() if isinstance(one, Version)}
        dated = {
            name: one.contents.made_at if one.contents else _utc(written[name]) for name, one in found.items()
        }
        order = sorted(found, key=lambda name: (dated[name], name))
        return cls(
            {name: found[name] for name in _bases_first(found, order)},
            dated,
            {name: str(one) for name, one in read.items() if isinstance(one, InputError)},
        )


def _bases_first(found: Mapping[str, Version], order: Iterable[str]) -> list[str]:
    """Names in their order, but each after those that it builds on."""
    placed: dict[str, None] = {}
    for name in order:
        placed |= dict.fromkeys(other for other in found[name].position if other in found)
    return list(placed)


def named(storage: Storage, line: str, name: str) -> Version:
    """A version by its name, or the one that ``latest`` names.

    Raises:
        InputError: there is none of that name.
    """
    if name == versions.LATEST:
        found = versions.latest(storage, line)
        if found is None:
            raise InputError(
                f"{storage.uri(versions.source(line))} has no version yet: run `aitp assemble` first"
            )
        return found
    require_name(storage, line, name)
    return versions.load(storage, line, name)


def require_name(storage: Storage, line: str, name: str) -> None:
    """Make sure that there is a version of that name.

    Raises:
        InputError: there is none.
    """
    if not _NAME.fullmatch(name):
        raise InputError(f"'{printable(name)}' is no version's name: take one from `aitp dataset list`")
    if storage.find(f"{versions.prefix(line, name)}/version.json") is None:
        raise InputError(
            f"{storage.uri(versions.prefix(line, name))} is no version of {line}: "
            "take one from `aitp dataset list`"
        )


def assembled(storage: Storage, version: Version) -> Manifest | None:
    """What the run that has made a version has told of it; None where the run was deleted."""
    return manifest.load(storage, f"{version.run}/assemble/manifest.json")


def counts(storage: Storage, version: Version) -> dict[str, int | None]:
    """Rows of a version: ``rows``, ``sft_rows``, ``pairs``, ``new_pairs``, ``earlier_pairs``.

    None where a version of an earlier release does not say it, and its run was deleted.
    """
    found: dict[str, int | None]
    if version.contents is not None:
        kinds = version.contents.by_kind
        found = {name: kinds[kind].rows for name, kind in _KINDS.items()}
    else:
        done = assembled(storage, version)
        found = {name: done.figures.get(figure) if done else None for name, figure in _FIGURES.items()}
    sft, new, earlier = found.values()
    held = None if new is None or earlier is None else new + earlier
    return {"rows": None if sft is None or held is None else sft + held, "pairs": held, **found}


def marks_in(
    storage: Storage, line: str, version: Version, marks: Mapping[str, pairs.Mark]
) -> dict[str, int]:
    """How many pairs of a version people have marked, by the mark.

    Raises:
        InputError: a file of the version is missing or damaged.
    """
    # Mostly there are none, and then no file is opened.
    ids = version_rows.pair_ids(storage, line, version.name) if marks else iter(())
    return counted(marks[pair_id] for pair_id in ids if pair_id in marks)


def counted(marks: Iterable[pairs.Mark]) -> dict[str, int]:
    """Marks by what they say."""
    found = Counter(one.mark for one in marks)
    return {"good": found["good"], "bad": found["bad"]}


def told(value: Any) -> str:
    """A value for a person: whole numbers in groups of three."""
    if value is None:
        return NOT_ON_RECORD
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else printable(str(value))


def now() -> str:
    """The time, UTC."""
    return _utc(time.time())


def _utc(seconds: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))
