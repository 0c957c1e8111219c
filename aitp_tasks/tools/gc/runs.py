"""The runs below a root: which are finished, which are kept."""

from collections import defaultdict
from dataclasses import dataclass

from aitp_tasks.records import data_files, manifest, versions
from aitp_tasks.records.run import RUNS
from aitp_tasks.storage import ObjectInfo, Storage

_PLAN, _LAST = "/plan.json", "/report/manifest.json"


@dataclass(frozen=True)
class Runs:
    """What is below ``runs/``.

    Attributes:
        plans: all plans, with their tags.
        unfinished: prefixes of the runs that have no report yet.
        kept: prefixes of the finished ones that keep all that they have made.
        others: prefixes of the other finished ones.
        versions: of all lines.
    """

    plans: frozenset[ObjectInfo]
    unfinished: tuple[str, ...]
    kept: tuple[str, ...]
    others: tuple[str, ...]
    versions: tuple[versions.Version, ...]


def plans(storage: Storage) -> frozenset[ObjectInfo]:
    """All plans."""
    return frozenset(info for info in storage.list(f"{RUNS}/") if _is_plan(info.key))


def find(storage: Storage, keep: int) -> Runs:
    """Look through the runs.

    Args:
        storage: where they lie.
        keep: so many of the newest of each line are kept, and that which the next run builds on.
    """
    planned, finished = list[ObjectInfo](), dict[str, float]()
    for info, written in storage.list_dated(f"{RUNS}/"):
        if _is_plan(info.key):
            planned.append(info)
        elif info.key.endswith(_LAST) and info.key.count("/") == 4:
            finished[info.key.removesuffix(_LAST)] = written
    prefixes = [info.key.removesuffix(_PLAN) for info in planned]
    by_line = defaultdict[str, list[str]](list)
    for prefix in sorted(finished.keys() & set(prefixes), key=lambda prefix: finished[prefix]):
        by_line[_line(storage, prefix)].append(prefix)
    lines = storage.folders("datasets/")
    newest = [version.run for line in lines if (version := versions.latest(storage, line)) is not None]
    kept = {prefix for found in by_line.values() for prefix in found[max(len(found) - keep, 0) :]} | set(
        newest
    )
    return Runs(
        plans=frozenset(planned),
        unfinished=tuple(prefix for prefix in prefixes if prefix not in finished),
        kept=tuple(prefix for prefix in prefixes if prefix in finished and prefix in kept),
        others=tuple(prefix for prefix in prefixes if prefix in finished and prefix not in kept),
        versions=tuple(version for line in lines for version in _versions(storage, line)),
    )


def _is_plan(key: str) -> bool:
    return key.endswith(_PLAN) and key.count("/") == 3


def _line(storage: Storage, prefix: str) -> str:
    """The line that a finished run has added to."""
    done = manifest.load(storage, f"{prefix}/assemble/manifest.json")
    return data_files.line(done) if done else ""


def _versions(storage: Storage, line: str) -> list[versions.Version]:
    names = [info.key.split("/") for info in storage.list(f"datasets/{line}/")]
    return [
        versions.load(storage, line, parts[2])
        for parts in names
        if len(parts) == 4 and parts[3] == "version.json"
    ]
