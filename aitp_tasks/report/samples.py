"""Pairs that the report shows: read from the dataset itself, and joined with their documents.

They are of the first parts, which are slices of the hash space and therefore a fair sample.
"""

import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from aitp_tasks.records import conversations, data_files, generated, selected
from aitp_tasks.records.manifest import Manifest
from aitp_tasks.records.run import Run

_COLUMNS = ("pair_id", "doc_id", "quality", "difficulty")
_ROWS_PER_BATCH = 1024


def read(run: Run, assemble: Manifest, most: int) -> list[dict[str, Any]]:
    """Some of the pairs that came in with a run, one for each document: those of the smallest ids.

    Each has its document's columns, the scores, ``pair_id``, ``question`` and ``answer``.

    Args:
        run: that has made them.
        assemble: its manifest.
        most: so many, or as many as there are.
    """
    if not assemble.figures["pairs"]:
        return []
    with tempfile.TemporaryDirectory(prefix="aitp-report-") as folder:
        rows = Path(folder) / "data"
        data_files.download(run, assemble, rows)
        first = _first_of_documents(rows, assemble.figures["version"])
        documents = _documents(run, first, most)
        wanted = [first[document] for document in list(documents)[:most]]
        pairs = _wanted(rows, wanted)
    return [documents[pairs[key]["doc_id"]] | pairs[key] for key in wanted]


def _first_of_documents(rows: Path, version: str) -> dict[str, str]:
    """The smallest pair id of each document that pairs of a version were written from."""
    first: dict[str, str] = {}
    for pair in _pairs(rows, version, ("pair_id", "doc_id")):
        document, key = pair["doc_id"], pair["pair_id"]
        first[document] = min(key, first.get(document, key))
    return first


def _documents(run: Run, first: dict[str, str], most: int) -> dict[str, dict[str, Any]]:
    """The documents of some pairs, by their id: of each part those of the smallest pair ids."""
    found: dict[str, dict[str, Any]] = {}
    for part in generated.parts(run, generated.STAGES[-1]):
        here = [row for row in selected.documents(run, part) if row["doc_id"] in first]
        found |= {row["doc_id"]: row for row in sorted(here, key=lambda row: first[row["doc_id"]])}
        if len(found) >= most:
            break
    return found


def _pairs(rows: Path, version: str, columns: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Columns of the pairs that came with a version."""
    for table in _tables(rows, ["origin", "version", *columns]):
        ours = pc.equal(table["origin"], "aitp")
        if "version" in table.column_names:
            # The files of an earlier release do not say it.
            ours = pc.and_(ours, pc.equal(table["version"], version))
        yield from table.filter(ours).select(columns).to_pylist()


def _wanted(rows: Path, wanted: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Some pairs, by their ids."""
    found, ids = {}, pa.array(wanted, pa.string())
    for table in _tables(rows, ["messages", *_COLUMNS]):
        for row in table.filter(pc.is_in(table["pair_id"], ids)).to_pylist():
            (question, answer), _ = conversations.read(row.pop("messages"))
            found[row["pair_id"]] = row | {"question": question["content"], "answer": answer["content"]}
    return found


def _tables(rows: Path, columns: Sequence[str]) -> Iterator[pa.Table]:
    for path in data_files.paths(rows):
        with pq.ParquetFile(path) as file:
            there = [name for name in columns if name in file.schema_arrow.names]
            for batch in file.iter_batches(_ROWS_PER_BATCH, columns=there):
                yield pa.Table.from_batches([batch])
