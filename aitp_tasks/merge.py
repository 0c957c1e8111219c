"""merge: the shards' vectors become one index per role, their moments the geometry.

Reads the manifests, moments and vectors of all embedded shards. Writes
``index/<encoder digest>/…`` for corpus and SFT set, and the run's geometry.
Checks that every embedded document is in the index exactly once.
"""

import logging
import operator
from functools import reduce
from typing import Any

from aitp_tasks import digest, embed, index, vectors
from aitp_tasks.errors import InputError
from aitp_tasks.geometry import ROLES, Geometry
from aitp_tasks.manifest import Ledger, Manifest, Stopwatch
from aitp_tasks.moments import Moments
from aitp_tasks.run import Run

log = logging.getLogger(__name__)


def execute(run: Run, unit: None = None) -> dict[str, Any]:
    """Merge what the embed units have left.

    Raises:
        InputError: a group was not embedded, a set is empty, chunks are missing.
    """
    watch = Stopwatch()
    done = run.find_manifest("merge") or _merge(run, watch)
    return {
        "stage": "merge",
        "run": run.uri,
        "label": run.config.dump,
        "corpus_vectors": done.figures["corpus_vectors"],
        "sft_vectors": done.figures["sft_vectors"],
        "seconds": watch.seconds(),
    }


def load_geometry(run: Run) -> Geometry:
    """The geometry that merge has fitted."""
    done = run.require_manifest("merge")
    return Geometry.from_bytes(run.storage.read(done.output("geometry")))


def _merge(run: Run, watch: Stopwatch) -> Manifest:
    shards = {role: _shards(run, role) for role in ROLES}
    figures: dict[str, Any] = {}
    outputs: dict[str, str] = {}
    for role in ROLES:
        outputs[f"{role}_index"], figures[f"{role}_index"] = _merge_indexes(run, role, shards[role])
        figures[f"{role}_vectors"] = figures[f"{role}_index"]["rows"]
    moments = {role: sum_moments(run, role) for role in ROLES}
    geometry, outputs["geometry"] = _geometry(run, moments)
    figures["geometry_kept"] = run.plan.geometry is not None
    figures["explained_loss"] = geometry.explained_loss(moments["corpus"])
    for role in ROLES:
        explained = geometry.projections[role].explained(moments[role])
        figures[f"{role}_explained_variance"] = [round(float(share), 6) for share in explained]
    figures["bandwidths"] = geometry.bandwidths
    figures["grid_step"] = geometry.step
    rows = figures["corpus_vectors"] + figures["sft_vectors"]
    return run.commit(
        Manifest(
            stage="merge",
            label=run.config.dump,
            ledger=Ledger(rows_in=rows, rows_out=rows),
            outputs=outputs,
            figures=figures,
            seconds=watch.seconds(),
            peak_memory_mb=watch.peak_memory_mb(),
        )
    )


def _geometry(run: Run, moments: dict[str, Moments]) -> tuple[Geometry, str]:
    """The geometry of the version that the run builds on, or one fitted to its own corpus; and its key."""
    kept = run.plan.geometry
    if kept is not None:
        return Geometry.from_bytes(run.storage.read(kept.key)), kept.key
    geometry = Geometry.fit(run.config, moments)
    key = f"density/{geometry.digest}/geometry.safetensors"
    run.storage.write_if_absent(key, geometry.to_bytes())
    return geometry, key


def _shards(run: Run, role: str) -> list[Manifest]:
    """Manifests of a role's shards that have vectors, in the order of the plan."""
    groups = [group for group in run.plan.groups if group.role == role]
    shards = [shard for group in groups for shard in embed.shard_manifests(run, group)]
    with_vectors = [shard for shard in shards if shard.ledger and shard.ledger.rows_out]
    if not with_vectors:
        raise _nothing(run, role)
    return with_vectors


def _nothing(run: Run, role: str) -> InputError:
    return InputError(
        f"none of the {role} rows has a vector: see their quarantine in {run.storage.uri('embeddings')}, "
        "and correct text_columns or the data"
    )


def sum_moments(run: Run, role: str) -> Moments:
    """The moments of all vectors of a role.

    Raises:
        InputError: a group was not embedded, or none of its rows has a vector.
    """
    groups = [group for group in run.plan.groups if group.role == role]
    found = [some for group in groups if (some := embed.group_moments(run, group)) is not None]
    if not found:
        raise _nothing(run, role)
    return reduce(operator.add, found)


def _merge_indexes(run: Run, role: str, shards: list[Manifest]) -> tuple[str, dict[str, int]]:
    merged: index.Index | None = None
    seen: set[int] = set()
    rows = 0
    for key in (key for shard in shards for key in embed.chunk_keys(shard)):
        found = vectors.read(run.storage, key)
        merged = index.empty(found.values.shape[1]) if merged is None else merged
        index.add(merged, found.values, vectors.faiss_ids(found.doc_ids), seen)
        rows += len(found)
    expected = sum(shard.ledger.rows_out for shard in shards if shard.ledger is not None)
    assert merged is not None
    if rows != expected or merged.ntotal != len(seen):
        raise InputError(
            f"{role} chunks hold {rows} of {expected} vectors, "
            f"the index {merged.ntotal} of {len(seen)}: embed anew"
        )
    log.info("merge role=%s documents=%d repeated=%d", role, merged.ntotal, rows - merged.ntotal)
    source = run.config.dump if role == "corpus" else run.config.sft
    content = digest.of_value(sorted(key for shard in shards for key in embed.chunk_keys(shard)))
    key = f"index/{embed.encoder_digest(run)}/{source}/{content}.faiss"
    run.storage.write_if_absent(key, index.to_bytes(merged))
    return key, {"rows": rows, "documents": merged.ntotal, "repeated": rows - merged.ntotal}
