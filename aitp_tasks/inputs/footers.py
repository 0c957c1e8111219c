"""What plan needs to know of the shards, from Parquet's footers above all; kept between plans.

``read`` returns rows and schema of each shard, read concurrently. Other formats
have no footer: of an SFT set their rows are counted, which reads all of the
shard, once; of a corpus, they are estimated from its head (``heads``). What it has read it keeps in one
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
from dataclasses import dataclass, replace

import pyarrow as pa
import pyarrow.parquet as pq

from aitp_tasks.errors import InputError
from aitp_tasks.inputs import heads, mistakes, tables
from aitp_tasks.inputs.files import File, MistakenError
from aitp_tasks.inputs.formats import Format
from aitp_tasks.records.plan import UNKNOWN_ROWS
from aitp_tasks.storage import ObjectInfo, Storage, open_storage

log = logging.getLogger(__name__)

#: One process's threads take turns at Python: of many shards each process reads a part.
_MANY_SHARDS = 10_000
_CORPUS = "corpus/"
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
        ("estimated", pa.bool_()),
        ("schema", pa.dictionary(pa.int32(), pa.binary())),
    ]
)


@dataclass(frozen=True, slots=True)
class Footer:
    """What one shard's footer says."""

    rows: int
    #: The Arrow schema without its metadata, in Arrow's IPC format: equal bytes, equal schema. Of rows of
    #: JSON in a corpus their shape (``shapes``), of those in an SFT set nothing.
    schema: bytes
    #: Whether the rows are estimated.
    estimated: bool = False
    #: Why the shard is no such file at all, whatever is tried again; empty where it is one.
    mistake: str = ""


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
    kept = sum(map(_is_kept, footers))
    log.info("footers source=%s shards=%d read=%d readable=%d", source, len(shards), len(missing), kept)
    if any(_is_kept(footers[number]) for number in missing):
        storage.write(cache_key, _to_bytes(shards, footers))
    return footers


def look(storage: Storage, shards: Sequence[ObjectInfo]) -> list[Footer | None]:
    """The same of any shards, without keeping anything."""
    return list(_read_in_threads(storage, shards))


def _is_kept(footer: Footer | None) -> bool:
    return footer is not None and not footer.mistake


def _read_all(storage: Storage, shards: Sequence[ObjectInfo]) -> Iterator[Footer | None]:
    # Equal schemas share one object: they can be wide.
    distinct: dict[bytes, bytes] = {}
    read = _read_in_processes if len(shards) >= _MANY_SHARDS else _read_in_threads
    for footer in read(storage, shards):
        yield footer and replace(footer, schema=distinct.setdefault(footer.schema, footer.schema))


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
    file = File(storage, shard)
    try:
        if file.kind.format is Format.PARQUET:
            return _footer(storage, shard)
        return _estimated(file) if shard.key.startswith(_CORPUS) else _counted(file)
    except MistakenError as error:
        return Footer(UNKNOWN_ROWS, b"", mistake=str(error))
    except (pa.ArrowException, OSError, InputError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        reason = " ".join(str(error).split())
        fault = "has no readable footer" if file.kind.format is Format.PARQUET else "cannot be counted"
        log.warning("shard=%s %s: its embed unit will fail: %s", shard.key, fault, reason)
        return _mistaken(file)


def _footer(storage: Storage, shard: ObjectInfo) -> Footer:
    # The same schema as a reader of the file has: that of the metadata alone is another one.
    with pq.ParquetFile(pa.BufferReader(_tail(storage, shard))) as file:
        return Footer(file.metadata.num_rows, _encoded(tables.stored(file.schema_arrow)))


def _counted(file: File) -> Footer:
    return Footer(file.count(), _encoded(file.schema) if file.kind.is_table else b"")


def _estimated(file: File) -> Footer:
    if file.kind.is_table:
        rows, estimated = file.table.estimate()
        return Footer(rows, _encoded(file.schema), estimated)
    head = heads.read(file)
    return Footer(head.rows, head.shape, head.estimated)


def _mistaken(file: File) -> Footer | None:
    """Of Parquet without a footer, whether it is Parquet at all."""
    mistake = mistakes.of_bytes(file.beginning(mistakes.LOOKED_AT), file.kind)
    return None if mistake is None else Footer(UNKNOWN_ROWS, b"", mistake=str(file.mistaken(mistake)))


def _encoded(schema: pa.Schema) -> bytes:
    data: bytes = schema.serialize().to_pybytes()
    return data


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
    names, tags, rows, guessed = (table[name].to_pylist() for name in ("key", "etag", "rows", "estimated"))
    encoded = table["schema"].combine_chunks()
    distinct = encoded.dictionary.to_pylist()
    return {
        (name, tag): Footer(count, distinct[number], estimated)
        for name, tag, count, estimated, number in zip(
            names, tags, rows, guessed, encoded.indices.to_pylist(), strict=True
        )
    }


def _to_bytes(shards: Sequence[ObjectInfo], footers: Sequence[Footer | None]) -> bytes:
    found = zip(shards, footers, strict=True)
    kept = [(shard, footer) for shard, footer in found if footer is not None and not footer.mistake]
    numbers: dict[bytes, int] = {}
    encoded = [numbers.setdefault(footer.schema, len(numbers)) for _, footer in kept]
    table = pa.table(
        [
            pa.array([shard.key for shard, _ in kept], pa.string()),
            pa.array([shard.etag for shard, _ in kept], pa.string()),
            pa.array([footer.rows for _, footer in kept], pa.int64()),
            pa.array([footer.estimated for _, footer in kept], pa.bool_()),
            pa.DictionaryArray.from_arrays(
                pa.array(encoded, pa.int32()), pa.array(list(numbers), pa.binary())
            ),
        ],
        schema=_CACHE_SCHEMA,
    )
    sink = io.BytesIO()
    pq.write_table(table, sink, compression="zstd")
    return sink.getvalue()
