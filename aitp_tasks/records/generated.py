"""What rewrite, score and answer have left: a row for each question or answer, kept or not."""

from typing import Any

import pyarrow as pa

from aitp_tasks.records import tables
from aitp_tasks.records.manifest import Manifest
from aitp_tasks.records.run import Run

#: The prompt stages, in their order.
STAGES = ("rewrite", "score", "answer")


def part_manifest(run: Run, stage: str, part: str) -> Manifest:
    """The manifest of one part of a stage.

    Raises:
        InputError: the part has not been done.
    """
    return run.require_manifest(stage, part, what=f"{stage} of {part}")


def table(run: Run, stage: str, part: str, columns: list[str] | None = None) -> pa.Table:
    """The rows of one part of a stage, those that a gate has left out among them.

    Raises:
        InputError: the part has not been done.
    """
    return tables.read(run.storage, part_manifest(run, stage, part).output("rows"), columns)


def rows(run: Run, stage: str, part: str) -> list[dict[str, Any]]:
    """The same as dictionaries."""
    found: list[dict[str, Any]] = table(run, stage, part).to_pylist()
    return found


def kept_rows(run: Run, stage: str, part: str) -> list[dict[str, Any]]:
    """Those that no gate has left out."""
    return [row for row in rows(run, stage, part) if row["kept"]]
