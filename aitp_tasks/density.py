"""density: the vectors of one group become coordinates, and a grid of their densities.

Reads the vectors of the group's shards and the run's geometry; where the
configuration names a source column, also that column of the shards. Writes, per
shard, the documents' coordinates in the order of their ids and their weights on
the grid (see ``kde.grid``) under ``density/<geometry digest>/``, where any run of
the same geometry finds them; and for the run the sum of the group's grids.
"""

import logging
from typing import Any

import numpy as np
import pyarrow as pa

from aitp_tasks import digest, embed, manifest, merge, shards, tables, vectors
from aitp_tasks.geometry import Geometry
from aitp_tasks.kde.grid import Points, SparseGrid
from aitp_tasks.manifest import Ledger, Manifest, Stopwatch
from aitp_tasks.run import Group, Run
from aitp_tasks.storage import ObjectInfo

log = logging.getLogger(__name__)

#: Names of the coordinates' columns.
AXES = ("x", "y", "z")


def execute(run: Run, unit: int) -> dict[str, Any]:
    """Project one group.

    Raises:
        InputError: merge has not been run, or the group was not embedded.
    """
    watch = Stopwatch()
    group = run.group(unit)
    done = run.find_manifest("density", group.digest) or _project(run, group, watch)
    assert done.ledger is not None
    return {
        "stage": "density",
        "run": run.uri,
        "label": group.label,
        "rows_out": done.ledger.rows_out,
        "seconds": watch.seconds(),
    }


def shard_manifests(run: Run, group: Group) -> list[Manifest]:
    """The manifests of a group's projected shards.

    Raises:
        InputError: the group has not been projected.
    """
    unit = run.require_manifest("density", group.digest, what=f"density of {group.label}")
    keys = [key for name, key in unit.outputs.items() if name.startswith("shard-")]
    return manifest.load_all(run.storage, keys, f"clear the density task of {group.label}")


def load_grid(run: Run, group: Group) -> SparseGrid:
    """The sum of the grids of a group's shards.

    Raises:
        InputError: the group has not been projected.
    """
    unit = run.require_manifest("density", group.digest, what=f"density of {group.label}")
    return SparseGrid.from_bytes(run.storage.read(unit.output("grid")))


def points(table: pa.Table) -> Points:
    """Coordinates float64 (n, k) of a table of documents."""
    found: Points = np.stack([table[axis].to_numpy() for axis in AXES if axis in table.column_names], axis=1)
    return found


def _project(run: Run, group: Group, watch: Stopwatch) -> Manifest:
    geometry = merge.load_geometry(run)
    total = SparseGrid.empty(geometry.components, geometry.step)
    outputs: dict[str, str] = {}
    for number, embedded in enumerate(embed.shard_manifests(run, group)):
        outputs[f"shard-{number:06d}"], grid = _shard(run, group.role, geometry, embedded)
        total = total + grid
    outputs["grid"] = run.key("density", f"{group.digest}-grid.safetensors")
    log.info("density label=%s points=%d cells=%d", group.label, total.count, len(total.cells))
    run.storage.write(outputs["grid"], total.to_bytes())
    return run.commit(
        Manifest(
            stage="density",
            label=group.label,
            ledger=Ledger(rows_in=embed.vector_count(run, group), rows_out=total.count),
            outputs=outputs,
            figures={"cells": len(total.cells)},
            seconds=watch.seconds(),
            peak_memory_mb=watch.peak_memory_mb(),
        ),
        group.digest,
    )


def _shard(run: Run, role: str, geometry: Geometry, embedded: Manifest) -> tuple[str, SparseGrid]:
    """Project one shard, or find that it was done before; its manifest's key and its grid."""
    watch = Stopwatch()
    source_column = run.config.difference.source_column if role == "corpus" else None
    chunks = embed.chunk_keys(embedded)
    facts = {name: str(embedded.figures[name]) for name in ("source", "shard", "etag")}
    identity = digest.of_value([role, facts, chunks, source_column])
    prefix = f"density/{geometry.digest}/{identity}"
    key = f"{prefix}.json"
    done = manifest.load(run.storage, key)
    if done is not None:
        return key, SparseGrid.from_bytes(run.storage.read(done.output("grid")))
    assert embedded.ledger is not None
    table = _coordinates(run, role, geometry, chunks)
    if source_column is not None:
        table = _with_sources(run, table, facts, source_column)
    grid = SparseGrid.of(points(table), geometry.step)
    outputs = {
        "coordinates": tables.write(run.storage, f"{prefix}/coordinates", table),
        "grid": f"{prefix}/grid.safetensors",
    }
    run.storage.write_if_absent(outputs["grid"], grid.to_bytes())
    made = Manifest(
        stage="density",
        label=facts["shard"],
        ledger=Ledger(rows_in=embedded.ledger.rows_out, rows_out=grid.count),
        outputs=outputs,
        figures={**facts, "cells": len(grid.cells)},
        seconds=watch.seconds(),
        peak_memory_mb=watch.peak_memory_mb(),
    )
    manifest.commit(run.storage, key, made)
    return key, grid


def _coordinates(run: Run, role: str, geometry: Geometry, chunks: list[str]) -> pa.Table:
    """doc_id, row and coordinates of one shard's rows, in the order of ids and rows."""
    projection = geometry.projections[role]
    ids, rows, found = [], [np.empty(0, np.int64)], [np.empty((0, geometry.components))]
    for some in (vectors.read(run.storage, key) for key in chunks):
        ids += some.doc_ids
        rows.append(some.rows)
        found.append(projection.apply(some.values))
    columns = zip(AXES, np.concatenate(found).T, strict=False)
    table = pa.table(
        {
            "doc_id": pa.array(ids, pa.string()),
            "row": pa.array(np.concatenate(rows), pa.int64()),
            **{axis: pa.array(values) for axis, values in columns},
        }
    )
    return table.sort_by([("doc_id", "ascending"), ("row", "ascending")])


def _with_sources(run: Run, table: pa.Table, facts: dict[str, str], column: str) -> pa.Table:
    info = ObjectInfo(facts["shard"], run.storage.stat(facts["shard"]).size, facts["etag"])
    sources = pa.array(shards.Corpus(run.storage, info, run.config).sources(column), pa.string())
    return table.append_column("source", sources.take(table["row"].combine_chunks()).dictionary_encode())
