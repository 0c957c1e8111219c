"""What plan needs of the shards' Parquet footers, read concurrently and kept between plans.

``read`` returns rows and schema of each shard; JSON has no footer, so its rows are
counted, which reads all of the shard, once. What it has read it keeps in one
object a source, ``footers/<role>/<source>.parquet``, by key and entity tag, so
that the next plan reads the footers of new and changed shards only. The object
is a cache and nothing more: whoever deletes it loses time, of two plans at once
the last one's stays, and a damaged one is made anew. A shard without a readable
footer is not kept: it is tried again by each plan.
"""

import io
import logging
import multiprocessing
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.parquet as pq

from aitp_tasks.errors import InputError
from aitp_tasks.inputs.shards import count_rows
from aitp_tasks.storage import ObjectInfo, Storage, open_storage

log = logging.getLogger(__name__)

#: One process's threads take turns at Python: of many shards each process reads a part.
_MANY_SHARDS = 10_000
_PARQUET = ".parquet"
_MAX_PROCESSES = 4
_BATCH = 64
#: Read at once from the end of a shard. Holds most footers; of a longer one the rest is read too.
TAIL_BYTES = 64 * 1024
#: A footer ends with its length in four bytes, little-endian, and "PAR1".
_END_BYTES = 8
#: An object of another schema was kept by another release, and is made anew.
_CACHE_SCHEMA = pa.schema(
    [
        ("key", pa.string()),
        ("etag", pa.string()),
        ("rows", pa.int64()),
        ("schema", pa.dictionary(pa.int32(), pa.binary())),
    ]
)


@dataclass(frozen=True, slots=True)
class Footer:
    """What one shard's footer says."""

    rows: int
    #: The Arrow schema without its metadata, in Arrow's IPC format: equal bytes, equal schema. Empty of JSON.
    schema: bytes


def read(storage: Storage, role: str, source: str, shards: Sequence[ObjectInfo]) -> list[Footer | None]:
    """The footers of one source's shards, in their order; None where there is no readable one.

    Raises:
        TransientError: the storage does not answer, or a shard was replaced meanwhile.
    """
    cache_key = f"footers/{role}/{source}.parquet"
    known = _load(storage, cache_key)
    footers = [known.get((shard.key, shard.etag)) for shard in shards]
    del known
    missing = [number for number, footer in enumerate(footers) if footer is None]
    found = _read_all(storage, [shards[number] for number in missing])
    for number, footer in zip(missing, found, strict=True):
        footers[number] = footer
    kept = sum(footer is not None for footer in footers)
    log.info("footers source=%s shards=%d read=%d readable=%d", source, len(shards), len(missing), kept)
    if any(footers[number] is not None for number in missing):
        storage.write(cache_key, _to_bytes(shards, footers))
    return footers


def _read_all(storage: Storage, shards: Sequence[ObjectInfo]) -> Iterator[Footer | None]:
    # Equal schemas share one object: they can be wide.
    distinct: dict[bytes, bytes] = {}
    read = _read_in_processes if len(shards) >= _MANY_SHARDS else _read_in_threads
    for footer in read(storage, shards):
        yield footer and Footer(footer.rows, distinct.setdefault(footer.schema, footer.schema))


def _read_in_processes(storage: Storage, shards: Sequence[ObjectInfo]) -> Iterator[Footer | None]:
    processes = min(os.cpu_count() or 1, _MAX_PROCESSES)
    parts = [
        shards[start : start + _MANY_SHARDS // 10] for start in range(0, len(shards), _MANY_SHARDS // 10)
    ]
    # Spawned, because a forked copy of running threads and open connections is of no use.
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, spawn, _open_in_process, (storage.root,)) as workers:
        for footers in workers.map(_read_part, parts):
            yield from footers


_process_storage: Storage


def _open_in_process(root: str) -> None:
    global _process_storage
    _process_storage = open_storage(root)


def _read_part(shards: Sequence[ObjectInfo]) -> list[Footer | None]:
    return list(_read_in_threads(_process_storage, shards))


def _read_in_threads(storage: Storage, shards: Sequence[ObjectInfo]) -> Iterator[Footer | None]:
    # In batches: a future costs more memory than a footer.
    batches = [shards[start : start + _BATCH] for start in range(0, len(shards), _BATCH)]
    with ThreadPoolExecutor(storage.concurrency) as readers:
        for footers in readers.map(lambda batch: [_read_one(storage, shard) for shard in batch], batches):
            yield from footers


def _read_one(storage: Storage, shard: ObjectInfo) -> Footer | None:
    if not shard.key.endswith(_PARQUET):
        return _counted(storage, shard)
    try:
        metadata = pq.read_metadata(pa.BufferReader(_tail(storage, shard)))
        schema = metadata.schema.to_arrow_schema().remove_metadata()
    except (pa.ArrowException, OSError) as error:
        reason = " ".join(str(error).split())
        log.warning("shard=%s has no readable footer: its embed unit will fail: %s", shard.key, reason)
        return None
    return Footer(metadata.num_rows, schema.serialize().to_pybytes())


def _counted(storage: Storage, shard: ObjectInfo) -> Footer | None:
    """The rows of a JSON shard."""
    try:
        return Footer(count_rows(storage, shard), b"")
    except InputError as error:
        log.warning("shard=%s cannot be counted: its embed unit will fail: %s", shard.key, error)
        return None


def _tail(storage: Storage, shard: ObjectInfo) -> bytes:
    """The end of a shard, with the whole footer where the shard is Parquet."""
    size = min(shard.size, TAIL_BYTES)
    if size == 0:
        return b""
    tail = storage.read_range(shard, shard.size - size, size)
    needed = int.from_bytes(tail[-_END_BYTES:-4], "little") + _END_BYTES
    if tail.endswith(b"PAR1") and size < needed <= shard.size:
        tail = storage.read_range(shard, shard.size - needed, needed - size) + tail
    return tail


def _load(storage: Storage, key: str) -> dict[tuple[str, str], Footer]:
    """What earlier plans have kept, by key and entity tag."""
    if storage.find(key) is None:
        return {}
    try:
        table = pq.read_table(pa.BufferReader(storage.read(key)))
        if not table.schema.equals(_CACHE_SCHEMA):
            raise pa.ArrowInvalid("it was kept by another release")
    except (pa.ArrowException, OSError) as error:
        log.warning("cache=%s is not used and made anew: %s", key, " ".join(str(error).split()))
        return {}
    names, tags, rows = (table[name].to_pylist() for name in ("key", "etag", "rows"))
    encoded = table["schema"].combine_chunks()
    distinct = encoded.dictionary.to_pylist()
    return {
        (name, tag): Footer(count, distinct[number])
        for name, tag, count, number in zip(names, tags, rows, encoded.indices.to_pylist(), strict=True)
    }


def _to_bytes(shards: Sequence[ObjectInfo], footers: Sequence[Footer | None]) -> bytes:
    kept = [(shard, footer) for shard, footer in zip(shards, footers, strict=True) if footer is not None]
    numbers: dict[bytes, int] = {}
    encoded = [numbers.setdefault(footer.schema, len(numbers)) for _, footer in kept]
    table = pa.table(
        [
            pa.array([shard.key for shard, _ in kept], pa.string()),
            pa.array([shard.etag for shard, _ in kept], pa.string()),
            pa.array([footer.rows for _, footer in kept], pa.int64()),
            pa.DictionaryArray.from_arrays(
                pa.array(encoded, pa.int32()), pa.array(list(numbers), pa.binary())
            ),
        ],
        schema=_CACHE_SCHEMA,
    )
    sink = io.BytesIO()
    pq.write_table(table, sink, compression="zstd")
    return sink.getvalue()
