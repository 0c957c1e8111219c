"""allocate: the rest of the documents, of each region as many as its pilot says is worth the tokens.

Reads what the pilot's parts have given, and passes over the coordinates as difference does. Writes
the other parts of the difference set, each document as in those of the pilot, and the rates of all
shards. The same pilot gives the same parts, whatever was tried or run again. Where there
is no pilot there is nothing to do, and nothing is written.
"""

import logging
from typing import Any

import numpy as np

from aitp_tasks.config import Quality
from aitp_tasks.densities.partition import Partition
from aitp_tasks.errors import InputError
from aitp_tasks.records import generated, indexed, projected, selected, tables, versions
from aitp_tasks.records.manifest import Ledger, Manifest, Stopwatch
from aitp_tasks.records.run import Run
from aitp_tasks.selection import criteria, drawing, yields
from aitp_tasks.selection.coverage import Coverage
from aitp_tasks.selection.drawing import Parts, Pool
from aitp_tasks.selection.fit import Fit
from aitp_tasks.selection.sampled import slices
from aitp_tasks.selection.tally import Tally
from aitp_tasks.vector_index.opened import OpenIndex

log = logging.getLogger(__name__)


def execute(run: Run, unit: None = None) -> dict[str, Any]:
    """Draw what the pilot has left to be drawn.

    Raises:
        InputError: difference has not been run, or a part of the pilot was neither answered nor given up.
        ObjectChangedError: a shard was replaced after it was embedded.
    """
    watch = Stopwatch()
    pilots = run.pilot_parts
    done = run.find_manifest("allocate") or (_allocate(run, watch) if pilots else None)
    figures = selected.told(run).figures
    return {
        "stage": "allocate",
        "run": run.uri,
        "label": run.config.dump,
        "allocation": figures.get("allocation", "even"),
        "selected": figures["selected"],
        "parts": run.part_count - len(pilots),
        "drawn": done.ledger.rows_out if done and done.ledger else 0,
        "seconds": watch.seconds(),
    }


def _allocate(run: Run, watch: Stopwatch) -> Manifest:
    told = run.require_manifest("difference")
    pilot, known = _pilot(run)
    taken, left = len(pilot), told.figures["selected"] - len(pilot)
    tally, found = _pool(run, told).draw_allotted(
        left, known, tuple(told.figures["by_region"]), frozenset(pilot)
    )
    drawn, partition = found.drawn, Partition.told(known.cuts)
    if len(drawn) != taken + left:
        raise InputError(
            f"{run.uri} has {len(drawn)} documents to draw, and had {taken + left} when difference was run: "
            "what density has left was changed; start a new run"
        )
    is_new = np.array([doc_id not in pilot for doc_id in drawn["doc_id"].to_pylist()], bool)
    with OpenIndex(run.storage, indexed.keys(run, "sft"), "sft") as index:
        parts = Parts(run, drawn, index, partition)
    new = np.flatnonzero(is_new)
    cut = slices(drawn.take(new), run.part_count - len(run.pilot_parts))
    outputs = parts.write("allocate", {name: new[positions] for name, positions in cut.items()})
    outputs["shards"] = tables.write(run.storage, run.key("allocate", "shards"), tally.shard_table(drawn))
    if len(found.unfit):
        outputs["unfit"] = tables.write(run.storage, run.key("allocate", "unfit"), found.unfit)
    by_region = drawing.counts(partition, drawn).tolist()
    log.info("allocate pilot=%d drawn=%d by_region=%s", taken, left, by_region)
    return run.commit(
        Manifest(
            stage="allocate",
            label=run.config.dump,
            ledger=_ledger(told, tally, found, taken),
            outputs=outputs,
            figures={
                "by_region": by_region,
                "pilot": {"by_region": told.figures["by_region"], **known.model_dump(mode="json")},
                **(
                    {"looked_at": found.looked_at}
                    if run.config.difference.quality is not Quality.NONE
                    else {}
                ),
                "sources": tally.sources(drawn),
                "nearest_sft": parts.nearest(),
            },
            seconds=watch.seconds(),
            peak_memory_mb=watch.peak_memory_mb(),
        )
    )


def _pilot(run: Run) -> tuple[set[str], versions.Regions]:
    """The pilot's documents, and what they have given; a part that was given up tells nothing."""
    without = generated.without(run)
    answered = [part for part in run.pilot_parts if part not in without]
    for part in run.pilot_parts:
        if part in without:
            log.warning("%s was given up, its region counts as the best: %s", part, without[part])
    told = yields.figures(run, answered)
    assert told is not None, "difference and the prompt stages are of this release, as there is a pilot"
    documents = {
        doc_id for part in run.pilot_parts for doc_id in selected.table(run, part, ["doc_id"])[0].to_pylist()
    }
    return documents, yields.night(told)


def _pool(run: Run, told: Manifest) -> Pool:
    """What difference has drawn the pilot from."""
    geometry = projected.geometry(run)
    threshold = criteria.Threshold.told(run.config.difference, told.figures)
    crowd = told.figures["crowd"]
    return Pool(
        run, geometry, Coverage.of_run(run, geometry), threshold, np.inf if crowd is None else float(crowd)
    )


def _ledger(told: Manifest, tally: Tally, found: Fit, taken: int) -> Ledger:
    """Where the documents went that difference has left to this stage."""
    assert told.ledger is not None
    before = told.ledger.rejected
    rejected = drawing.not_drawn(found, tally.below, told.figures["is_short"])
    rejected["repeated_text"] -= before["repeated_text"]
    return Ledger(rows_in=before[drawing.LEFT], rows_out=len(found.drawn) - taken, rejected=rejected)
