"""difference: the documents that the SFT set hardly covers, and a sample of them.

Reads the grids and coordinates of all density units; of the input shards and their
vectors, what the sampled rows need. Writes one Parquet object per part of the sample (a
part is a slice of the hash space, so documents that come or go leave the others
where they are), each document with its text and the SFT examples nearest to it; the
rates of all shards, both densities on a grid for the report, and the figures. Passes
over the coordinates shard by shard: what is held does not grow with the corpus, but
for a threshold that is given as a share.
"""

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from safetensors.numpy import save

from aitp_tasks.config import Criterion
from aitp_tasks.densities.field import Field, Window
from aitp_tasks.densities.geometry import ROLES, Geometry
from aitp_tasks.densities.grid import Points, SparseGrid
from aitp_tasks.errors import InputError
from aitp_tasks.records import tables, versions
from aitp_tasks.records.manifest import Ledger, Manifest, Stopwatch
from aitp_tasks.records.run import Run, part_name, part_of
from aitp_tasks.selection import regions
from aitp_tasks.selection import sample as selection
from aitp_tasks.selection.nearest import Nearest
from aitp_tasks.selection.tally import Tally, largest_error
from aitp_tasks.selection.texts import Texts
from aitp_tasks.stages import density, merge
from aitp_tasks.vector_index import nearness as neighbours

log = logging.getLogger(__name__)

#: Cells per axis of the densities that the report draws.
_PICTURE_CELLS = 800


def execute(run: Run, unit: None = None) -> dict[str, Any]:
    """Select the difference set and draw the sample.

    Raises:
        InputError: an earlier stage has not been run.
        ObjectChangedError: a shard was replaced after it was embedded.
    """
    watch = Stopwatch()
    done = run.find_manifest("difference") or _select(run, watch)
    return {
        "stage": "difference",
        "run": run.uri,
        "label": run.config.dump,
        **{name: done.figures[name] for name in ("documents", "below_tau", "selected", "parts")},
        "seconds": watch.seconds(),
    }


def densities_at(run: Run, points: Points) -> dict[str, selection.Scores]:
    """Both densities of a run, by role, float64 (n,) each at points (n, k).

    Raises:
        InputError: an earlier stage has not been run.
    """
    fields = _densities(run, merge.load_geometry(run)).now
    return {role: field.at(points) for role, field in fields.items()}


def _select(run: Run, watch: Stopwatch) -> Manifest:
    settings = run.config.difference
    geometry = merge.load_geometry(run)
    densities = _densities(run, geometry)
    fields = densities.now
    tau = selection.threshold(settings, lambda: (scores for _, _, scores in _scored(run, fields)))
    by_similarity = settings.criterion is Criterion.KNN
    tally, sample = Tally(tau, by_similarity), selection.Sample(settings, geometry.bandwidths["corpus"])
    for facts, table, scores in _scored(run, fields):
        below = tally.add(facts, table, scores)
        sample.add(table.filter(pa.array(below)))
    drawn = sample.documents()
    if not tally.below:
        log.warning(
            "no document is below tau=%g; documents below other thresholds: %s", tau, tally.figures()["sweep"]
        )
    parts = -(-len(drawn) // settings.documents_per_part)
    outputs = {
        "grids": run.key("difference", "grids.safetensors"),
        "corpus_grid": run.key("difference", "corpus-grid.safetensors"),
        "shards": tables.write(run.storage, run.key("difference", "shards"), tally.shard_table(drawn)),
    }
    run.storage.write(outputs["grids"], _picture(densities))
    run.storage.write(outputs["corpus_grid"], fields["corpus"].grid.to_bytes())
    nearest = Nearest(run, drawn)
    outputs |= _write_parts(run, drawn, nearest, parts)
    figures = tally.figures() | {
        "selected": len(drawn),
        "parts": parts,
        "criterion": settings.criterion.value,
        "tau": tau,
        "bandwidth": geometry.bandwidths,
        "cells_per_bandwidth": round(min(geometry.bandwidths.values()) / geometry.step, 3),
        "density_error": _measured_errors(run, fields, tally.probes()),
        "sources": tally.sources(drawn),
        "nearest_sft": nearest.figures(),
        **_coverage(densities, tau if settings.criterion is Criterion.DENSITY_RATIO else 1.0),
        **_drift(run, densities),
    }
    log.info("difference documents=%d below_tau=%d selected=%d", tally.documents, tally.below, len(drawn))
    return run.commit(
        Manifest(
            stage="difference",
            label=run.config.dump,
            ledger=_ledger(fields["corpus"].grid.count, tally, drawn),
            outputs=outputs,
            figures=figures,
            seconds=watch.seconds(),
            peak_memory_mb=watch.peak_memory_mb(),
        )
    )


@dataclass(frozen=True)
class _Densities:
    """All over one window.

    Attributes:
        now: of corpus and SFT side.
        sft_alone: of the SFT set without the pairs of earlier versions; None where there are none.
        corpus_before: of the corpus that the geometry was fitted to; None where that is this one.
    """

    now: dict[str, Field]
    sft_alone: Field | None
    corpus_before: Field | None


def _densities(run: Run, geometry: Geometry) -> _Densities:
    grids = {role: SparseGrid.empty(geometry.components, geometry.step) for role in (*ROLES, "pairs")}
    pairs = versions.source(run.config.assemble.dataset)
    for group in run.plan.groups:
        name = "pairs" if group.source == pairs else group.role
        grids[name] = grids[name] + density.load_grid(run, group)
    both = grids["sft"] + grids["pairs"]
    kept = run.plan.geometry
    before = SparseGrid.from_bytes(run.storage.read(kept.corpus_grid)) if kept else None
    everything = [grids["corpus"], both, *([before] if before else [])]
    window = Window.around(everything, max(geometry.bandwidths.values()))

    def field(role: str, grid: SparseGrid) -> Field:
        return Field.of(grid, geometry.bandwidths[role], window)

    return _Densities(
        {"corpus": field("corpus", grids["corpus"]), "sft": field("sft", both)},
        field("sft", grids["sft"]) if grids["pairs"].count else None,
        field("corpus", before) if before else None,
    )


def _coverage(densities: _Densities, tau: float) -> dict[str, Any]:
    """Share of the corpus that is not covered, with and without the pairs of earlier versions."""
    corpus, sft = densities.now["corpus"], densities.now["sft"]
    now = regions.uncovered(corpus, sft, tau)
    alone = densities.sft_alone
    return {
        "uncovered": now,
        "uncovered_by_sft_alone": now if alone is None else regions.uncovered(corpus, alone, tau),
    }


def _drift(run: Run, densities: _Densities) -> dict[str, Any]:
    """How far the corpus has moved from that which the geometry was fitted to."""
    before, now = densities.corpus_before, densities.now["corpus"]
    if before is None:
        return {"drift": None, "refit_due": False}
    drift = {
        "outside": regions.outside(now, before),
        "explained_loss": run.require_manifest("merge").figures["explained_loss"],
        "distance": regions.distance(now, before),
    }
    due = max(drift.values()) > run.config.density.max_drift
    if due:
        log.warning("a refit is due: the corpus has drifted from the line's projection: %s", drift)
    return {"drift": drift, "refit_due": due}


def _coordinates(
    run: Run, role: str, columns: list[str] | None = None
) -> Iterator[tuple[dict[str, str], pa.Table]]:
    """Facts and coordinates of each projected shard of a role."""
    for group in run.plan.groups:
        if group.role == role:
            for shard in density.shard_manifests(run, group):
                facts = {name: str(shard.figures[name]) for name in ("source", "shard", "etag")}
                yield facts, tables.read(run.storage, shard.output("coordinates"), columns)


def _scored(
    run: Run, fields: dict[str, Field]
) -> Iterator[tuple[dict[str, str], pa.Table, selection.Scores]]:
    """Facts, documents with their densities, and scores of each corpus shard."""
    criterion = run.config.difference.criterion
    documents = _with_similarities(run) if criterion is Criterion.KNN else _coordinates(run, "corpus")
    for facts, table in documents:
        points = density.points(table)
        found = {role: fields[role].at(points) for role in ROLES}
        columns = {
            "p_corpus": found["corpus"],
            "p_sft": found["sft"],
            "ratio": selection.score(Criterion.DENSITY_RATIO, found["corpus"], found["sft"]),
        }
        for name, values in columns.items():
            table = table.append_column(name, pa.array(values, pa.float64()))
        for name in ("dump", "shard", "etag"):
            value = facts["source" if name == "dump" else name]
            table = table.append_column(name, pa.array([value] * len(table), pa.string()).dictionary_encode())
        if "source" not in table.column_names:
            table = table.append_column("source", table["dump"])
        if criterion is Criterion.KNN:
            yield facts, table, table[neighbours.COLUMN].to_numpy()
        else:
            yield facts, table, selection.score(criterion, found["corpus"], found["sft"])


def _with_similarities(run: Run) -> Iterator[tuple[dict[str, str], pa.Table]]:
    """Facts and coordinates of each corpus shard, with the nearness to the SFT set.

    Raises:
        InputError: a shard's nearness was deleted, or is of other documents.
    """
    groups = [group for group in run.plan.groups if group.role == "corpus"]
    keys = (key for group in groups for key in density.keys(run, group, "nearness"))
    for (facts, table), key in zip(_coordinates(run, "corpus"), keys, strict=True):
        assert key is not None
        near = tables.read(run.storage, key)
        if not all(near[name].equals(table[name]) for name in ("doc_id", "row")):
            raise InputError(
                f"{run.storage.uri(key)} is of other documents than those of {facts['shard']}: "
                "delete it and the run's density manifests, then run `aitp density` again"
            )
        yield facts, table.append_column(neighbours.COLUMN, near[neighbours.COLUMN])


def _measured_errors(run: Run, fields: dict[str, Field], probes: Points) -> dict[str, float]:
    """Largest relative error of both densities at some corpus documents."""
    return {
        role: largest_error(
            fields[role],
            probes,
            (
                density.points(table)
                for _, table in _coordinates(run, role, list(density.AXES[: probes.shape[1]]))
            ),
        )
        for role in ROLES
    }


def _ledger(documents: int, tally: Tally, drawn: pa.Table) -> Ledger:
    """Where every document that was projected went."""
    repeated = int(np.sum(drawn["copies"].to_numpy())) - len(drawn)
    return Ledger(
        rows_in=documents,
        rows_out=len(drawn),
        rejected={
            "covered": tally.documents - tally.below,
            "repeated_text": repeated,
            "not_sampled": tally.below - repeated - len(drawn),
        },
    )


def _write_parts(run: Run, drawn: pa.Table, nearest: Nearest, parts: int) -> dict[str, str]:
    places = np.array([part_of(doc_id, parts) for doc_id in drawn["doc_id"].to_pylist()], np.int64)
    outputs = {}
    with Texts(run, drawn) as texts:
        for unit in range(parts):
            positions = np.flatnonzero(places == unit)
            part = drawn.take(positions)
            for name, column in (nearest.take(positions) | {"text": texts.take(positions)}).items():
                part = part.append_column(name, column)
            outputs[part_name(unit, parts)] = tables.write(
                run.storage, run.key("difference", part_name(unit, parts)), part.unify_dictionaries()
            )
    return outputs


def _picture(densities: _Densities) -> bytes:
    """The densities as safetensors, over the first two axes: rows are y, columns are x."""
    fields = dict(densities.now)
    if densities.sft_alone is not None:
        fields["sft_alone"] = densities.sft_alone
    values = {name: _in_plane(field) for name, field in fields.items()}
    axes = fields["corpus"].axes
    x = axes[0]
    y = axes[1] if len(axes) > 1 else np.zeros(1)
    thin_x, thin_y = (-(-len(axis) // _PICTURE_CELLS) for axis in (x, y))
    data: bytes = save(
        {
            **{
                f"p_{name}": np.ascontiguousarray(found.T[::thin_y, ::thin_x].astype(np.float32))
                for name, found in values.items()
            },
            "x": np.ascontiguousarray(x[::thin_x]),
            "y": np.ascontiguousarray(y[::thin_y]),
        }
    )
    return data


def _in_plane(field: Field) -> NDArray[np.float64]:
    """A density float64 (nx, ny): the third axis summed up, a missing second one of length 1."""
    if field.values.ndim == 3:
        summed: NDArray[np.float64] = field.values.sum(axis=2) * field.grid.step
        return summed
    return field.values if field.values.ndim == 2 else field.values[:, None]
