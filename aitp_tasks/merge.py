"""merge: the shards' vectors become one index per role, their moments the projection.

Reads the manifests, moments and vectors of all embedded shards. Writes
``index/<encoder digest>/…`` for corpus and SFT set, and the run's projection.
Checks that every embedded document is in the index exactly once.
"""

import logging
from typing import Any

from aitp_tasks import digest, embed, index, vectors
from aitp_tasks.errors import InputError
from aitp_tasks.manifest import Ledger, Manifest, Stopwatch
from aitp_tasks.moments import Moments, Projection
from aitp_tasks.run import Run

log = logging.getLogger(__name__)

ROLES = ("corpus", "sft")


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


def load_projection(run: Run) -> Projection:
    """The projection that merge has fitted."""
    done = run.require_manifest("merge")
    return Projection.from_bytes(run.storage.read(done.output("projection")))


def _merge(run: Run, watch: Stopwatch) -> Manifest:
    shards = {role: _shards(run, role) for role in ROLES}
    figures: dict[str, Any] = {}
    outputs: dict[str, str] = {}
    for role in ROLES:
        outputs[f"{role}_index"], figures[f"{role}_index"] = _merge_indexes(run, role, shards[role])
        figures[f"{role}_vectors"] = figures[f"{role}_index"]["rows"]
    projection = Projection.fit(_sum_moments(run, shards["corpus"]))
    outputs["projection"] = run.key("merge", "projection.safetensors")
    run.storage.write_if_absent(outputs["projection"], projection.to_bytes())
    figures["explained_variance"] = [round(float(share), 6) for share in projection.explained_variance]
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


def _shards(run: Run, role: str) -> list[Manifest]:
    """Manifests of a role's shards that have vectors, in the order of the plan."""
    groups = [group for group in run.plan.groups if group.role == role]
    shards = [shard for group in groups for shard in embed.shard_manifests(run, group)]
    with_vectors = [shard for shard in shards if "moments" in shard.outputs]
    if not with_vectors:
        raise InputError(
            f"none of the {len(shards)} {role} shards has a row with a vector: see their quarantine in "
            f"{run.storage.uri('embeddings')}, and correct text_columns or the data"
        )
    return with_vectors


def _sum_moments(run: Run, shards: list[Manifest]) -> Moments:
    # Floating-point sums depend on their order, so it is that of the content.
    keys = sorted(shard.output("moments") for shard in shards)
    total = Moments.from_bytes(run.storage.read(keys[0]))
    for key in keys[1:]:
        total += Moments.from_bytes(run.storage.read(key))
    return total


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
    content = digest.of_value(sorted(shard.output("moments") for shard in shards))
    key = f"index/{embed.encoder_digest(run)}/{source}/{content}.faiss"
    run.storage.write_if_absent(key, index.to_bytes(merged))
    return key, {"rows": rows, "documents": merged.ntotal, "repeated": rows - merged.ntotal}
