"""merge: the shards' moments become the geometry, the SFT set's vectors its index.

Reads the manifests and moments of all embedded shards, and the vectors of the SFT
set. Writes the SFT set's index and places under ``index/<encoder digest>/…`` and
the run's geometry. Where the corpus is large, its quantiser is trained here, so
that the density units can encode their shards with it; the corpus's index itself is
the ``index`` stage's.
"""

import logging
import operator
from collections.abc import Iterator
from functools import reduce
from typing import Any

from aitp_tasks.densities.geometry import ROLES, Geometry
from aitp_tasks.densities.moments import Moments
from aitp_tasks.errors import InputError
from aitp_tasks.records.manifest import Ledger, Manifest, Stopwatch
from aitp_tasks.records.run import Run
from aitp_tasks.stages import embed
from aitp_tasks.vector_index import build, opened, quantiser
from aitp_tasks.vector_index.library import Quantiser

log = logging.getLogger(__name__)

_QUANTISER = "corpus_quantiser"


def execute(run: Run, unit: None = None) -> dict[str, Any]:
    """Merge what the embed units have left.

    Raises:
        InputError: a group was not embedded, a set is empty, vectors are missing.
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


def load_quantiser(run: Run) -> Quantiser | None:
    """What encodes the corpus's vectors; None where its index is exact.

    Raises:
        InputError: merge has not been run, or the quantiser is damaged.
    """
    key = run.require_manifest("merge").outputs.get(_QUANTISER)
    return None if key is None else quantiser.load(run.storage, key)


def _merge(run: Run, watch: Stopwatch) -> Manifest:
    counts = {role: _count(run, role) for role in ROLES}
    built = _index_sft(run, counts["sft"])
    outputs = opened.outputs("sft", built)
    trained = _quantiser_key(run, "corpus", counts["corpus"])
    if trained is not None:
        outputs[_QUANTISER] = trained
    moments = {role: sum_moments(run, role) for role in ROLES}
    geometry, outputs["geometry"] = _geometry(run, moments)
    figures: dict[str, Any] = {f"{role}_vectors": counts[role] for role in ROLES}
    figures["geometry_kept"] = run.plan.geometry is not None
    figures["explained_loss"] = geometry.explained_loss(moments["corpus"])
    for role in ROLES:
        explained = geometry.projections[role].explained(moments[role])
        figures[f"{role}_explained_variance"] = [round(float(share), 6) for share in explained]
    figures["sft_index"] = built.figures
    figures["bandwidths"] = geometry.bandwidths
    figures["grid_step"] = geometry.step
    rows = sum(counts.values())
    log.info("merge corpus_vectors=%d sft_vectors=%d", counts["corpus"], counts["sft"])
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


def _count(run: Run, role: str) -> int:
    """How many vectors a role has."""
    count = sum(embed.vector_count(run, group) for group in run.plan.groups if group.role == role)
    if not count:
        raise _nothing(run, role)
    return count


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


def _quantiser_key(run: Run, role: str, count: int) -> str | None:
    """Key of a role's quantiser, trained if need be; None where so many vectors need none."""
    lists = quantiser.lists_for(count)
    if not lists:
        return None
    prefix = f"index/{embed.encoder_digest(run)}/quantiser-{role}"
    chunks = (key for shard in _shards(run, role) for key in embed.chunk_keys(shard))
    return quantiser.ensure(run.storage, prefix, lists, chunks)


def _index_sft(run: Run, count: int) -> Manifest:
    trained = _quantiser_key(run, "sft", count)
    return build.build(
        run.storage,
        f"index/{embed.encoder_digest(run)}/{run.config.sft}",
        run.config.sft,
        [build.Shard.of(shard, embed.chunk_keys(shard)) for shard in _shards(run, "sft")],
        None if trained is None else quantiser.load(run.storage, trained),
    )


def _shards(run: Run, role: str) -> Iterator[Manifest]:
    """Manifests of a role's shards."""
    for group in run.plan.groups:
        if group.role == role:
            yield from embed.shard_manifests(run, group)
