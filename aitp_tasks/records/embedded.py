"""What embed has left: of each shard its chunks of vectors, and of each group the sum of its moments."""

import operator
from collections import Counter
from collections.abc import Iterable, Iterator
from functools import reduce
from typing import Any

from aitp_tasks.config import RunConfig
from aitp_tasks.densities.moments import Moments
from aitp_tasks.errors import InputError
from aitp_tasks.records import damage, digest, manifest, vectors
from aitp_tasks.records.manifest import Manifest
from aitp_tasks.records.plan import Group
from aitp_tasks.records.run import Run
from aitp_tasks.storage import Storage

#: Raised when the objects of a shard come to hold something else; 2 has exact moments.
_FORMAT = 2
#: Raised when the same rows of a corpus come to have other texts; since 2 what shows nothing is no text.
_CORPUS_RULES = 2
#: Raised when the same rows of an SFT set come to have other texts; the first ones are of releases before 2.
_SFT_RULES = 2


#: Figure of a unit's manifest: why some of its shards could not be embedded, by their keys.
FAILED = "failed_shards"


def shard_prefix(run: Run, role: str, key: str, etag: str) -> str:
    """Prefix of what is made of one version of one shard."""
    rule = [_CORPUS_RULES, *run.config.text_columns] if role == "corpus" else reading_of_sft(run.config)
    shard = digest.of_value([_FORMAT, role, rule, key, etag])
    return f"embeddings/{run.plan.encoder_digest}/{shard}"


def reading_of_sft(config: RunConfig) -> list[Any]:
    """What decides which examples and texts the rows of an SFT set have."""
    settings = config.examples.model_dump(mode="json", include={"preference", "mapping"})
    return [_SFT_RULES, config.sft_text.value, settings]


def shards(run: Run, group: Group) -> list[Manifest]:
    """The manifests of a group's shards, as this run used them.

    Raises:
        InputError: the group has not been embedded.
    """
    remedy = f"clear the embed task of {group.label}"
    return manifest.load_all(run.storage, _unit(run, group).outputs.values(), remedy)


def shards_of(run: Run, role: str) -> Iterator[Manifest]:
    """The manifests of all shards of a role, in the order of the plan.

    Raises:
        InputError: a group has not been embedded.
    """
    for group in run.plan.groups_of(role):
        yield from shards(run, group)


def count(run: Run, group: Group) -> int:
    """How many rows of a group have a vector.

    Raises:
        InputError: the group has not been embedded.
    """
    ledger = _unit(run, group).ledger
    assert ledger is not None
    return ledger.rows_out


def failures_allowed(run: Run, role: str) -> int:
    """How many shards of a role may fail before the run does."""
    if role != "corpus":
        return 0
    shards = sum(len(group.shards) for group in run.plan.groups_of(role))
    return int(round(run.config.plan.shard_budget * shards, 6))


def failed(run: Run) -> dict[str, str]:
    """Why some shards take no part in the run, by their keys.

    Raises:
        InputError: a group has not been embedded.
    """
    units = (_unit(run, group) for group in run.plan.groups)
    return {key: why for unit in units for key, why in unit.figures.get(FAILED, {}).items()}


def sft_examples(run: Run) -> int:
    """How many examples of the SFT set have a vector.

    Raises:
        InputError: a group has not been embedded.
    """
    groups = run.plan.groups_of("sft")
    return sum(count(run, group) for group in groups if group.source == run.config.sft)


def not_kept(run: Run) -> dict[str, int]:
    """How many rows of the SFT set hold what no version has a place for, by its name.

    Raises:
        InputError: a group has not been embedded.
    """
    groups = (group for group in run.plan.groups_of("sft") if group.source == run.config.sft)
    counts: Counter[str] = Counter()
    for group in groups:
        counts.update(_unit(run, group).figures.get("not_kept", {}))
    return dict(counts)


def earlier_pairs(run: Run) -> int:
    """How many pairs of earlier versions take part in the run, with a vector or without.

    Raises:
        InputError: a group has not been embedded.
    """
    ledgers = [_unit(run, group).ledger for group in run.plan.groups_of_pairs]
    return sum(ledger.rows_in for ledger in ledgers if ledger is not None)


def moments(run: Run, role: str) -> Moments | None:
    """The moments of all vectors of a role; None where none of its rows has one.

    Raises:
        InputError: a group has not been embedded, or its moments were deleted.
    """
    groups = [group for group in run.plan.groups_of(role) if count(run, group)]
    keys = (moments_key(run, _used(run, group)) for group in groups)
    sums = (damage.read(run.storage, key, Moments.from_bytes) for key in keys)
    return reduce(operator.add, sums) if groups else None


def moments_key(run: Run, used: Iterable[str]) -> str:
    """Where the moments of the shards with these manifests lie."""
    return f"embeddings/{run.plan.encoder_digest}/moments/{digest.of_value(sorted(used))}.safetensors"


def chunk_keys(shard: Manifest) -> list[str]:
    """Keys of a shard's chunks, in the order of their rows."""
    return [key for name, key in sorted(shard.outputs.items()) if name.startswith("chunk-")]


def chunk_key(prefix: str, rows: range) -> str:
    """Where the chunk of some rows of the shard under ``prefix`` lies."""
    return f"{prefix}/rows-{rows.start:012d}-{rows.stop:012d}.parquet"


def chunk_rows(key: str) -> range:
    """The rows of its shard that a chunk is of, with those that have no vector."""
    start, end = key.rpartition("/rows-")[2].removesuffix(".parquet").split("-")
    return range(int(start), int(end))


def vector_at(storage: Storage, shard: Manifest, row: int) -> vectors.Values:
    """The vector float16 (1, d) of one row of a shard.

    Raises:
        InputError: the row has none.
    """
    for key in chunk_keys(shard):
        if row in chunk_rows(key):
            found = vectors.read(storage, key)
            values: vectors.Values = found.values[found.rows == row]
            if len(values):
                return values
    raise InputError(f"row {row} of {storage.uri(str(shard.figures['shard']))} has no vector: embed anew")


def _used(run: Run, group: Group) -> Iterable[str]:
    return _unit(run, group).outputs.values()


def _unit(run: Run, group: Group) -> Manifest:
    return run.require_manifest("embed", group.digest, what=f"embedding of {group.label}")
