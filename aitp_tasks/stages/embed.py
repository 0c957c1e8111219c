"""embed: texts of the shards of one group become vectors and moments.

Writes, under ``embeddings/<encoder digest>/<shard digest>/``, chunks of vectors,
the rows that were quarantined, moments, and last the manifest; then, for the
run, which version of each shard was used. The shard is the unit of caching: one
that was embedded before, in whatever run, is not read again. Within a shard a
unit that was killed goes on after its last chunk. Moments of a group are summed
once, under ``embeddings/<encoder digest>/moments/``.

Modules, in the order of the flow: ``chunks`` (rows that are written together),
``tokens``, ``batches``, ``encoder`` (where the vectors are computed: one of the
``*_backend`` modules or ``endpoint``), ``shard`` (all of it for one shard).
"""

import logging
import operator
from collections.abc import Iterable, Iterator
from functools import reduce
from typing import Any

from aitp_tasks.densities.moments import Moments
from aitp_tasks.encoder import chunks
from aitp_tasks.encoder import shard as one_shard
from aitp_tasks.encoder.opened import Encoder, open_encoder
from aitp_tasks.encoder.progress import Progress
from aitp_tasks.errors import BudgetExceededError, InputError
from aitp_tasks.inputs.rows import Refusal
from aitp_tasks.records import digest, manifest, vectors
from aitp_tasks.records.manifest import Ledger, Manifest, Stopwatch
from aitp_tasks.records.run import UNKNOWN_ROWS, Group, Run, Shard
from aitp_tasks.storage import ObjectChangedError, ObjectInfo, Storage

log = logging.getLogger(__name__)

#: Raised when the objects of a shard come to hold something else; 2 has exact moments.
_FORMAT = 2
#: How often a shard that is replaced while it is read is begun anew.
_RESTARTS = 3


def execute(run: Run, unit: int) -> dict[str, Any]:
    """Embed the shards of one group.

    Raises:
        InputError: a shard is not Parquet, or changed after this run used it;
            the group's other shards are embedded first.
        BudgetExceededError: too many rows of a shard were quarantined.
    """
    watch = Stopwatch()
    group = run.group(unit)
    log.info("embed label=%s shards=%d", group.label, len(group.shards))
    progress = Progress(group.label, _planned_rows(group))
    worker = _ShardEmbedder(run, progress)
    done: list[tuple[ObjectInfo, Manifest]] = []
    failures: list[InputError | BudgetExceededError] = []
    for number, shard in enumerate(group.shards, 1):
        try:
            done.append(worker.embed(shard))
        except (InputError, BudgetExceededError) as error:
            log.error("shard=%s failed: %s", shard.key, error)
            failures.append(error)
        log.info(
            "embed label=%s shards_done=%d of=%d seconds=%s",
            group.label,
            number,
            len(group.shards),
            watch.seconds(),
        )
    if failures:
        raise type(failures[0])("; ".join(str(error) for error in failures))
    result = _commit(run, group, done, watch, progress)
    assert result.ledger is not None
    return {
        "stage": "embed",
        "run": run.uri,
        "label": group.label,
        "rows_in": result.ledger.rows_in,
        "rows_out": result.ledger.rows_out,
        "rows_quarantined": result.ledger.rows_quarantined,
        "rows_embedded_now": progress.rows,
        "seconds": watch.seconds(),
    }


def shard_manifests(run: Run, group: Group) -> list[Manifest]:
    """The manifests of a group's shards, as this run used them.

    Raises:
        InputError: the group has not been embedded.
    """
    remedy = f"clear the embed task of {group.label}"
    return manifest.load_all(run.storage, _unit(run, group).outputs.values(), remedy)


def group_moments(run: Run, group: Group) -> Moments | None:
    """The moments of all vectors of a group; None where it has no vectors.

    Raises:
        InputError: the group has not been embedded, or its moments were deleted.
    """
    if not vector_count(run, group):
        return None
    return Moments.from_bytes(run.storage.read(_moments_key(run, _unit(run, group).outputs)))


def vector_count(run: Run, group: Group) -> int:
    """How many rows of a group have a vector.

    Raises:
        InputError: the group has not been embedded.
    """
    ledger = _unit(run, group).ledger
    assert ledger is not None
    return ledger.rows_out


def _unit(run: Run, group: Group) -> Manifest:
    return run.require_manifest("embed", group.digest, what=f"embedding of {group.label}")


def chunk_keys(done: Manifest) -> list[str]:
    """Keys of a shard's vector chunks, in the order of their rows."""
    return [key for name, key in sorted(done.outputs.items()) if name.startswith("chunk-")]


def chunk_rows(key: str) -> range:
    """The rows of the shard that a chunk is of, with those that have no vector."""
    rows = chunks.span(key)
    assert rows is not None, key
    return rows


def vector_at(run: Run, shard: Manifest, row: int) -> vectors.Values:
    """The vector float16 (1, d) of one row of an embedded shard.

    Raises:
        InputError: the row has none.
    """
    for key in chunk_keys(shard):
        if row in chunk_rows(key):
            found = vectors.read(run.storage, key)
            values: vectors.Values = found.values[found.rows == row]
            if len(values):
                return values
    raise InputError(f"row {row} of {run.storage.uri(str(shard.figures['shard']))} has no vector: embed anew")


def vector_of(run: Run, text: str) -> vectors.Values | Refusal:
    """The vector float16 (1, d) that a document of this text has, or why it has none."""
    ((found, refused),) = vectors_of(run, [text])
    return refused[0] if refused else found.values


def vectors_of(
    run: Run, texts: Iterable[str | Refusal]
) -> Iterator[tuple[vectors.Vectors, dict[int, Refusal]]]:
    """The vectors that documents of these texts have, a chunk at a time, in order.

    Returns:
        Vectors whose rows are places among the texts, and by its place why a text has none.
    """
    encoder = open_encoder(run.config.encoder, run.plan.encoder_identity)
    backend, normalised = encoder.backend, encoder.facts.normalised
    for chunk in chunks.read(iter(texts), encoder.tokeniser, backend.dimension, normalised, start=0):
        for answer in backend.run(chunk.batches(backend.batch_tokens)):
            chunks.take(answer)
        found, _, refused = chunk.finish()
        yield found, dict(refused)


def _planned_rows(group: Group) -> int | None:
    """Rows of all shards; None where those of one are not known."""
    rows = [shard.rows for shard in group.shards]
    return None if UNKNOWN_ROWS in rows else sum(rows)


def _commit(
    run: Run, group: Group, done: list[tuple[ObjectInfo, Manifest]], watch: Stopwatch, progress: Progress
) -> Manifest:
    ledger = Ledger(rows_in=0, rows_out=0)
    for _, shard_manifest in done:
        assert shard_manifest.ledger is not None
        ledger = ledger.plus(shard_manifest.ledger)
    # The version that was read, not the one that was planned: a shard that was
    # broken and replaced completes this very run.
    used = {info.key: _manifest_key(run, group.role, info) for info, _ in done}
    shards = [shard_manifest for _, shard_manifest in done]
    if ledger.rows_out:
        _write_moments(run, used, shards)
    mine = Manifest(
        stage="embed",
        label=group.label,
        ledger=ledger,
        outputs=used,
        figures={**progress.figures(), **_inputs(shards)},
        seconds=watch.seconds(),
        peak_memory_mb=watch.peak_memory_mb(),
    )
    standing = run.commit(mine, group.digest)
    if standing.outputs != used:
        changed = sorted(key for key in used if standing.outputs.get(key) != used[key])
        raise InputError(
            f"{run.storage.uri(changed[0])} changed after this run had embedded it: start a new run, "
            "which reuses all that is unchanged"
        )
    return standing


def _moments_key(run: Run, used: dict[str, str]) -> str:
    """Where the moments of the shards with these manifests lie."""
    return f"embeddings/{encoder_digest(run)}/moments/{digest.of_value(sorted(used.values()))}.safetensors"


def _write_moments(run: Run, used: dict[str, str], shards: list[Manifest]) -> None:
    """Sum the shards' moments, so that merge need not read those of each."""
    key = _moments_key(run, used)
    if run.storage.find(key) is None:
        sums = (some for shard in shards for some in _moments(run.storage, shard))
        run.storage.write_if_absent(key, reduce(operator.add, sums).to_bytes())


def _moments(storage: Storage, shard: Manifest) -> Iterator[Moments]:
    """A shard's moments as stored, or those of its chunks."""
    if "moments" in shard.outputs:
        yield Moments.from_bytes(storage.read(shard.output("moments")))
        return
    for key in chunk_keys(shard):
        found = vectors.read(storage, key)
        if len(found):
            yield Moments.of(found.values)


def _inputs(shards: list[Manifest]) -> dict[str, Any]:
    """What the group's shards hold, as they were read."""
    sums = {
        name: sum(int(shard.figures[name]) for shard in shards)
        for name in ("tokens", "truncated_texts", "repeated_texts")
    }
    return {"forms": sorted({str(shard.figures["form"]) for shard in shards}), **sums}


def encoder_digest(run: Run) -> str:
    """Identity of the encoder and of how it reads texts."""
    return run.plan.encoder_digest


def _prefix(run: Run, role: str, info: ObjectInfo) -> str:
    rule = list(run.config.text_columns) if role == "corpus" else run.config.sft_text.value
    shard = digest.of_value([_FORMAT, role, rule, info.key, info.etag])
    return f"embeddings/{encoder_digest(run)}/{shard}"


def _manifest_key(run: Run, role: str, info: ObjectInfo) -> str:
    return f"{_prefix(run, role, info)}/manifest.json"


class _ShardEmbedder:
    """Embeds shards one after another; loads the encoder when the first needs it."""

    def __init__(self, run: Run, progress: Progress) -> None:
        self._run = run
        self._progress = progress
        self._encoder: Encoder | None = None

    def embed(self, shard: Shard) -> tuple[ObjectInfo, Manifest]:
        """Embed one shard, or find that it was done before.

        Returns:
            The version that was read, and its manifest.
        """
        for _ in range(_RESTARTS):
            try:
                return self._embed(shard)
            except ObjectChangedError as error:
                log.warning("shard=%s is begun anew: %s", shard.key, error)
        return self._embed(shard)

    def _embed(self, shard: Shard) -> tuple[ObjectInfo, Manifest]:
        storage, config = self._run.storage, self._run.config
        info = storage.stat(shard.key)
        key = _manifest_key(self._run, shard.role, info)
        done = manifest.load(storage, key)
        if done is None:
            prefix = _prefix(self._run, shard.role, info)
            made = one_shard.embed(storage, config, shard, info, prefix, self._open, self._progress)
            done = manifest.commit(storage, key, made)
        else:
            self._progress.skip(max(shard.rows, 0))
        assert done.ledger is not None
        done.ledger.check_budget(
            config.failure_budget, storage.uri(shard.key), storage.uri(done.outputs.get("quarantine", key))
        )
        return info, done

    def _open(self) -> Encoder:
        if self._encoder is None:
            self._encoder = open_encoder(self._run.config.encoder, self._run.plan.encoder_identity)
        return self._encoder
