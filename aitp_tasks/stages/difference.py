"""difference: the documents that the SFT set hardly covers, and a sample of them.

Reads the grids and coordinates of all density units; of the input shards and their
vectors, what the sampled rows need. Writes one Parquet object per part of the sample (a
part is a slice of the hash space, so documents that come or go leave the others
where they are), each document with its text and the SFT examples nearest to it; the
rates of all shards, both densities on a grid for the report, and the figures. Passes
over the coordinates shard by shard: what is held does not grow with the corpus, but
for a threshold that is given as a share.

With ``difference.allocation: yield`` the documents of each region follow what earlier nights of
the line have told of it. Where they have told nothing, only a pilot is written, one part of each
region, and ``allocate`` writes the others when that is answered: how many there will be is
settled here, which ones is not.
"""

import logging
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from aitp_tasks.config import Allocation, Criterion, Quality
from aitp_tasks.dataset import budget
from aitp_tasks.densities.field import FLOOR
from aitp_tasks.densities.geometry import ROLES, Geometry
from aitp_tasks.densities.grid import Points
from aitp_tasks.densities.partition import Partition
from aitp_tasks.errors import InputError
from aitp_tasks.forecast import parts as part_sizes
from aitp_tasks.records import embedded, indexed, projected, tables, versions
from aitp_tasks.records.manifest import Ledger, Manifest, Stopwatch
from aitp_tasks.records.run import Run
from aitp_tasks.selection import agreement, criteria, drawing, race, yields
from aitp_tasks.selection.coverage import Coverage
from aitp_tasks.selection.drawing import Parts, Pool
from aitp_tasks.selection.fit import Fit
from aitp_tasks.selection.sampled import BY_NIGHTS, EVEN, Sampled
from aitp_tasks.selection.tally import Errors, Tally, measured_errors
from aitp_tasks.vector_index import nearness
from aitp_tasks.vector_index.opened import OpenIndex

log = logging.getLogger(__name__)


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
        # Not there in a manifest of an earlier release.
        "pilot_parts": done.figures.get("pilot_parts", 0),
        "allocation": done.figures.get("allocation", EVEN),
        "seconds": watch.seconds(),
    }


def _select(run: Run, watch: Stopwatch) -> Manifest:
    geometry = projected.geometry(run)
    coverage = Coverage.of_run(run, geometry)
    settings = run.config.difference
    threshold = criteria.threshold(settings, lambda: (found[1:] for found in drawing.scored(run, coverage)))
    wanted = _wanted(run, coverage, threshold)
    pool = Pool(run, geometry, coverage, threshold, wanted.crowd)
    tally, found, sampled = _draw(pool, wanted, part_sizes.settled(run).documents)
    _warn(tally, threshold, wanted)
    errors = _require_precision(run, _measured_errors(run, coverage, tally.probes()))
    with OpenIndex(run.storage, indexed.keys(run, "sft"), "sft") as index:
        parts = Parts(run, sampled.written, index, sampled.partition)
        agreement = _agreement(run, geometry, coverage, index, tally.share)
    outputs = _write_figures(run, coverage, tally, sampled.written) | parts.write(
        "difference", sampled.parts()
    )
    if len(found.unfit) and not sampled.is_pilot:
        outputs["unfit"] = tables.write(run.storage, run.key("difference", "unfit"), found.unfit)
    log.info(
        "difference documents=%d below_tau=%d selected=%d allocation=%s",
        *(tally.documents, tally.below, sampled.selected, sampled.allocation),
    )
    return run.commit(
        Manifest(
            stage="difference",
            label=run.config.dump,
            ledger=_ledger(coverage.now["corpus"].grid.count, tally, found, wanted, sampled),
            outputs=outputs,
            figures={
                **tally.figures(),
                **sampled.figures(),
                "criterion": settings.criterion.value,
                "tau": threshold.tau,
                "last_at_tau": threshold.last,
                "budget": wanted.budget,
                "crowd": wanted.crowd if wanted.crowd < np.inf else None,
                "is_short": wanted.is_short,
                **({"looked_at": found.looked_at} if settings.quality is not Quality.NONE else {}),
                "sources": tally.sources(sampled.written),
                "nearest_sft": parts.nearest(),
                "agreement": agreement,
                "density_error": {role: error.relative for role, error in errors.items()},
                "density_error_below_floor": {role: error.below_floor for role, error in errors.items()},
                **_density_figures(run, geometry, coverage, threshold.tau),
            },
            seconds=watch.seconds(),
            peak_memory_mb=watch.peak_memory_mb(),
        )
    )


@dataclass(frozen=True)
class _Wanted:
    """Which documents are worth rewriting.

    Attributes:
        documents: at most so many.
        crowd: of a document in no smaller one, no pair would win a place.
        budget: how that follows, for the figures.
        is_short: whether there are too few places for all that might be drawn.
    """

    documents: int
    crowd: float
    budget: dict[str, Any]
    is_short: bool = False


def _wanted(run: Run, coverage: Coverage, threshold: criteria.Threshold) -> _Wanted:
    """No more documents than their pairs can find places in the dataset."""
    settings, assemble = run.config.difference, run.config.assemble
    in_use = {f"{name}@{prompt.version}" for name, prompt in run.plan.prompts.items()}
    if withdrawn := sorted(in_use & set(assemble.withdrawn_prompts)):
        log.warning("no document is drawn: %s is withdrawn, and still in use", ", ".join(withdrawn))
        return _Wanted(0, np.inf, {"withdrawn": withdrawn}, is_short=True)
    examples = budget.trained_on(embedded.sft_examples(run), run.config.evaluate.held_out)
    pairs = embedded.earlier_pairs(run)
    room = budget.room(examples, assemble.max_rewritten_share)
    if room is None:
        return _Wanted(settings.max_documents, np.inf, {"room": None, "earlier_pairs": pairs})
    measured = run.plan.base.measured if run.plan.base else versions.Yield()
    places, crowd = room - pairs, float(np.inf)
    if places <= 0:
        own = np.sort(coverage.crowds().among(projected.pair_points(run)))
        below = _documents_below(run, coverage, threshold, own)
        per_document = budget.pairs_per_document(measured)
        places, crowd = race.winnable(own, below, per_document, max(len(own) - room, 0))
    documents = budget.documents(places, measured)
    figures = {
        "room": room,
        "earlier_pairs": pairs,
        "places": places,
        "pairs_per_document": round(budget.pairs_per_document(measured), 4),
        "documents": documents,
    }
    log.info(
        "difference room=%d earlier_pairs=%d places=%d documents_wanted=%d", room, pairs, places, documents
    )
    is_short = documents < settings.max_documents or crowd < np.inf
    return _Wanted(min(documents, settings.max_documents), crowd, figures, is_short)


def _documents_below(
    run: Run, coverage: Coverage, threshold: criteria.Threshold, own: NDArray[np.float64]
) -> NDArray[np.int64]:
    """How many of the documents below tau lie in a smaller crowd than each of some; int64 (m,)."""
    counts = np.zeros(len(own), np.int64)
    for _, table, scores in drawing.scored(run, coverage):
        below = table.filter(pa.array(threshold.below(table, scores)))
        found = np.sort(coverage.crowds().at(projected.points(below), coverage.now["sft"]))
        counts += np.searchsorted(found, own)
    return counts


def _draw(pool: Pool, wanted: _Wanted, per_part: int) -> tuple[Tally, Fit, Sampled]:
    """Count all documents, and draw the sample of those that may be drawn; what of it is written now."""
    settings, known = pool.run.config.difference, yields.earlier(pool.run.plan)
    if settings.allocation is Allocation.YIELD and known is not None and any(known.documents):
        tally, found = pool.draw_allotted(wanted.documents, known, (0,) * settings.regions)
        partition, selected = Partition.told(known.cuts), len(found.drawn)
        return tally, found, Sampled(found.drawn, partition, BY_NIGHTS, selected, per_part)
    tally, found = pool.draw(wanted.documents)
    cell = pool.geometry.bandwidths["corpus"]
    return tally, found, Sampled.of(found.drawn, settings, cell, known, per_part)


def _warn(tally: Tally, threshold: criteria.Threshold, wanted: _Wanted) -> None:
    if not tally.below:
        sweep = tally.figures()["sweep"]
        log.warning("no document is below tau=%g; below other thresholds: %s", threshold.tau, sweep)
    elif not wanted.documents:
        log.warning("no document is drawn: the dataset has no place that a pair of one could win")
    if threshold.last is not None:
        log.warning("documents tie at tau=%g: their hashes decide which are selected", threshold.tau)


def _write_figures(run: Run, coverage: Coverage, tally: Tally, drawn: pa.Table) -> dict[str, str]:
    """The rates of all shards, both densities for the report, and the corpus's grid for later versions."""
    outputs = {
        "grids": run.key("difference", "grids.safetensors"),
        "corpus_grid": run.key("difference", "corpus-grid.safetensors"),
        "shards": tables.write(run.storage, run.key("difference", "shards"), tally.shard_table(drawn)),
    }
    run.storage.write(outputs["grids"], coverage.picture())
    run.storage.write(outputs["corpus_grid"], coverage.now["corpus"].grid.to_bytes())
    return outputs


def _ledger(documents: int, tally: Tally, found: Fit, wanted: _Wanted, sampled: Sampled) -> Ledger:
    """Where every document that was projected went."""
    if sampled.is_pilot:
        repeated = drawing.repeats(sampled.written)
        left = tally.below - repeated - len(sampled.written)
        rejected = {"repeated_text": repeated, drawing.LEFT: left}
    else:
        rejected = drawing.not_drawn(found, tally.below, wanted.is_short)
    return Ledger(
        rows_in=documents,
        rows_out=len(sampled.written),
        rejected={"covered": tally.documents - tally.below, **rejected},
    )


def _density_figures(run: Run, geometry: Geometry, coverage: Coverage, tau: float) -> dict[str, Any]:
    """How the densities were estimated; coverage, and drift of the corpus."""
    criterion = run.config.difference.criterion
    return {
        "bandwidth": geometry.bandwidths,
        "cells_per_bandwidth": round(min(geometry.bandwidths.values()) / geometry.step, 3),
        **coverage.uncovered(tau if criterion is Criterion.DENSITY_RATIO else 1.0),
        **_drift(run, coverage),
    }


def _measured_errors(run: Run, coverage: Coverage, probes: Points) -> dict[str, Errors]:
    """Errors of both densities at some corpus documents."""
    columns = list(projected.AXES[: probes.shape[1]])
    return {
        role: measured_errors(
            coverage.now[role],
            probes,
            (projected.points(table) for _, table in projected.coordinates(run, role, columns)),
        )
        for role in ROLES
    }


def _require_precision(run: Run, errors: dict[str, Errors]) -> dict[str, Errors]:
    """Stop a run whose densities are not what was asked for.

    Raises:
        InputError: a measured error is larger than ``density.max_error``, or than the floor below it.
    """
    asked = run.config.density.max_error
    for role, error in errors.items():
        if error.relative > asked or error.below_floor > FLOOR:
            raise InputError(
                f"the {role} densities are off by {error.relative:.3g} above {FLOOR:g}, and by "
                f"{error.below_floor:.3g} below it; density.max_error={asked:g} and {FLOOR:g} are allowed: "
                "lower density.max_error for a finer grid, or raise it if that will do"
            )
    return errors


def _agreement(
    run: Run, geometry: Geometry, coverage: Coverage, index: OpenIndex, share: float
) -> dict[str, Any]:
    """How far the criteria agree on which documents are selected."""
    chunks = [key for shard in embedded.shards_of(run, "corpus") for key in embedded.chunk_keys(shard)]
    values = agreement.some_vectors(run.storage, chunks)
    scores = agreement.scores(values, geometry, coverage, projected.discriminant(run))
    scores[Criterion.KNN] = nearness.means(*index.search(values, run.config.difference.neighbours))
    return agreement.figures(scores, share)


def _drift(run: Run, coverage: Coverage) -> dict[str, Any]:
    """How far the corpus has moved from that which the geometry was fitted to."""
    drift = coverage.drift()
    if drift is None:
        return {"drift": None, "refit_due": False}
    drift |= {"explained_loss": run.require_manifest("merge").figures["explained_loss"]}
    due = max(drift.values()) > run.config.density.max_drift
    if due:
        log.warning("a refit is due: the corpus has drifted from the line's projection: %s", drift)
    return {"drift": drift, "refit_due": due}
