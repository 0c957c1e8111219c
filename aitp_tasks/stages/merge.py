"""merge: the shards' moments become the geometry, the SFT set's vectors its index.

Reads the manifests and moments of all embedded shards, and the vectors of the SFT
set. Writes the SFT set's index and places under ``index/<encoder digest>/…``, the
run's geometry, and the Gaussians of both sets. Where the corpus is large, its
quantiser is trained here, so that the density units can encode their shards with
it; the corpus's index itself is the ``index`` stage's.
"""

import logging
from typing import Any

from aitp_tasks.config import Criterion
from aitp_tasks.densities.discriminant import Discriminant
from aitp_tasks.densities.geometry import ROLES, Geometry
from aitp_tasks.densities.moments import Moments
from aitp_tasks.errors import BudgetExceededError, InputError
from aitp_tasks.records import damage, digest, embedded, indexed, projected
from aitp_tasks.records.manifest import Ledger, Manifest, Stopwatch
from aitp_tasks.records.run import Run
from aitp_tasks.vector_index import build, quantiser

log = logging.getLogger(__name__)

#: Shards that a message names.
_NAMED = 3


def execute(run: Run, unit: None = None) -> dict[str, Any]:
    """Merge what the embed units have left.

    Raises:
        InputError: a group was not embedded, a set is empty, vectors are missing.
        BudgetExceededError: too many shards could not be embedded.
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


def _merge(run: Run, watch: Stopwatch) -> Manifest:
    failed = _require_few_failures(run)
    counts = {role: _count(run, role) for role in ROLES}
    built = _index_sft(run, counts["sft"])
    outputs = indexed.outputs("sft", built)
    outputs |= indexed.quantiser_output(_quantiser_key(run, "corpus", counts["corpus"]))
    moments = {role: _moments(run, role) for role in ROLES}
    geometry, outputs["geometry"] = _geometry(run, moments)
    outputs["discriminant"] = _discriminant(run, moments)
    log.info("merge corpus_vectors=%d sft_vectors=%d", counts["corpus"], counts["sft"])
    rows = sum(counts.values())
    return run.commit(
        Manifest(
            stage="merge",
            label=run.config.dump,
            ledger=Ledger(rows_in=rows, rows_out=rows),
            outputs=outputs,
            figures={
                **{f"{role}_vectors": counts[role] for role in ROLES},
                "geometry_kept": run.plan.geometry is not None,
                **_fit(geometry, moments),
                "sft_index": built.figures,
                "failed_shards": failed,
            },
            seconds=watch.seconds(),
            peak_memory_mb=watch.peak_memory_mb(),
        )
    )


def _require_few_failures(run: Run) -> dict[str, str]:
    """Why some shards take no part, by their keys.

    Raises:
        BudgetExceededError: more shards of the corpus failed than ``plan.shard_budget`` allows.
    """
    failed, allowed = embedded.failed(run), embedded.failures_allowed(run, "corpus")
    for key, why in failed.items():
        log.warning("the run goes on without shard=%s: %s", key, why)
    if len(failed) > allowed:
        some = ", ".join(sorted(failed)[:_NAMED]) + (", …" if len(failed) > _NAMED else "")
        raise BudgetExceededError(
            f"{len(failed)} shards could not be embedded ({some}), more than the {allowed} that "
            f"plan.shard_budget={run.config.plan.shard_budget:g} allows: repair or remove them, or raise the "
            "budget, and start a new run, which reuses all that is embedded"
        )
    return failed


def _count(run: Run, role: str) -> int:
    """How many vectors a role has."""
    count = sum(embedded.count(run, group) for group in run.plan.groups_of(role))
    if not count:
        raise _nothing(run, role)
    return count


def _moments(run: Run, role: str) -> Moments:
    """The moments of all vectors of a role."""
    found = embedded.moments(run, role)
    if found is None:
        raise _nothing(run, role)
    return found


def _nothing(run: Run, role: str) -> InputError:
    return InputError(
        f"none of the {role} rows has a vector: see their quarantine in {run.storage.uri('embeddings')}, "
        "and correct text_columns or the data"
    )


def _index_sft(run: Run, count: int) -> Manifest:
    trained = _quantiser_key(run, "sft", count)
    return build.build(
        run.storage,
        f"index/{run.plan.encoder_digest}/{run.config.sft}",
        run.config.sft,
        [build.Shard.of(shard) for shard in embedded.shards_of(run, "sft")],
        None if trained is None else quantiser.load(run.storage, trained),
    )


def _quantiser_key(run: Run, role: str, count: int) -> str | None:
    """Key of a role's quantiser, trained if need be; None where so many vectors need none."""
    lists = quantiser.lists_for(count)
    if not lists:
        return None
    prefix = f"index/{run.plan.encoder_digest}/quantiser-{role}"
    chunks = [key for shard in embedded.shards_of(run, role) for key in embedded.chunk_keys(shard)]
    if role == "sft":
        return quantiser.ensure_own(run.storage, prefix, lists, chunks, count)
    return quantiser.ensure(run.storage, prefix, lists, chunks)


def _geometry(run: Run, moments: dict[str, Moments]) -> tuple[Geometry, str]:
    """The geometry of the version that the run builds on, or one fitted to its own corpus; and its key."""
    kept = run.plan.geometry
    if kept is not None:
        return damage.read(run.storage, kept.key, Geometry.from_bytes, damage.RESTORE), kept.key
    by_itself = run.config.difference.criterion is Criterion.AUTHORS_COMPAT
    geometry = Geometry.fit(run.config.density, moments, sft_by_itself=by_itself)
    key = f"density/{projected.identity(geometry)}/geometry.safetensors"
    run.storage.write_if_absent(key, geometry.to_bytes())
    return geometry, key


def _discriminant(run: Run, moments: dict[str, Moments]) -> str:
    """Key of the Gaussians of both sets."""
    data = Discriminant.fit(moments["corpus"], moments["sft"]).to_bytes()
    key = f"density/discriminants/{digest.of_bytes(data)}.safetensors"
    run.storage.write_if_absent(key, data)
    return key


def _fit(geometry: Geometry, moments: dict[str, Moments]) -> dict[str, Any]:
    """How much of both sets the axes explain, and the scales of the densities."""
    explained = {role: geometry.projections[role].explained(moments[role]) for role in ROLES}
    return {
        "explained_loss": geometry.explained_loss(moments["corpus"]),
        **{
            f"{role}_explained_variance": [round(float(share), 6) for share in explained[role]]
            for role in ROLES
        },
        "bandwidths": geometry.bandwidths,
        "grid_step": geometry.step,
    }
