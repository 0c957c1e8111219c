"""density: the vectors of one group become coordinates, and a grid of their densities.

Reads the vectors of the group's shards and the run's geometry; where the
configuration names a source column, also that column of the shards. Writes, per
shard, the documents' coordinates in the order of their ids and their weights on
the grid (see ``densities.grid``) under ``density/<geometry digest>/``, where any run of
the same geometry finds them; and for the run the sum of the group's grids.

Where merge has trained a quantiser, a corpus shard is also encoded for the index,
so that the ``index`` stage passes over codes and not over vectors; with the
criterion knn, its documents' nearness to the SFT set is computed, with gaussian the
log-ratios of both sets' Gaussians. Whatever of a shard
is missing is made in one pass over its vectors.
"""

import logging
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from aitp_tasks.config import Criterion
from aitp_tasks.densities.discriminant import LOG_RATIO, Discriminant
from aitp_tasks.densities.geometry import Geometry
from aitp_tasks.densities.grid import SparseGrid
from aitp_tasks.inputs import parts, shards
from aitp_tasks.records import damage, digest, embedded, indexed, manifest, projected, tables, vectors
from aitp_tasks.records.manifest import Ledger, Manifest, Stopwatch
from aitp_tasks.records.plan import Group
from aitp_tasks.records.run import Run
from aitp_tasks.records.vectors import Values, Vectors
from aitp_tasks.storage import ObjectInfo
from aitp_tasks.vector_index import nearness, quantiser
from aitp_tasks.vector_index.library import Quantiser
from aitp_tasks.vector_index.lists import Encoder
from aitp_tasks.vector_index.opened import OpenIndex

log = logging.getLogger(__name__)


class _Maker(Protocol):
    """Makes something in one pass over a shard's vectors."""

    def add(self, found: Vectors) -> None:
        """Take in the next vectors."""


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


def _project(run: Run, group: Group, watch: Stopwatch) -> Manifest:
    geometry = projected.geometry(run)
    total = SparseGrid.empty(geometry.components, geometry.step)
    outputs: dict[str, str] = {}
    with ExitStack() as stack:
        tools = _tools(run, group.role, geometry, stack)
        for number, embedding in enumerate(embedded.shards(run, group)):
            shard = _Shard(run, group.role, tools, embedding)
            total = total + shard.make()
            outputs |= {f"{name}-{number:06d}": key for name, key in shard.outputs.items()}
    outputs["grid"] = run.key("density", f"{group.digest}-grid.safetensors")
    log.info("density label=%s points=%d cells=%d", group.label, total.count, len(total.cells))
    run.storage.write(outputs["grid"], total.to_bytes())
    return run.commit(
        Manifest(
            stage="density",
            label=group.label,
            ledger=Ledger(rows_in=embedded.count(run, group), rows_out=total.count),
            outputs=outputs,
            figures={"cells": len(total.cells)},
            seconds=watch.seconds(),
            peak_memory_mb=watch.peak_memory_mb(),
        ),
        group.digest,
    )


@dataclass(frozen=True)
class _Tools:
    """What a group's shards are projected, encoded and compared with; None where that is not wanted."""

    geometry: Geometry
    quantiser: Quantiser | None = None
    sft: OpenIndex | None = None
    discriminant: Discriminant | None = None


def _tools(run: Run, role: str, geometry: Geometry, stack: ExitStack) -> _Tools:
    """What the shards of a role are to be made with; ``stack`` closes it."""
    if role != "corpus":
        return _Tools(geometry)
    trained, criterion = indexed.quantiser_key(run), run.config.difference.criterion
    sft = discriminant = None
    if criterion is Criterion.KNN:
        sft = stack.enter_context(OpenIndex(run.storage, indexed.keys(run, "sft"), "sft"))
    elif criterion is Criterion.GAUSSIAN:
        discriminant = projected.discriminant(run)
    codes = None if trained is None else quantiser.load(run.storage, trained)
    return _Tools(geometry, codes, sft, discriminant)


class _Shard:
    """Makes what is missing of one shard.

    Attributes:
        outputs: keys of what is there then: ``shard`` is the manifest.
    """

    def __init__(self, run: Run, role: str, tools: _Tools, embedding: Manifest) -> None:
        self._watch = Stopwatch()
        self._run = run
        self._tools = tools
        self._embedding = embedding
        self._projection = tools.geometry.projections[role]
        self._source_column = run.config.difference.source_column if role == "corpus" else None
        self._chunks = embedded.chunk_keys(embedding)
        self._facts = {name: str(embedding.figures[name]) for name in ("source", "shard", "etag")}
        identity = digest.of_value([role, self._facts, self._chunks, self._source_column])
        self._prefix = f"density/{projected.identity(tools.geometry)}/{identity}"
        self.outputs = {"shard": f"{self._prefix}.json"} | self._index_outputs()

    def make(self) -> SparseGrid:
        """Make it; the shard's grid."""
        storage = self._run.storage
        done = manifest.load(storage, self.outputs["shard"])
        projector = encoder = near = log_ratios = None
        if done is None:
            axes = projected.AXES[: self._tools.geometry.components]
            projector = _Collector(axes, self._projection.apply)
        if self._tools.quantiser is not None and storage.find(self.outputs["encoded"]) is None:
            encoder = Encoder(self._tools.quantiser)
        if self._tools.sft is not None and storage.find(self.outputs["nearness"]) is None:
            neighbours = self._run.config.difference.neighbours
            cosines = partial(nearness.mean_cosines, self._tools.sft, neighbours)
            near = _Collector([nearness.COLUMN], cosines)
        if self._tools.discriminant is not None and storage.find(self.outputs["log_ratios"]) is None:
            log_ratios = _Collector([LOG_RATIO], self._tools.discriminant.at)
        makers = (projector, encoder, near, log_ratios)
        self._pass_over([maker for maker in makers if maker is not None])
        if encoder is not None:
            storage.write_if_absent(self.outputs["encoded"], encoder.finish().to_bytes())
        if near is not None:
            storage.write_if_absent(self.outputs["nearness"], tables.to_bytes(near.finish()))
        if log_ratios is not None:
            storage.write_if_absent(self.outputs["log_ratios"], tables.to_bytes(log_ratios.finish()))
        if projector is not None:
            return self._commit(projector.finish())
        assert done is not None
        return damage.read(storage, done.output("grid"), SparseGrid.from_bytes)

    def _index_outputs(self) -> dict[str, str]:
        """Keys of what does not depend on the geometry."""
        prefix, found = f"index/{self._run.plan.encoder_digest}", {}
        if self._tools.quantiser is not None:
            content = digest.of_value([self._tools.quantiser.digest, self._chunks])
            found["encoded"] = f"{prefix}/encoded/{content}.safetensors"
        if self._tools.sft is not None:
            sft = self._run.require_manifest("merge").output("sft_index")
            content = digest.of_value([sft, self._run.config.difference.neighbours, self._chunks])
            found["nearness"] = f"{prefix}/nearness/{content}.parquet"
        if self._tools.discriminant is not None:
            gaussians = self._run.require_manifest("merge").output("discriminant")
            content = digest.of_value([gaussians, self._chunks])
            found["log_ratios"] = f"density/log-ratios/{content}.parquet"
        return found

    def _pass_over(self, makers: Sequence[_Maker]) -> None:
        for key in self._chunks if makers else []:
            found = vectors.read(self._run.storage, key)
            for maker in makers:
                maker.add(found)

    def _commit(self, table: pa.Table) -> SparseGrid:
        """Write coordinates and grid, and commit their manifest."""
        storage = self._run.storage
        if self._source_column is not None:
            table = self._with_sources(table, self._source_column)
        grid = SparseGrid.of(projected.points(table), self._tools.geometry.step)
        outputs = {
            "coordinates": tables.write(storage, f"{self._prefix}/coordinates", table),
            "grid": f"{self._prefix}/grid.safetensors",
        }
        storage.write_if_absent(outputs["grid"], grid.to_bytes())
        assert self._embedding.ledger is not None
        made = Manifest(
            stage="density",
            label=self._facts["shard"],
            ledger=Ledger(rows_in=self._embedding.ledger.rows_out, rows_out=grid.count),
            outputs=outputs,
            figures={**self._facts, "cells": len(grid.cells)},
            seconds=self._watch.seconds(),
            peak_memory_mb=self._watch.peak_memory_mb(),
        )
        manifest.commit(storage, self.outputs["shard"], made)
        return grid

    def _with_sources(self, table: pa.Table, column: str) -> pa.Table:
        storage, key = self._run.storage, self._facts["shard"]
        info = ObjectInfo(key, parts.stat(storage, key).size, self._facts["etag"])
        sources = pa.array(
            shards.Corpus(storage, info, self._run.config.text_columns).sources(column), pa.string()
        )
        return table.append_column("source", sources.take(table["row"].combine_chunks()).dictionary_encode())


class _Collector:
    """Collects what a function makes of a shard's vectors: a table in the order of ids and rows."""

    def __init__(self, columns: Sequence[str], make: Callable[[Values], NDArray[np.float64]]) -> None:
        """``make`` gives float64 (n,) or (n, k) of vectors float16 (n, d), for one column or for k."""
        self._columns = columns
        self._make = make
        self._ids: list[str] = []
        self._rows = [np.empty(0, np.int64)]
        self._found = [np.empty((0, len(columns)))]

    def add(self, found: Vectors) -> None:
        """Take in the next vectors."""
        if not len(found):
            return
        self._ids += found.doc_ids
        self._rows.append(found.rows)
        self._found.append(self._make(found.values).reshape(len(found), -1))

    def finish(self) -> pa.Table:
        """doc_id, row and the columns."""
        columns = zip(self._columns, np.concatenate(self._found).T, strict=True)
        table = pa.table(
            {
                "doc_id": pa.array(self._ids, pa.string()),
                "row": pa.array(np.concatenate(self._rows), pa.int64()),
                **{name: pa.array(values) for name, values in columns},
            }
        )
        return table.sort_by([("doc_id", "ascending"), ("row", "ascending")])
