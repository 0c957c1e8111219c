"""The index of one set and the places of its documents, from the set's shards.

Each document is in the index once, however often its text occurs, under an id
that says what it is and not where it lies. Content-addressed: any run over the
same shards finds what another has built.
"""

import logging
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from aitp_tasks.errors import InputError
from aitp_tasks.records import digest, embedded, manifest, tables, vectors
from aitp_tasks.records.manifest import Ledger, Manifest, Stopwatch
from aitp_tasks.records.prefetched import SHARDS, prefetched
from aitp_tasks.storage import Storage
from aitp_tasks.vector_index import library, places
from aitp_tasks.vector_index.library import ID_BYTES, INDEX_FILE, LISTS_FILE, Quantiser
from aitp_tasks.vector_index.lists import Encoded, Encoder, Merge
from aitp_tasks.vector_index.places import Facts, Owners

log = logging.getLogger(__name__)

_PLACES_FILE = "places.parquet"
_FILES = {"index": INDEX_FILE, "lists": LISTS_FILE, "places": _PLACES_FILE}
#: Of a document's id and row in memory.
_DOCUMENT_BYTES = 128
#: Of shards that are read ahead.
_WAITING_BYTES = 64 * 2**20


@dataclass(frozen=True)
class Shard:
    """One shard of a set.

    Attributes:
        facts: source, key and etag.
        rows: how many of its rows have a vector.
        chunks: keys of its vectors.
        documents: key of a smaller table with ``doc_id`` and ``row`` of all of them, if there is one.
        encoded: key of its encoded vectors, if there is one.
    """

    facts: Facts
    rows: int
    chunks: tuple[str, ...]
    documents: str | None = None
    encoded: str | None = None

    @classmethod
    def of(cls, shard: Manifest, **keys: str | None) -> "Shard":
        """The shard of an embed manifest."""
        assert shard.ledger is not None
        source, key, etag = (str(shard.figures[name]) for name in ("source", "shard", "etag"))
        return cls((source, key, etag), shard.ledger.rows_out, tuple(embedded.chunk_keys(shard)), **keys)


def build(
    storage: Storage, prefix: str, label: str, shards: Sequence[Shard], quantiser: Quantiser | None
) -> Manifest:
    """Build the index and the places, or find that they were built before.

    Args:
        storage: where everything lies.
        prefix: what their keys start with; it names the encoder and the set.
        label: the set, for people.
        shards: all of them, in any order.
        quantiser: of an index of inverted lists; None for an exact one.

    Raises:
        InputError: vectors are missing, damaged, or of another encoder or quantiser.
    """
    content = sorted([list(shard.facts), list(shard.chunks)] for shard in shards)
    key = f"{prefix}/{digest.of_value([content, quantiser.digest if quantiser else None])}"
    done = manifest.load(storage, f"{key}.json")
    if done is None:
        with tempfile.TemporaryDirectory(prefix="aitp-index-") as folder:
            made = _Build(storage, Path(folder), shards, quantiser).manifest(key, label)
        done = manifest.commit(storage, f"{key}.json", made)
    return done


class _Build:
    """Builds in a temporary folder, then uploads."""

    def __init__(
        self, storage: Storage, folder: Path, shards: Sequence[Shard], quantiser: Quantiser | None
    ) -> None:
        self._storage = storage
        self._folder = folder
        self._shards = shards
        self._quantiser = quantiser
        self._watch = Stopwatch()
        self._places = places.Builder(
            folder, [shard.facts for shard in shards], sum(shard.rows for shard in shards)
        )

    def manifest(self, key: str, label: str) -> Manifest:
        """Build all; the manifest is not yet committed."""
        read = prefetched(self._documents, self._shards, self._ahead(_DOCUMENT_BYTES))
        for shard, found in zip(self._shards, read, strict=True):
            self._places.add(shard.facts, *found)
        owners = self._places.write(self._folder / _PLACES_FILE)
        counts = self._places.counts
        expected = sum(shard.rows for shard in self._shards)
        if counts.rows != expected:
            raise InputError(f"the shards of {label} hold {counts.rows} of {expected} vectors: embed anew")
        held = self._write_lists(owners) if self._quantiser else self._write_flat(owners)
        if held != counts.documents:
            raise InputError(
                f"the index of {label} has {held} vectors for {counts.documents} documents: "
                "delete the run's density manifests, then run `aitp density` again"
            )
        return self._told(key, label)

    def _ahead(self, row_bytes: int) -> int:
        """How many shards are read ahead, so that what waits stays small: one at least."""
        largest = max((shard.rows for shard in self._shards), default=0) * row_bytes
        return min(max(_WAITING_BYTES // max(largest, 1), 1), SHARDS)

    def _told(self, key: str, label: str) -> Manifest:
        """Upload the files, and say what is in them."""
        counts = self._places.counts
        log.info(
            "index label=%s documents=%d repeated=%d collisions=%d",
            label,
            counts.documents,
            counts.repeated,
            counts.collisions,
        )
        outputs = {name: f"{key}/{file}" for name, file in _FILES.items() if (self._folder / file).exists()}
        for name, output in outputs.items():
            self._storage.upload(output, self._folder / _FILES[name])
        return Manifest(
            stage="index",
            label=label,
            ledger=Ledger(
                rows_in=counts.rows,
                rows_out=counts.documents,
                rejected={"repeated_text": counts.repeated, "id_collision": counts.collided_rows},
            ),
            outputs=outputs,
            figures={
                "kind": "inverted_lists" if self._quantiser else "flat",
                "nlist": self._quantiser.lists if self._quantiser else 0,
                "rows": counts.rows,
                "documents": counts.documents,
                "repeated": counts.repeated,
                "collisions": counts.collisions,
                "bytes": sum((self._folder / _FILES[name]).stat().st_size for name in outputs),
            },
            seconds=self._watch.seconds(),
            peak_memory_mb=self._watch.peak_memory_mb(),
        )

    def _documents(self, shard: Shard) -> tuple[list[str], NDArray[np.int64]]:
        """Document ids and row numbers of a shard."""
        keys = shard.chunks if shard.documents is None else (shard.documents,)
        ids: list[str] = []
        rows = [np.empty(0, np.int64)]
        for table in (tables.read(self._storage, key, ["doc_id", "row"]) for key in keys):
            ids += table["doc_id"].to_pylist()
            rows.append(table["row"].to_numpy())
        return ids, np.concatenate(rows)

    def _write_flat(self, owners: Owners) -> int:
        """Write an exact index; how many vectors it has."""
        values, ids = [], []
        shards = {key: self._places.number(shard.facts) for shard in self._shards for key in shard.chunks}
        for key, found in vectors.read_all(self._storage, shards):
            numbers = vectors.faiss_ids(found.doc_ids)
            kept = owners.owned(shards[key], numbers, found.rows)
            values.append(found.values[kept])
            ids.append(numbers[kept])
        order = np.argsort(np.concatenate(ids))
        index = library.flat(np.concatenate(values)[order], np.concatenate(ids)[order])
        (self._folder / INDEX_FILE).write_bytes(library.to_bytes(index))
        return int(index.ntotal)

    def _write_lists(self, owners: Owners) -> int:
        """Write an index of inverted lists; how many vectors it has."""
        assert self._quantiser is not None
        merge = Merge(self._quantiser, self._folder)
        read = prefetched(self._encoded, self._shards, self._ahead(self._quantiser.code_size + ID_BYTES))
        for shard, found in zip(self._shards, read, strict=True):
            merge.add(found.only(owners.owned(self._places.number(shard.facts), found.ids)))
        sizes = merge.write(self._folder / LISTS_FILE)
        self._quantiser.write_index(self._folder, sizes)
        return int(sizes.sum())

    def _encoded(self, shard: Shard) -> Encoded:
        assert self._quantiser is not None
        if shard.encoded is not None:
            return Encoded.read(self._storage, shard.encoded, self._quantiser)
        encoder = Encoder(self._quantiser)
        for _, found in vectors.read_all(self._storage, shard.chunks):
            encoder.add(found)
        return encoder.finish()
