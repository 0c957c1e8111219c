"""Where a pair is on record: in which version, or among what the runs of the line have left out."""

import logging
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pyarrow.compute as pc

from aitp_tasks.errors import InputError
from aitp_tasks.records import data_files, generated, manifest, tables, version_rows
from aitp_tasks.records.manifest import Manifest
from aitp_tasks.records.run import RUNS, parts_with
from aitp_tasks.records.versions import Version
from aitp_tasks.storage import Storage
from aitp_tasks.tools.dataset import leaving
from aitp_tasks.tools.dataset.catalog import Line
from aitp_tasks.tools.dataset.leaving import Left
from aitp_tasks.tools.terminal import printable

log = logging.getLogger(__name__)

_ID = re.compile("[0-9a-f]{8}[0-9a-f-]*")
_SHOWN = 3
_FROM = "from the column pair_id of the dataset, or from the report"
_MADE = "/assemble/manifest.json"


@dataclass(frozen=True)
class Found:
    """A pair, where it was found.

    Attributes:
        pair_id: whole.
        version: the name of the version that holds it; None where none does.
        row: its row in that version; what a run's answers say of it where none does.
        run: prefix of the run that has made it; None where that is not on record.
        left: why it is not in the version that was asked for; None where it is.
    """

    pair_id: str
    version: str | None
    row: dict[str, Any]
    run: str | None
    left: Left | None


def find(storage: Storage, line: str, beginning: str, asked: Version) -> Found:
    """The only pair whose id begins so: of the version that was asked for, of another one, or left out.

    Of other versions, those that it builds on come first, the newest first.

    Raises:
        InputError: the beginning is too short or no id's, or no pair's or several pairs'.
    """
    beginning = beginning.lower()
    if not _ID.fullmatch(beginning):
        raise InputError(
            f"'{printable(beginning)}' is no pair's id: give the first 8 digits or more of one, {_FROM}"
        )
    known = Line.read(storage, line).versions
    for version in _in_order(known, asked):
        if ids := _ids(storage, line, version, beginning, must=version.name == asked.name):
            return _of_version(storage, line, known, _only(ids, beginning), version, asked)
    for run in _runs(storage, line):
        found = _of_run(storage, run, beginning)
        if found is not None:
            return found
    raise InputError(
        f"no pair of {line} has an id that begins with {beginning}, neither in a version nor among those "
        f"that runs have left out: take one {_FROM}"
    )


def _ids(storage: Storage, line: str, version: Version, beginning: str, must: bool) -> list[str]:
    try:
        return version_rows.starting_with(storage, line, version.name, beginning)
    except InputError as error:
        if must:
            raise
        log.warning("%s is not looked at: %s", version.name, error)
        return []


def _only(ids: list[str], beginning: str) -> str:
    if len(ids) > 1:
        raise InputError(
            f"{len(ids)} pairs have ids that begin with {beginning}, among them {', '.join(ids[:_SHOWN])}: "
            "give more digits"
        )
    return ids[0]


def _in_order(known: dict[str, Version], asked: Version) -> Iterator[Version]:
    own = [known[name] for name in reversed(asked.position) if name in known]
    yield from own
    yield from (version for name, version in reversed(known.items()) if name not in asked.position)


def _of_version(
    storage: Storage, line: str, known: dict[str, Version], pair_id: str, version: Version, asked: Version
) -> Found:
    row = version_rows.rows(storage, line, version.name, [pair_id])[pair_id]
    came_with = row.get("version")
    left = None
    if version.name != asked.name:
        left = leaving.why(storage, line, version, asked, {pair_id: came_with})[pair_id]
    made = known.get(came_with) if came_with else None
    return Found(pair_id, version.name, row, made.run if made else None, left)


def _runs(storage: Storage, line: str) -> Iterator[tuple[str, Manifest]]:
    """The runs that have assembled for a line, the newest first."""
    dated = [
        (written, info.key.removesuffix(_MADE))
        for info, written in storage.list_dated(f"{RUNS}/")
        if info.key.endswith(_MADE) and info.key.count("/") == 4
    ]
    for _, prefix in sorted(dated, reverse=True):
        done = manifest.load(storage, f"{prefix}{_MADE}")
        if done is not None and data_files.line(done) == line:
            yield prefix, done


def _of_run(storage: Storage, run: tuple[str, Manifest], beginning: str) -> Found | None:
    """A pair that a run has made and no version holds."""
    prefix, done = run
    answers = _answers(storage, prefix, beginning)
    ids = sorted({row["pair_id"] for row in answers})
    if not ids:
        return None
    pair_id = _only(ids, beginning)
    row = next(row for row in answers if row["pair_id"] == pair_id)
    if not row["kept"]:
        return Found(
            pair_id, None, row, prefix, Left(row["reason"], done.figures["version"], {"stage": "answer"})
        )
    out = leaving.left_out(storage, done, {pair_id: None}).get(pair_id)
    left = Left(out["reason"], done.figures["version"], out) if out else Left(leaving.NOT_ON_RECORD)
    return Found(pair_id, None, row, prefix, left)


def _answers(storage: Storage, prefix: str, beginning: str) -> list[dict[str, Any]]:
    """Answers of a run whose pairs' ids begin so; an id begins with its document's, which tells its part."""
    drawn = manifest.load(storage, f"{prefix}/difference/manifest.json")
    rows: list[dict[str, Any]] = []
    for part in parts_with(drawn.figures, beginning) if drawn else []:
        done = manifest.load(storage, f"{prefix}/{generated.STAGES[-1]}/{part}.json")
        if done is not None and storage.find(done.output("rows")) is not None:
            table = tables.read(storage, done.output("rows"))
            rows += table.filter(pc.starts_with(table["pair_id"], beginning)).to_pylist()
    return rows
