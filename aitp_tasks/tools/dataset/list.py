"""dataset list: the versions of a dataset, each after those that it builds on."""

import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from aitp_tasks.config import RunConfig
from aitp_tasks.errors import InputError
from aitp_tasks.records import pairs, promoted, versions
from aitp_tasks.records.versions import Version
from aitp_tasks.storage import open_storage
from aitp_tasks.tools.dataset import catalog
from aitp_tasks.tools.dataset.catalog import Line
from aitp_tasks.tools.terminal import printable


def execute(config: RunConfig) -> dict[str, Any]:
    """List them, and print them to standard error.

    The ids of all pairs are read where somebody has marked any; else a few small objects a version.

    Raises:
        InputError: ``latest`` names no version, or a mark cannot be read.
    """
    storage, line = open_storage(config.root), config.assemble.dataset
    said = versions.pointed(storage, line, versions.seen(storage, line))
    checkpoint, marks = promoted.named(storage, line), pairs.marks_of(storage, line)
    found = Line.read(storage, line)
    newest = found.versions.get(said.version) if said else None

    def row(version: Version) -> dict[str, Any]:
        try:
            marked: dict[str, int] | None = catalog.marks_in(storage, line, version, marks)
        except InputError as error:
            found.unreadable[version.name] = str(error)
            marked = None
        return {
            "name": version.name,
            "made_at": found.dated[version.name],
            **catalog.counts(storage, version),
            "base": version.ancestors[-1] if version.ancestors else None,
            "run": version.run,
            "latest": version is newest,
            "in_line": newest is not None and version.name in newest.position,
            "rolled_back": said.rolled_back.get(version.name) if said else None,
            "promoted": version.name == checkpoint,
            "marks": marked,
        }

    with ThreadPoolExecutor(storage.concurrency) as pool:
        rows = list(pool.map(row, found.versions.values()))
    result = {
        "stage": "dataset",
        "action": "list",
        "dataset": line,
        "latest": said.version if said else None,
        "latest_is_there": said is None or said.version in found.versions,
        "marks": catalog.counted(marks.values()),
        "versions": rows,
        "unreadable": dict(sorted(found.unreadable.items())),
    }
    sys.stderr.write(render(result))
    return result


def render(result: dict[str, Any]) -> str:
    """The versions as a person reads them."""
    if not result["versions"]:
        lines = [f"{result['dataset']} has no version yet"]
    else:
        width = max(len(row["name"]) for row in result["versions"])
        head = f"{'version':<{width}}  {'made at':<20}  {'rows':>11}  {'pairs':>9}  {'new':>9}"
        lines = [
            f"{head}  {'good':>5}  {'bad':>5}  builds on",
            *(_line(row, width) for row in result["versions"]),
        ]
    if not result["latest_is_there"]:
        lines.append(
            f"latest names {printable(result['latest'])}, which is not there: roll back to one that is"
        )
    lines += [f"{printable(name)}: {printable(why)}" for name, why in result["unreadable"].items()]
    good, bad = result["marks"].values()
    lines.append(f"marks of people, in all: {good:,} good, {bad:,} bad")
    return "\n".join([*lines, ""])


def _line(row: dict[str, Any], width: int) -> str:
    shown = {name: "?" if row[name] is None else f"{row[name]:,}" for name in ("rows", "pairs", "new_pairs")}
    marks = {name: f"{row['marks'][name]:,}" if row["marks"] else "?" for name in ("good", "bad")}
    state = ", ".join(_state(row))
    return (
        f"{row['name']:<{width}}  {row['made_at']:<20}  {shown['rows']:>11}  {shown['pairs']:>9}  "
        f"{shown['new_pairs']:>9}  {marks['good']:>5}  {marks['bad']:>5}  {row['base'] or 'none'}"
        f"{f'  ({state})' if state else ''}"
    )


def _state(row: dict[str, Any]) -> list[str]:
    if row["latest"]:
        state = ["latest"]
    elif row["rolled_back"]:
        state = [f"rolled back at {printable(row['rolled_back'])}"]
    else:
        state = [] if row["in_line"] else ["the latest does not build on it"]
    return [*state, *(["its checkpoint is the latest"] if row["promoted"] else [])]
