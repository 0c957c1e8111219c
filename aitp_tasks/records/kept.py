"""Texts of documents that a sample probably draws, which embed keeps as it comes by them.

A draw is a hash of the seed and the document, so those that come first are known
before anything is selected. Whoever wants a text that was not kept reads its shard:
what is kept saves reading and decides nothing.
"""

import logging

import pyarrow as pa

from aitp_tasks.errors import InputError
from aitp_tasks.records import digest, tables
from aitp_tasks.records.manifest import Manifest
from aitp_tasks.storage import Storage

log = logging.getLogger(__name__)

#: The name of their key in the manifest of a shard.
OUTPUT = "texts"
#: So many times as many texts are kept as are drawn: enough where a 16th of the documents is selected.
_MARGIN = 16
#: Where this share would be exceeded none is kept: of shards that give so many, reading is no waste.
_MOST = 1 / 16
#: Bytes of texts that are held; of a shard with more, those that come first are kept.
_MOST_BYTES = 32 * 2**20
_DRAWS = 2**64


def draw(seed: int, doc_id: str) -> int:
    """What a document is drawn by, from 0 to 2⁶⁴; the smallest come first."""
    return int(digest.of_text(f"{seed}:{doc_id}")[:16], 16)


def share(wanted: int, documents: int) -> float:
    """The share of the texts of a corpus that is kept, when so many of its documents are to be drawn."""
    kept = _MARGIN * wanted / max(documents, 1)
    return kept if kept <= _MOST else 0.0


class Keeper:
    """Keeps texts of one shard."""

    def __init__(self, seed: int, kept: float) -> None:
        """``kept`` is the share of all documents, those whose draws come first."""
        self._seed = seed
        self._limit = int(kept * _DRAWS)
        self._held: list[tuple[int, int, str]] = []
        self._bytes = 0

    def see(self, row: int, text: str) -> None:
        """Take in a row's text, and keep it or not."""
        drawn = draw(self._seed, digest.of_text(text))
        if drawn >= self._limit:
            return
        self._held.append((drawn, row, text))
        self._bytes += len(text)
        while self._bytes > _MOST_BYTES and self._limit:
            self._limit //= 2
            self._held = [held for held in self._held if held[0] < self._limit]
            self._bytes = sum(len(text) for _, _, text in self._held)

    def write(self, storage: Storage, prefix: str) -> dict[str, str]:
        """Write what is kept, if anything; the ``outputs`` entry of the shard's manifest."""
        if not self._held:
            return {}
        columns = {"row": [row for _, row, _ in self._held], "text": [text for _, _, text in self._held]}
        return {OUTPUT: tables.write(storage, f"{prefix}/texts", pa.table(columns, _SCHEMA))}


_SCHEMA = pa.schema([("row", pa.int64()), ("text", pa.large_string())])


def read(storage: Storage, shard: Manifest) -> dict[int, str]:
    """The kept texts of a shard, by row; none where they were deleted or damaged."""
    if OUTPUT not in shard.outputs:
        return {}
    try:
        table = tables.read(storage, shard.output(OUTPUT))
    except (InputError, pa.ArrowException, OSError) as error:
        where = storage.uri(shard.output(OUTPUT))
        log.warning("kept=%s is not used, its shard is read: %s", where, " ".join(str(error).split()))
        return {}
    return dict(zip(table["row"].to_pylist(), table["text"].to_pylist(), strict=True))
