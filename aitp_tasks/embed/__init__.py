"""embed: texts of the shards of one group become vectors, moments and a FAISS index per shard.

Reads shards row group by row group. Writes, under
``embeddings/<encoder digest>/<shard digest>/``, chunks of vectors, the rows
that were quarantined, moments, an index, and last the manifest; then, for the
run, which version of each shard was used. The shard is the unit of caching: one
that was embedded before, in whatever run, is not read again. Chunks that an
interrupted task left are kept.
"""

import logging
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from aitp_tasks import digest, index, manifest, rows, tables, vectors
from aitp_tasks.errors import BudgetExceededError, InputError
from aitp_tasks.manifest import Ledger, Manifest, Stopwatch
from aitp_tasks.moments import Moments
from aitp_tasks.rows import Refusal
from aitp_tasks.run import Group, Run, Shard
from aitp_tasks.storage import ObjectInfo, Storage
from aitp_tasks.vectors import Vectors

log = logging.getLogger(__name__)

#: Rows of a chunk: what an interruption can cost.
CHUNK_ROWS = 2048


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
    worker = _ShardEmbedder(run)
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
    result = _commit(run, group, done, watch, worker.rows_embedded)
    assert result.ledger is not None
    return {
        "stage": "embed",
        "run": run.uri,
        "label": group.label,
        "rows_in": result.ledger.rows_in,
        "rows_out": result.ledger.rows_out,
        "rows_quarantined": result.ledger.rows_quarantined,
        "rows_embedded_now": worker.rows_embedded,
        "seconds": watch.seconds(),
    }


def shard_manifests(run: Run, group: Group) -> list[Manifest]:
    """The manifests of a group's shards, as this run used them.

    Raises:
        InputError: the group has not been embedded.
    """
    unit = run.require_manifest("embed", group.digest, what=f"embedding of {group.label}")
    found = [manifest.load(run.storage, key) for key in unit.outputs.values()]
    missing = [key for key, done in zip(unit.outputs.values(), found, strict=True) if done is None]
    if missing:
        raise InputError(f"{run.storage.uri(missing[0])} was deleted: clear the embed task of {group.label}")
    return [done for done in found if done is not None]


def chunk_keys(done: Manifest) -> list[str]:
    """Keys of a shard's vector chunks, in the order of their rows."""
    return [key for name, key in sorted(done.outputs.items()) if name.startswith("chunk-")]


def _commit(
    run: Run, group: Group, done: list[tuple[ObjectInfo, Manifest]], watch: Stopwatch, embedded: int
) -> Manifest:
    ledger = Ledger(rows_in=0, rows_out=0)
    for _, shard_manifest in done:
        assert shard_manifest.ledger is not None
        ledger = ledger.plus(shard_manifest.ledger)
    # The version that was read, not the one that was planned: a shard that was
    # broken and replaced completes this very run.
    used = {info.key: _manifest_key(run, group.role, info) for info, _ in done}
    mine = Manifest(
        stage="embed",
        label=group.label,
        ledger=ledger,
        outputs=used,
        figures={
            "rows_embedded_now": embedded,
            "rows_per_second": round(embedded / max(watch.seconds(), 1e-3), 1),
        },
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


def encoder_digest(run: Run) -> str:
    """Identity of the encoder and of how it reads texts."""
    return digest.of_value([run.plan.encoder_identity, run.config.encoder.max_tokens])


def _prefix(run: Run, role: str, info: ObjectInfo) -> str:
    rule = list(run.config.text_columns) if role == "corpus" else "first turns"
    shard = digest.of_value([role, rule, info.key, info.etag])
    return f"embeddings/{encoder_digest(run)}/{shard}"


def _manifest_key(run: Run, role: str, info: ObjectInfo) -> str:
    return f"{_prefix(run, role, info)}/manifest.json"


@dataclass
class _Progress:
    """What is known of a shard while it is being embedded."""

    rows: int = 0
    quarantined: list[dict[str, Any]] = field(default_factory=list)
    chunks: dict[str, str] = field(default_factory=dict)
    moments: Moments | None = None
    ids: list[str] = field(default_factory=list)
    values: list[Any] = field(default_factory=list)


class _ShardEmbedder:
    """Embeds shards one after another; loads the encoder when the first needs it."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._storage: Storage = run.storage
        self._encoder: Any = None
        self.rows_embedded = 0

    def embed(self, shard: Shard) -> tuple[ObjectInfo, Manifest]:
        """Embed one shard, or find that it was done before.

        Returns:
            The version that was read, and its manifest.
        """
        info = self._storage.stat(shard.key)
        key = _manifest_key(self._run, shard.role, info)
        done = manifest.load(self._storage, key)
        if done is None:
            done = manifest.commit(self._storage, key, self._embed(shard, info))
        assert done.ledger is not None
        done.ledger.check_budget(
            self._run.config.failure_budget,
            self._storage.uri(shard.key),
            self._storage.uri(done.outputs.get("quarantine", key)),
        )
        return info, done

    def _embed(self, shard: Shard, info: ObjectInfo) -> Manifest:
        watch = Stopwatch()
        prefix = _prefix(self._run, shard.role, info)
        progress = _Progress()
        for texts in self._chunks(shard, info):
            self._chunk(prefix, texts, progress)
        ledger = Ledger(
            rows_in=progress.rows,
            rows_out=len(progress.ids),
            quarantined=_tally(progress.quarantined),
        )
        outputs = {
            **progress.chunks,
            **tables.write_quarantine(self._storage, f"{prefix}/quarantine", progress.quarantined),
        }
        outputs |= self._summaries(prefix, progress)
        return Manifest(
            stage="embed",
            label=f"{shard.source} {shard.name}",
            ledger=ledger,
            outputs=outputs,
            figures={"shard": info.key, "etag": info.etag, "role": shard.role, "source": shard.source},
            seconds=watch.seconds(),
            peak_memory_mb=watch.peak_memory_mb(),
        )

    def _chunks(self, shard: Shard, info: ObjectInfo) -> Iterator[list[str | Refusal]]:
        """The texts of the shard, CHUNK_ROWS at a time."""
        where = self._storage.uri(info.key)
        try:
            with pq.ParquetFile(pa.PythonFile(self._storage.open(info), mode="r")) as file:
                columns, read = self._reader(shard, file.schema_arrow, where)
                for batch in file.iter_batches(CHUNK_ROWS, columns=columns):
                    yield read(batch)
        except (pa.ArrowException, OSError) as error:
            reason = " ".join(str(error).split())
            raise InputError(
                f"{where} is not readable as Parquet ({reason}): replace it, then clear its task"
            ) from error

    def _reader(self, shard: Shard, schema: pa.Schema, where: str) -> tuple[list[str], Any]:
        if shard.role == "sft":
            return rows.sft_columns(schema, where), _sft_texts
        path = rows.TextPath(self._run.config.text_columns[0])
        path.check(schema, where)
        return [path.column], lambda batch: [rows.decode(value) for value in path.extract(batch)]

    def _chunk(self, prefix: str, texts: list[str | Refusal], progress: _Progress) -> None:
        start = progress.rows
        name = f"chunk-{start:012d}"
        key = f"{prefix}/{name}.parquet"
        progress.rows += len(texts)
        kept = [(start + offset, text) for offset, text in enumerate(texts) if isinstance(text, str)]
        refused = [(start + offset, text) for offset, text in enumerate(texts) if isinstance(text, Refusal)]
        if kept:
            if self._storage.find(key) is None:
                self._storage.write_if_absent(key, tables.to_bytes(vectors.to_table(self._encode(kept))))
            found = vectors.read(self._storage, key)
            finite = set(found.rows.tolist())
            refused += [
                (row, Refusal("non_finite_vector", "the encoder gave a vector that is not finite"))
                for row, _ in kept
                if row not in finite
            ]
            _add(progress, name, key, found)
        progress.quarantined += [
            {"id": str(row), "error_class": why.error_class, "message": why.message}
            for row, why in sorted(refused, key=lambda item: item[0])
        ]

    def _encode(self, kept: list[tuple[int, str]]) -> Vectors:
        from aitp_tasks.embed.encoder import Encoder, non_finite

        if self._encoder is None:
            self._encoder = Encoder(self._run.config.encoder)
        values = self._encoder.encode([text for _, text in kept])
        self.rows_embedded += len(kept)
        finite = np.ones(len(kept), dtype=bool)
        finite[non_finite(values)] = False
        ids = [digest.of_text(text) for (_, text), good in zip(kept, finite, strict=True) if good]
        numbers = np.array([row for row, _ in kept], dtype=np.int64)
        return Vectors(ids, numbers[finite], values[finite])

    def _summaries(self, prefix: str, progress: _Progress) -> dict[str, str]:
        """Write moments and index of a shard that has vectors."""
        if progress.moments is None:
            return {}
        outputs = {"moments": f"{prefix}/moments.safetensors", "index": f"{prefix}/index.faiss"}
        built = index.build(np.concatenate(progress.values), vectors.faiss_ids(progress.ids))
        self._storage.write_if_absent(outputs["moments"], progress.moments.to_bytes())
        self._storage.write_if_absent(outputs["index"], index.to_bytes(built))
        return outputs


def _add(progress: _Progress, name: str, key: str, found: Vectors) -> None:
    if not len(found):
        return
    progress.chunks[name] = key
    moments = Moments.of(found.values)
    progress.moments = moments if progress.moments is None else progress.moments + moments
    progress.ids += found.doc_ids
    progress.values.append(found.values)


def _sft_texts(batch: pa.RecordBatch) -> list[str | Refusal]:
    return [
        turns if isinstance(turns, Refusal) else rows.first_turns(turns)
        for turns in rows.conversations(batch)
    ]


def _tally(quarantined: list[dict[str, Any]]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for row in quarantined:
        counts = manifest.add_counts(counts, {row["error_class"]: 1})
    return counts
