"""The rewritten pairs of a line: those that a version holds, and which of them somebody has decided against.

A pair that was marked bad, whose prompt was withdrawn, whose document is held out by now or
whose text holds marks that are to be dropped, leaves when the next run is planned: what is
left is one of that run's inputs, so that the place where such a pair lay counts as uncovered
again.
"""

import logging
from collections.abc import Collection, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Literal

import pyarrow as pa
import pyarrow.compute as pc
from pydantic import BaseModel, ConfigDict

from aitp_tasks.config import Marks
from aitp_tasks.errors import InputError
from aitp_tasks.records import marks, tables
from aitp_tasks.records.held_out import HELD_OUT, is_held_out
from aitp_tasks.storage import Storage

log = logging.getLogger(__name__)

MARKED, WITHDRAWN = "marked_bad", "prompt_withdrawn"


class Mark(BaseModel):
    """What somebody thinks of a pair."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    mark: Literal["good", "bad"]
    note: str = ""


def mark(storage: Storage, line: str, pair_id: str, mark: Mark) -> str:
    """Write down what somebody thinks of a pair; the key."""
    key = f"{_marks(line)}{pair_id}.json"
    storage.write(key, mark.model_dump_json().encode())
    return key


def marked(storage: Storage, line: str) -> list[str]:
    """Ids of the pairs of a line that have a mark."""
    prefix = _marks(line)
    return [info.key.removeprefix(prefix).removesuffix(".json") for info in storage.list(prefix)]


def marks_of(storage: Storage, line: str) -> dict[str, Mark]:
    """What people think of the pairs of a line, by the pairs' ids, in their order.

    Raises:
        InputError: a mark cannot be read.
    """

    def read(key: str) -> Mark:
        try:
            return Mark.model_validate_json(storage.read(key))
        except ValueError:
            raise InputError(
                f'{storage.uri(key)} is no mark: write {{"mark": "bad"}} into it, or delete it'
            ) from None

    ids = marked(storage, line)
    with ThreadPoolExecutor(storage.concurrency) as pool:
        found = pool.map(read, [f"{_marks(line)}{pair_id}.json" for pair_id in ids])
        return dict(zip(ids, found, strict=True))


def marked_bad(storage: Storage, line: str) -> tuple[str, ...]:
    """Ids of the pairs of a line that are marked bad, in their order.

    Raises:
        InputError: a mark cannot be read.
    """
    return tuple(key for key, found in marks_of(storage, line).items() if found.mark == "bad")


def read(storage: Storage, keys: Iterable[str]) -> pa.Table | None:
    """All pairs of some objects, with the columns of the newest; None where there are none."""
    found = [_dated(tables.read(storage, key), key) for key in keys]
    return pa.concat_tables(found, promote_options="permissive") if found else None


def ids(storage: Storage, keys: Iterable[str]) -> set[str]:
    """Ids of all pairs of some objects."""
    return {pair_id for key in keys for pair_id in tables.read(storage, key, ["pair_id"])[0].to_pylist()}


def only(rows: pa.Table | None, wanted: Collection[str]) -> list[dict[str, Any]]:
    """Those of some pairs that are wanted, by their ids."""
    if rows is None:
        return []
    found: list[dict[str, Any]] = rows.filter(
        pc.is_in(rows["pair_id"], pa.array(list(wanted), pa.string()))
    ).to_pylist()
    return found


def _dated(rows: pa.Table, key: str) -> pa.Table:
    """Pairs with the version that they came with: those of an earlier release lie below it."""
    if "version" in rows.column_names:
        return rows
    return rows.append_column("version", pa.array([key.split("/")[2]] * len(rows), pa.string()))


#: What ``against`` looks at, but for texts.
DECIDING = ("pair_id", "doc_id", "prompts")


def against(
    rows: pa.Table,
    bad: Collection[str],
    withdrawn: Collection[str],
    held_out: float = 0.0,
    marked: Marks = Marks.KEEP,
) -> dict[str, str]:
    """Why some of the pairs leave or do not come in, by their id.

    Args:
        rows: with the columns of ``DECIDING``, ``prompts`` where their release has written it; and with
            ``messages`` where marks are dropped.
        bad: ids of pairs that are marked bad.
        withdrawn: versions of prompts, as ``assemble.withdrawn_prompts`` names them.
        held_out: share of the documents whose pairs are never trained on.
        marked: what is done with pairs that have marks of chat templates in their texts.
    """
    ids = rows["pair_id"].to_pylist()
    prompts = rows["prompts"].to_pylist() if "prompts" in rows.column_names else [None] * len(ids)
    unknown = sum(used is None for used in prompts)
    if withdrawn and unknown:
        log.warning("pairs=%d do not say by which versions of prompts they were made: they stay", unknown)
    refused, taken_back = set(bad), set(withdrawn)
    reasons = {key: WITHDRAWN for key, used in zip(ids, prompts, strict=True) if taken_back & set(used or ())}
    if marked is Marks.DROP:
        # One by one: all texts at once would be as large as all pairs.
        texts = (turns.as_py() for turns in rows["messages"])
        reasons |= {
            key: marks.HOLDS_MARKS
            for key, turns in zip(ids, texts, strict=True)
            if marks.of_conversation(turns)
        }
    reasons |= {key: MARKED for key in ids if key in refused}
    documents = zip(ids, rows["doc_id"].to_pylist(), strict=True) if held_out else ()
    return reasons | {key: HELD_OUT for key, document in documents if is_held_out(document, held_out)}


def without(storage: Storage, line: str, rows: pa.Table, reasons: Mapping[str, str]) -> list[str]:
    """Write the pairs without some of them; the keys, none where no pair is left."""
    left = rows.filter(pa.array([key not in reasons for key in rows["pair_id"].to_pylist()], pa.bool_()))
    return [tables.write(storage, f"datasets/{line}/remaining/pairs", left)] if len(left) else []


def _marks(line: str) -> str:
    return f"datasets/{line}/marks/"
