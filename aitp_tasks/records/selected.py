"""What difference and allocate have left: the sample, in parts."""

from typing import Any

import pyarrow as pa

from aitp_tasks.records import tables
from aitp_tasks.records.manifest import Manifest
from aitp_tasks.records.run import Run, parts_with


def table(run: Run, part: str, columns: list[str] | None = None) -> pa.Table:
    """The documents of one part.

    Raises:
        InputError: difference, or allocate where a pilot goes before it, has not been run.
    """
    return tables.read(run.storage, _made_by(run, part).output(part), columns)


def documents(run: Run, part: str, columns: list[str] | None = None) -> list[dict[str, Any]]:
    """The same as rows."""
    rows: list[dict[str, Any]] = table(run, part, columns).to_pylist()
    return rows


def is_allotted(run: Run) -> bool:
    """Whether all documents are drawn: no pilot is under way.

    Raises:
        InputError: difference has not been run.
    """
    return not run.pilot_parts or run.find_manifest("allocate") is not None


def told(run: Run) -> Manifest:
    """The difference set's manifest; its figures tell of all parts, once all documents are drawn.

    Raises:
        InputError: difference has not been run.
    """
    difference = run.require_manifest("difference")
    allocate = run.find_manifest("allocate")
    if allocate is None:
        return difference
    return difference.model_copy(
        update={
            "figures": difference.figures | allocate.figures,
            "outputs": difference.outputs | allocate.outputs,
        }
    )


def part_with(run: Run, doc_id: str) -> str | None:
    """The part that holds a document; None where none that is written does.

    Raises:
        InputError: difference has not been run.
    """
    written = run.parts if is_allotted(run) else run.pilot_parts
    for part in parts_with(run.require_manifest("difference").figures, doc_id):
        if part in written and doc_id in table(run, part, ["doc_id"])[0].to_pylist():
            return part
    return None


def _made_by(run: Run, part: str) -> Manifest:
    """The manifest that names a part."""
    return run.require_manifest("difference" if part in _first(run) else "allocate")


def _first(run: Run) -> list[str]:
    """The parts that difference writes."""
    return run.pilot_parts or run.parts
