"""What difference has left: the sample, in parts."""

from typing import Any

import pyarrow as pa

from aitp_tasks.records import tables
from aitp_tasks.records.run import Run


def table(run: Run, part: str, columns: list[str] | None = None) -> pa.Table:
    """The documents of one part.

    Raises:
        InputError: difference has not been run.
    """
    return tables.read(run.storage, run.require_manifest("difference").output(part), columns)


def documents(run: Run, part: str, columns: list[str] | None = None) -> list[dict[str, Any]]:
    """The same as rows."""
    rows: list[dict[str, Any]] = table(run, part, columns).to_pylist()
    return rows
