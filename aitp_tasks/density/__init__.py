"""density: the vectors of one group become coordinates and a grid.

Reads the vectors of the group's shards and the run's projection. Writes, for
the run, the documents' coordinates in the plane (Parquet) and their weights on
a grid (see ``grid``); grids of all units add to the density of the whole set.
"""

import logging
from typing import Any

import numpy as np
import pyarrow as pa
from safetensors.numpy import load, save

from aitp_tasks import embed, merge, tables, vectors
from aitp_tasks.config import Density
from aitp_tasks.density.grid import SparseGrid
from aitp_tasks.manifest import Ledger, Manifest, Stopwatch
from aitp_tasks.moments import Projection
from aitp_tasks.run import Group, Run
from aitp_tasks.storage import Storage

log = logging.getLogger(__name__)


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


def cell_size(config: Density) -> float:
    """Side of a grid cell, in projected units."""
    return config.bandwidth / config.cells_per_bandwidth


def load_grid(storage: Storage, key: str) -> SparseGrid:
    """A grid that a unit has left."""
    arrays = load(storage.read(key))
    return SparseGrid(float(arrays["step"][0]), arrays["cells"], arrays["weights"], int(arrays["count"][0]))


def _project(run: Run, group: Group, watch: Stopwatch) -> Manifest:
    projection = merge.load_projection(run)
    tables_done = [
        _coordinates(run.storage, projection, shard.figures, embed.chunk_keys(shard))
        for shard in embed.shard_manifests(run, group)
    ]
    coordinates = pa.concat_tables(tables_done)
    points = np.stack([coordinates["x"].to_numpy(), coordinates["y"].to_numpy()], axis=1)
    grid = SparseGrid.of(points, cell_size(run.config.density))
    log.info("density label=%s points=%d cells=%d", group.label, grid.count, len(grid.cells))
    grid_key = run.key("density", f"{group.digest}-grid.safetensors")
    run.storage.write(grid_key, _grid_bytes(grid))
    return run.commit(
        Manifest(
            stage="density",
            label=group.label,
            ledger=Ledger(rows_in=grid.count, rows_out=grid.count),
            outputs={
                "coordinates": tables.write(run.storage, run.key("density", group.digest), coordinates),
                "grid": grid_key,
            },
            figures={"cells": len(grid.cells)},
            seconds=watch.seconds(),
            peak_memory_mb=watch.peak_memory_mb(),
        ),
        group.digest,
    )


def _coordinates(
    storage: Storage, projection: Projection, shard: dict[str, Any], chunks: list[str]
) -> pa.Table:
    """doc_id, source, shard, etag, row, x, y of one shard's rows."""
    parts = [
        _table(found, projection.apply(found.values))
        for found in (vectors.read(storage, key) for key in chunks)
    ]
    table = pa.concat_tables(parts) if parts else _table(None, np.empty((0, 2)))
    for name in ("source", "shard", "etag"):
        table = table.append_column(
            name, pa.array([shard[name]] * len(table), pa.string()).dictionary_encode()
        )
    return table.unify_dictionaries()


def _table(found: vectors.Vectors | None, points: Any) -> pa.Table:
    return pa.table(
        {
            "doc_id": pa.array(found.doc_ids if found else [], pa.string()),
            "row": pa.array(found.rows if found else [], pa.int64()),
            "x": pa.array(points[:, 0], pa.float64()),
            "y": pa.array(points[:, 1], pa.float64()),
        }
    )


def _grid_bytes(grid: SparseGrid) -> bytes:
    data: bytes = save(
        {
            "step": np.array([grid.step]),
            "cells": grid.cells,
            "weights": grid.weights,
            "count": np.array([grid.count]),
        }
    )
    return data
