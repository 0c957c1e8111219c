"""indexes: whether the indexes of the newest runs can be opened, and answer as their vectors say.

Looks at the indexes of the runs that ``aitp gc`` keeps: those of the latest versions, of
the newest finished runs, and of runs that are under way; each once, however many runs
share it. Of each: its manifest, its size, and the answers to a few documents that are
drawn anew each day. What an exact index answers is compared with all vectors that embed
has stored; of one of inverted lists, with those of the documents that it names, and it
must find what it is asked for. One that is not as it should be holds no other one up.
"""

import logging
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from aitp_tasks.config import RunConfig
from aitp_tasks.errors import InputError
from aitp_tasks.records import embedded, indexed, manifest, vectors
from aitp_tasks.records.manifest import Manifest, Stopwatch
from aitp_tasks.records.prefetched import SHARDS, prefetched
from aitp_tasks.records.run import Run
from aitp_tasks.records.vectors import Vectors
from aitp_tasks.storage import Storage, open_storage
from aitp_tasks.tools.gc import runs
from aitp_tasks.vector_index.opened import OpenIndex, with_remedy

log = logging.getLogger(__name__)

#: Documents that an index is asked for, and how many it is to find for each.
_QUERIES, _NEAREST = 8, 5
#: Of a cosine: sums in another order, and a text that was embedded twice in different batches.
_TOLERANCE = 2e-3
_DAY = 86_400
#: What a damaged object raises that is no error of ours.
_DAMAGED = (ValueError, LookupError, pa.ArrowException)


@dataclass(frozen=True)
class _Index:
    """One index, and a run that uses it.

    Attributes:
        run: the run.
        role: ``corpus`` or ``sft``.
        key: what the keys of its objects start with.
    """

    run: Run
    role: str
    key: str


def execute(config: RunConfig, seed: int | None = None) -> dict[str, Any]:
    """Check the indexes below the configuration's root.

    Args:
        config: names the root, and how many runs are looked at.
        seed: draws the documents; by default the day.

    Raises:
        InputError: some are not as they should be; each was logged with its remedy.
    """
    watch = Stopwatch()
    storage = open_storage(config.root)
    found = runs.find(storage, config.maintenance.keep_runs)
    draw = np.random.default_rng(int(time.time()) // _DAY if seed is None else seed)
    prefixes = [*found.kept, *found.unfinished]
    wrong, held, seen = list[str](), 0, set[str]()
    for prefix in prefixes:
        try:
            uses = [index for index in _of(storage, prefix) if index.key not in seen]
        except (InputError, *_DAMAGED) as error:
            wrong.append(_told(storage.uri(prefix), error))
            continue
        for index in uses:
            seen.add(index.key)
            try:
                held += _vectors_checked(index, draw)
            except (InputError, *_DAMAGED) as error:
                wrong.append(_told(f"index {storage.uri(index.key)} of {index.run.uri}", error))
    if wrong:
        raise InputError(
            f"{len(wrong)} of {len(seen)} indexes are not as they should be, the first: {wrong[0]}"
        )
    return {
        "stage": "indexes",
        "runs": len(prefixes),
        "indexes": len(seen),
        "vectors": held,
        "seconds": watch.seconds(),
    }


def _told(what: str, error: Exception) -> str:
    """Log what is wrong; what was logged."""
    reason = " ".join(str(error).split())
    said = f"{what}: {reason}" if isinstance(error, InputError) else f"{what} cannot be read ({reason})"
    log.error("%s", said)
    return said


def _of(storage: Storage, prefix: str) -> Iterator[_Index]:
    """The indexes that a run has built so far."""
    run = Run.open(storage.uri(prefix))
    for role, stage in indexed.STAGES.items():
        done = run.find_manifest(stage)
        if done is not None:
            yield _Index(run, role, done.output(f"{role}_index").rpartition("/")[0])


def _vectors_checked(index: _Index, draw: np.random.Generator) -> int:
    """Check one index; how many vectors it has.

    Raises:
        InputError: it is not as it should be, or the vectors that it was built of are not there.
    """
    run, role = index.run, index.role
    storage, keys = run.storage, indexed.keys(run, role)
    remedy = (storage, keys[f"{role}_places"], indexed.STAGES[role])
    with OpenIndex(storage, keys, role, few_queries=True) as opened:
        with with_remedy(*remedy):
            _require_size(storage, index, opened.size)
        chunks = _chunks(run, role, None if opened.exact else draw)
        asked = _drawn(storage, chunks, draw)
        similarities, ids = opened.search(asked.values, _NEAREST)
        answered = _stored_at(run, role, opened.places(ids[ids >= 0]))
        with with_remedy(*remedy):
            _require_right(opened, asked, similarities, ids, answered)
            if opened.exact:
                _require_whole(storage, opened, asked, similarities, ids, chunks)
            else:
                _require_nothing_nearer(opened, asked, similarities, ids, asked)
        log.info("index=%s is right: vectors=%d queries=%d", index.key, opened.size, len(asked))
        return opened.size


def _require_size(storage: Storage, index: _Index, size: int) -> None:
    built = manifest.load(storage, f"{index.key}.json")
    if built is None:
        raise storage.missing(f"{index.key}.json")
    documents = built.figures.get("documents")
    if documents != size:
        raise InputError(
            f"{storage.uri(index.key)} has {size} vectors, its manifest says {documents} documents"
        )


def _chunks(run: Run, role: str, draw: np.random.Generator | None) -> list[str]:
    """Keys of the vectors of a set; where there is a draw, of so many of its groups as are asked."""
    groups = [group for group in run.plan.groups_of(role) if embedded.count(run, group)]
    if draw is not None:
        groups = [groups[place] for place in draw.permutation(len(groups))[:_QUERIES]]
    return [
        key for group in groups for shard in embedded.shards(run, group) for key in embedded.chunk_keys(shard)
    ]


def _drawn(storage: Storage, chunks: Sequence[str], draw: np.random.Generator) -> Vectors:
    """Some documents, each of a chunk of its own as far as there are so many."""
    found = list[tuple[str, int, vectors.Values]]()
    for place in draw.permutation(len(chunks)):
        chunk = vectors.read(storage, chunks[place])
        for row in draw.permutation(len(chunk))[: max(_QUERIES // len(chunks), 1)]:
            found.append((chunk.doc_ids[row], int(chunk.rows[row]), chunk.values[row]))
        if len(found) >= _QUERIES:
            break
    names, rows, values = zip(*found, strict=True)
    return Vectors(list(names), np.array(rows, np.int64), np.stack(values))


def _stored_at(run: Run, role: str, places: pa.Table) -> Vectors:
    """What embed has stored at some places.

    Raises:
        InputError: there is nothing, or it is of another document.
    """
    storage = run.storage

    def at(place: dict[str, Any]) -> tuple[str, int, vectors.Values]:
        key = f"{embedded.shard_prefix(run, role, place['shard'], place['etag'])}/manifest.json"
        shard = manifest.load(storage, key)
        if shard is None:
            raise InputError(f"{storage.uri(key)} does not exist: clear embed")
        found = _row(storage, shard, int(place["row"]))
        if found is None or found[0] != place["doc_id"]:
            raise InputError(
                f"row {place['row']} of {storage.uri(place['shard'])} is not that of document "
                f"{place['doc_id']}, as the index's places say: delete {storage.uri(key)}, then clear embed"
            )
        return place["doc_id"], int(place["row"]), found[1]

    names, rows, values = zip(*prefetched(at, places.to_pylist(), SHARDS), strict=True)
    return Vectors(list(names), np.array(rows, np.int64), np.stack(values))


def _row(storage: Storage, shard: Manifest, row: int) -> tuple[str, vectors.Values] | None:
    """Document and vector of a row of a shard; None where it has none."""
    for key in embedded.chunk_keys(shard):
        if row in embedded.chunk_rows(key):
            chunk = vectors.read(storage, key)
            (here,) = np.nonzero(chunk.rows == row)
            return (chunk.doc_ids[here[0]], chunk.values[here[0]]) if len(here) else None
    return None


def _require_right(
    opened: OpenIndex,
    asked: Vectors,
    similarities: NDArray[np.float32],
    ids: NDArray[np.int64],
    answered: Vectors,
) -> None:
    """Make sure that each cosine which was answered is that of the two vectors."""
    numbers = vectors.faiss_ids(answered.doc_ids)
    wrong = numbers != ids[ids >= 0]
    queries = np.nonzero(ids >= 0)[0]
    pairs = opened.as_stored(answered.values) * _unit(asked.values)[queries]
    cosines = pairs.sum(axis=1).clip(-1, 1)
    wrong |= ~(np.abs(cosines - similarities[ids >= 0]) <= _TOLERANCE)
    if wrong.any():
        first = int(np.nonzero(wrong)[0][0])
        raise InputError(
            f"of {len(wrong)} documents that the index finds, {int(wrong.sum())} are not so near as it says: "
            f"{answered.doc_ids[first]} at a cosine of {cosines[first]:.4f}, not "
            f"{similarities[ids >= 0][first]:.4f}"
        )


def _require_nothing_nearer(
    opened: OpenIndex,
    asked: Vectors,
    similarities: NDArray[np.float32],
    ids: NDArray[np.int64],
    among: Vectors,
) -> NDArray[np.int64]:
    """Make sure that no vector of some is nearer than what was answered; the ids of those, int64 (n,)."""
    numbers = vectors.faiss_ids(among.doc_ids)
    # Rounded, a vector may be a little longer than 1.
    cosines = (_unit(asked.values) @ opened.as_stored(among.values).T).clip(-1, 1)
    # Where fewer were found than asked for, the last cosine is -inf.
    nearer = cosines > similarities[:, -1:] + _TOLERANCE
    missed = nearer & (numbers != ids[:, :, None]).all(axis=1)
    if missed.any():
        query, place = (int(where[0]) for where in np.nonzero(missed))
        raise InputError(
            f"the index does not find document {among.doc_ids[place]} at a cosine of "
            f"{cosines[query, place]:.4f} to {asked.doc_ids[query]}, but others up to "
            f"{similarities[query, -1]:.4f}"
        )
    return numbers


def _require_whole(
    storage: Storage,
    opened: OpenIndex,
    asked: Vectors,
    similarities: NDArray[np.float32],
    ids: NDArray[np.int64],
    chunks: Sequence[str],
) -> None:
    """Compare what an exact index has answered with all vectors, and their number with its own."""
    found = [np.empty(0, np.int64)]
    for chunk in prefetched(lambda key: vectors.read(storage, key), chunks, SHARDS):
        if len(chunk):
            found.append(_require_nothing_nearer(opened, asked, similarities, ids, chunk))
    documents = len(np.unique(np.concatenate(found)))
    if documents != opened.size:
        raise InputError(f"the index has {opened.size} vectors, its shards {documents} documents")


def _unit(values: vectors.Values) -> NDArray[np.float64]:
    exact = values.astype(np.float64)
    lengths = np.linalg.norm(exact, axis=1, keepdims=True)
    scaled: NDArray[np.float64] = exact / np.where(lengths > 0, lengths, 1.0)
    return scaled
