"""Why a version does not hold pairs that another one holds: what is on record of it, and nothing else."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from aitp_tasks.records import tables, versions
from aitp_tasks.records.manifest import Manifest
from aitp_tasks.records.versions import Version
from aitp_tasks.selection.removals import NEAR_DUPLICATE
from aitp_tasks.storage import Storage
from aitp_tasks.tools.dataset import catalog

#: Why a pair is not there that came with a version which the other one does not build on.
NOT_BUILT_ON = "its_version_is_not_built_on"
NOT_ON_RECORD = "not_on_record"
#: Outputs of assemble with pairs that are not in the version; the second has one reason for all.
_OUTPUTS = {"left_out": None, "near_duplicates": NEAR_DUPLICATE}
_TOLD = ("reason", "similarity", "nearest_shard", "nearest_row", "nearest_pair_id", "nearest_doc_id", "like")


@dataclass(frozen=True)
class Left:
    """Why a pair is not in a version.

    Attributes:
        reason: as assemble calls it, or one of this module's.
        version: the one that it left with, or whose run did not let it in; None where that is not on record.
        told: what else is on record: what it is like, and how much.
    """

    reason: str
    version: str | None = None
    told: Mapping[str, Any] | None = None


def why(
    storage: Storage, line: str, before: Version, after: Version, pairs: Mapping[str, str | None]
) -> dict[str, Left]:
    """Why each of some pairs of a version is not in another.

    Args:
        storage: where the line lies.
        line: the dataset.
        before: the version that holds them.
        after: the one that does not.
        pairs: the version that each came with, by its id.
    """
    found: dict[str, Left] = {}
    for name in after.position:
        # What both build on has let them stay.
        if name not in before.position and pairs:
            done = catalog.assembled(storage, versions.load(storage, line, name))
            found |= {
                key: Left(row["reason"], name, row) for key, row in left_out(storage, done, pairs).items()
            }
    return {key: found.get(key, _otherwise(after, came_with)) for key, came_with in pairs.items()}


def left_out(storage: Storage, done: Manifest | None, ids: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Of some pairs, those that a run has left out: why, and what it is like, by their ids."""
    found: dict[str, dict[str, Any]] = {}
    for output, reason in _OUTPUTS.items():
        key = done.outputs.get(output) if done else None
        if key is None or storage.find(key) is None:
            continue
        table = tables.read(storage, key)
        rows = table.filter(pc.is_in(table["pair_id"], pa.array(sorted(ids), pa.string()))).to_pylist()
        for row in rows:
            told = {name: row[name] for name in _TOLD if row.get(name) is not None}
            found[row["pair_id"]] = {**told, "question": row["question"], "reason": reason or row["reason"]}
    return found


def _otherwise(after: Version, came_with: str | None) -> Left:
    """Where no run says why."""
    if came_with is not None and came_with not in after.position:
        return Left(NOT_BUILT_ON, None, {"came_with": came_with})
    return Left(NOT_ON_RECORD)
