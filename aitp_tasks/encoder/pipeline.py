"""One shard: read, tokenise, embed and write, all at the same time, and resume where it was left.

A thread reads and tokenises the next window of chunks while the backend works, another
writes the finished ones. Memory holds three windows' tokens and two windows' vectors at
most, never a shard. Vectors lie in chunks; the moments and the manifest follow when all
of them are there.
"""

import logging
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from types import MappingProxyType
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from aitp_tasks.densities.moments import Moments
from aitp_tasks.encoder import chunks, windows
from aitp_tasks.encoder.ahead import ahead
from aitp_tasks.encoder.batches import Batch
from aitp_tasks.encoder.chunks import Chunk, Content, Counts
from aitp_tasks.encoder.opened import Encoder
from aitp_tasks.encoder.progress import Progress
from aitp_tasks.errors import TransientError
from aitp_tasks.inputs import parts
from aitp_tasks.inputs.examples import Rejection
from aitp_tasks.inputs.rows import Refusal
from aitp_tasks.inputs.shards import Reader, Sft
from aitp_tasks.records import manifest, tables, vectors
from aitp_tasks.records.kept import Keeper
from aitp_tasks.records.manifest import Ledger, Manifest, Stopwatch
from aitp_tasks.records.plan import Shard
from aitp_tasks.records.vectors import Values
from aitp_tasks.storage import ObjectChangedError, Storage

log = logging.getLogger(__name__)

#: Windows that are read ahead, and finished chunks that wait to be written.
_READ_AHEAD = 1
_WRITE_BEHIND = 2


def embed(
    storage: Storage,
    shard: Shard,
    reader: Reader,
    prefix: str,
    encoder: Callable[[], Encoder],
    progress: Progress,
    keeper: Keeper | None = None,
    known: Mapping[str, Values] = MappingProxyType({}),
) -> Manifest:
    """Embed one version of one shard; the manifest is not yet committed.

    Args:
        storage: where everything lies.
        shard: the shard as planned.
        reader: of the version that is read.
        prefix: where its chunks go.
        encoder: opens the encoder when the first text needs it.
        progress: the unit's counts.
        keeper: keeps some of the texts, of those that this unit reads.
        known: vectors float16 (d,) that there are already, by document id.

    Raises:
        InputError: the file is damaged.
        ObjectChangedError: it was replaced meanwhile.
    """
    watch = Stopwatch()
    summary = _stored(storage, prefix, progress)
    if summary.end:
        log.info("shard=%s goes on after row %d", shard.key, summary.end)
    log.info("shard=%s form=%s", shard.key, reader.form)
    texts = reader.texts(summary.end)
    if keeper is not None:
        texts = _seen(texts, keeper, summary.end)
    _Pipeline(storage, prefix, encoder(), summary, progress).run(texts, known)
    if parts.stat(storage, shard.key) != reader.info:
        raise ObjectChangedError(f"{storage.uri(shard.key)} changed while it was embedded")
    outputs = summary.outputs(prefix) | (keeper.write(storage, prefix) if keeper is not None else {})
    return _manifest(shard, reader, summary, outputs, watch)


def _seen(
    texts: Iterator[str | Rejection | Refusal], keeper: Keeper, start: int
) -> Iterator[str | Rejection | Refusal]:
    for row, text in enumerate(texts, start):
        if isinstance(text, str):
            keeper.see(row, text)
        yield text


def _manifest(
    shard: Shard, reader: Reader, summary: "_Summary", outputs: dict[str, str], watch: Stopwatch
) -> Manifest:
    facts = {
        "shard": shard.key,
        "etag": reader.info.etag,
        "role": shard.role,
        "source": shard.source,
        "form": reader.form,
        **({"not_kept": reader.not_kept.counts} if isinstance(reader, Sft) else {}),
    }
    return Manifest(
        stage="embed",
        label=f"{shard.source} {shard.name}",
        ledger=summary.ledger(),
        outputs=outputs,
        figures=facts | summary.figures(),
        seconds=watch.seconds(),
        peak_memory_mb=watch.peak_memory_mb(),
    )


def _stored(storage: Storage, prefix: str, progress: Progress) -> "_Summary":
    """The chunks that an earlier unit has left."""
    summary = _Summary(storage)
    for stored in chunks.find_stored(storage, prefix):
        summary.add(chunks.load(storage, stored))
        progress.skip(stored.end - stored.start)
    return summary


class _Pipeline:
    """Moves chunks from the reader through the backend to the writer."""

    def __init__(
        self, storage: Storage, prefix: str, encoder: Encoder, summary: "_Summary", progress: Progress
    ) -> None:
        self._storage = storage
        self._prefix = prefix
        self._encoder = encoder
        self._summary = summary
        self._progress = progress
        self._under_way: deque[Chunk] = deque()
        self._writes: deque[Future[None]] = deque()

    def run(self, texts: Iterator[Any], known: Mapping[str, Values]) -> None:
        """Embed and write all chunks."""
        facts, backend = self._encoder.facts, self._encoder.backend
        read = chunks.read(
            texts, self._encoder.tokeniser, backend.dimension, facts.normalised, self._summary.end, known
        )
        with (
            self._progress.working(),
            ThreadPoolExecutor(1) as self._writer,
            ahead(windows.grouped(read, backend.window_tokens), _READ_AHEAD) as ready,
            closing(backend.run(self._batches(ready))) as answers,
        ):
            for answer in answers:
                chunks.take(answer)
                self._progress.answered(answer, backend)
                self._pass_on()
            self._pass_on()
            self._wait_for_writes(0)
        if self._under_way:
            raise TransientError(
                f"{len(self._under_way)} chunks were left without an answer: run the task again"
            )

    def _batches(self, ready: Iterator[list[Chunk]]) -> Iterator[Batch]:
        for window in ready:
            batches = chunks.batches(window, self._encoder.backend.batch_tokens)
            self._under_way.extend(window)
            yield from batches
            # Chunks without any text have no answer that would pass them on.
            self._pass_on()

    def _pass_on(self) -> None:
        """Hand complete chunks to the writer, in the order of their rows."""
        while self._under_way and self._under_way[0].complete:
            chunk = self._under_way.popleft()
            self._wait_for_writes(_WRITE_BEHIND)
            self._writes.append(self._writer.submit(self._write, chunk))

    def _wait_for_writes(self, left: int) -> None:
        while len(self._writes) > left:
            self._writes.popleft().result()

    def _write(self, chunk: Chunk) -> None:
        self._summary.add(chunks.write(self._storage, self._prefix, chunk))
        self._progress.finished(chunk.rows)


class _Summary:
    """What all chunks of a shard add up to."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._counts = Counts()
        self._vectors = 0
        self._moments: Moments | None = None
        self._chunks: dict[str, str] = {}
        self._quarantine: list[pa.Table] = []
        self._ids: list[NDArray[np.int64]] = []

    @property
    def end(self) -> int:
        """The row after the last one."""
        return self._counts.rows

    def add(self, content: Content) -> None:
        """Take in the chunk that follows."""
        found = content.vectors
        if content.quarantine is not None:
            self._quarantine.append(content.quarantine)
        if len(found):
            moments = Moments.of(found.values)
            self._moments = moments if self._moments is None else self._moments + moments
            self._ids.append(vectors.faiss_ids(found.doc_ids))
        self._counts = self._counts.plus(content.counts)
        self._vectors += len(found)
        self._chunks[f"chunk-{content.stored.start:012d}"] = content.stored.key

    def ledger(self) -> Ledger:
        """Where every row went."""
        return Ledger(
            rows_in=self._counts.rows,
            rows_out=self._vectors,
            quarantined=self._counts.quarantined,
            rejected=self._counts.rejected,
        )

    def outputs(self, prefix: str) -> dict[str, str]:
        """Write moments and quarantine; the keys of everything that belongs to the shard."""
        outputs = dict(self._chunks)
        if self._quarantine:
            table = pa.concat_tables(self._quarantine)
            outputs["quarantine"] = tables.write(self._storage, f"{prefix}/quarantine", table)
        moments = self._moments.to_bytes() if self._moments is not None else b""
        # Of few rows, the vectors are sooner read than their d × d moments.
        if self._moments is not None and len(moments) < self._vectors * 2 * len(self._moments.total):
            outputs["moments"] = f"{prefix}/moments.safetensors"
            self._storage.write_if_absent(outputs["moments"], moments)
        return outputs

    def figures(self) -> dict[str, Any]:
        """Tokens, texts that were cut, and rows that repeat another row's text."""
        ids = np.concatenate(self._ids) if self._ids else np.empty(0, np.int64)
        return {
            "tokens": self._counts.tokens,
            "truncated_texts": self._counts.truncated,
            "repeated_texts": len(ids) - len(np.unique(ids)),
            "first_rejected": self._counts.first_rejected,
            "commonest_refusal": manifest.commonest(
                message for table in self._quarantine for message in table["message"].to_pylist()
            ),
        }
