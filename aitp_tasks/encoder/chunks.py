"""Chunks: the rows of a shard that are embedded, written and resumed together.

A chunk is stored as Parquet (document id, row, vector) under
``rows-<start>-<end>.parquet``; its metadata counts rows and tokens, and its
quarantined rows, if any, were written beside it before. A stored chunk is whole,
so a unit that was killed goes on after the last of them.
"""

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from types import MappingProxyType

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from aitp_tasks.densities.moments import LARGEST
from aitp_tasks.encoder.batches import Answer, Batch, Tokens, form
from aitp_tasks.encoder.tokens import Tokenised, Tokeniser
from aitp_tasks.inputs.examples import Rejection
from aitp_tasks.inputs.rows import Refusal
from aitp_tasks.records import digest, embedded, manifest, tables, vectors
from aitp_tasks.records.vectors import Values, Vectors
from aitp_tasks.storage import Storage

#: Rows of a chunk: what an interruption can cost.
CHUNK_ROWS = 512
#: Texts that are tokenised at a time; whole texts are held no longer than that.
_TEXTS_AT_A_TIME = 64
_CHARACTERS_AT_A_TIME = 4_000_000
_METADATA = b"aitp"
_QUARANTINE = "-quarantine.parquet"


@dataclass(frozen=True)
class Counts:
    """What is in a chunk.

    Attributes:
        rows: rows of the shard.
        tokens: tokens that the encoder saw, special ones included.
        truncated: rows whose text was cut.
        quarantined: rows without a vector, by error class.
        rejected: sound rows that are no examples, by reason.
        first_rejected: of each reason, the first such row and what is said of it.
    """

    rows: int = 0
    tokens: int = 0
    truncated: int = 0
    quarantined: dict[str, int] = field(default_factory=dict)
    rejected: dict[str, int] = field(default_factory=dict)
    first_rejected: dict[str, str] = field(default_factory=dict)

    def plus(self, other: "Counts") -> "Counts":
        """Both together."""
        return Counts(
            self.rows + other.rows,
            self.tokens + other.tokens,
            self.truncated + other.truncated,
            manifest.add_counts(self.quarantined, other.quarantined),
            manifest.add_counts(self.rejected, other.rejected),
            {**other.first_rejected, **self.first_rejected},
        )


@dataclass(frozen=True)
class StoredChunk:
    """A chunk that is in storage: rows ``start`` to ``end``, without ``end``."""

    key: str
    start: int
    end: int

    @property
    def quarantine_key(self) -> str:
        """Where its quarantined rows lie, if it has any."""
        return self.key.removesuffix(".parquet") + _QUARANTINE


@dataclass(frozen=True)
class Content:
    """A chunk with what is in it; ``quarantine`` is None where every row has a vector."""

    stored: StoredChunk
    vectors: Vectors
    counts: Counts
    quarantine: pa.Table | None


class Chunk:
    """Rows that are being embedded."""

    def __init__(self, start: int, dimension: int, normalised: bool) -> None:
        self.start = start
        self.rows = 0
        self._dimension = dimension
        self._normalised = normalised
        self._doc_ids: list[str] = []
        self._row_numbers: list[int] = []
        self._windows: list[list[Tokens]] = []
        self._refused: dict[int, Refusal] = {}
        self._rejected: dict[int, Rejection] = {}
        self._known: dict[int, Values] = {}
        self._truncated = 0
        self._tokens = 0
        self._missing = 0
        self._sums: NDArray[np.float32] = np.empty((0, dimension), np.float32)

    @property
    def end(self) -> int:
        """The row after the last one."""
        return self.start + self.rows

    @property
    def tokens(self) -> int:
        """Tokens of all sequences."""
        return self._tokens

    @property
    def complete(self) -> bool:
        """Whether every sequence has its answer."""
        return self._missing == 0

    def add(self, doc_id: str, tokenised: Tokenised | Rejection | Refusal) -> None:
        """Take in the next row."""
        row = self.end
        self.rows += 1
        if isinstance(tokenised, Refusal):
            self._refused[row] = tokenised
            return
        if isinstance(tokenised, Rejection):
            self._rejected[row] = tokenised
            return
        self._doc_ids.append(doc_id)
        self._row_numbers.append(row)
        self._windows.append(tokenised.windows)
        self._tokens += sum(map(len, tokenised.windows))
        self._truncated += tokenised.truncated

    def add_known(self, doc_id: str, vector: Values) -> None:
        """Take in the next row, whose vector float16 (d,) there is already."""
        self._known[len(self._doc_ids)] = vector
        self.add(doc_id, Tokenised([], False))

    def begin(self) -> Iterator[tuple[int, Tokens]]:
        """Every sequence, with the number of its text; from now on its answer is missing."""
        self._missing = sum(map(len, self._windows))
        self._sums = np.zeros((len(self._windows), self._dimension), np.float32)
        for text, vector in self._known.items():
            self._sums[text] = vector
        return ((text, window) for text, windows in enumerate(self._windows) for window in windows)

    def take(self, text: int, sequence: Tokens, vector: NDArray[np.float32], refused: Refusal | None) -> None:
        """Take in one sequence's vector; a text's vector is the mean over its windows' tokens."""
        self._missing -= 1
        if refused is not None:
            self._refused[self._row_numbers[text]] = refused
        # One window needs no mean, and keeps every bit of its vector.
        self._sums[text] += vector if len(self._windows[text]) == 1 else vector * np.float32(len(sequence))

    def finish(self) -> tuple[Vectors, Counts, list[tuple[int, Refusal]]]:
        """Vectors, counts and quarantined rows of a complete chunk."""
        values = self._means()
        largest = np.abs(values).max(axis=1, initial=0.0)  # NaN where any component is
        good = largest <= LARGEST
        for text in np.flatnonzero(~good):
            self._refused.setdefault(self._row_numbers[text], _refusal(float(largest[text])))
        ids = [doc_id for doc_id, kept in zip(self._doc_ids, good.tolist(), strict=True) if kept]
        tally: dict[str, int] = {}
        for refusal in self._refused.values():
            tally[refusal.error_class] = tally.get(refusal.error_class, 0) + 1
        counts = Counts(
            rows=self.rows,
            tokens=self._tokens,
            truncated=self._truncated,
            quarantined=tally,
            rejected=dict(Counter(rejection.reason for rejection in self._rejected.values())),
            first_rejected={
                # The last that is written is the first row.
                rejection.reason: f"row {row}: {rejection.message}"
                for row, rejection in sorted(self._rejected.items(), reverse=True)
            },
        )
        numbers = np.array(self._row_numbers, dtype=np.int64)
        return Vectors(ids, numbers[good], values[good]), counts, sorted(self._refused.items(), key=_row)

    def _means(self) -> NDArray[np.float16]:
        sums = self._sums
        several = [text for text, windows in enumerate(self._windows) if len(windows) > 1]
        for text in several:
            sums[text] /= sum(len(window) for window in self._windows[text])
            if self._normalised:
                sums[text] /= np.linalg.norm(sums[text]) or 1.0
        with np.errstate(over="ignore", invalid="ignore"):
            halves: NDArray[np.float16] = sums.astype(np.float16)
        return halves


def _refusal(largest: float) -> Refusal:
    """Why a text has no vector, from its vector's largest component."""
    if np.isfinite(largest):
        message = f"the encoder gave a vector with a component of {largest:g}, beyond {LARGEST:g}"
        return Refusal("vector_too_large", message)
    return Refusal("non_finite_vector", "the encoder gave a vector that is not finite")


def batches(window: Sequence[Chunk], budget: int) -> Iterator[Batch]:
    """The sequences of some chunks in batches of at most ``budget`` tokens; a position is (chunk, text)."""
    found = [((chunk, text), sequence) for chunk in window for text, sequence in chunk.begin()]
    return form([position for position, _ in found], [sequence for _, sequence in found], budget)


def take(answer: Answer) -> None:
    """Give every sequence's vector to the chunk that it is of."""
    places = zip(answer.batch.positions, answer.batch.sequences, answer.vectors, strict=True)
    for number, ((chunk, text), sequence, vector) in enumerate(places):
        chunk.take(text, sequence, vector, answer.refused.get(number))


def read(
    texts: Iterator[str | Rejection | Refusal],
    tokeniser: Tokeniser,
    dimension: int,
    normalised: bool,
    start: int,
    known: Mapping[str, Values] = MappingProxyType({}),
) -> Iterator[Chunk]:
    """Chunks of tokenised rows, from row ``start`` on; those whose vectors are known are not tokenised."""
    while True:
        chunk = Chunk(start, dimension, normalised)
        for some in _some(islice(texts, CHUNK_ROWS)):
            named = [(text, digest.of_text(text) if isinstance(text, str) else "") for text in some]
            new = [text for text, name in named if isinstance(text, str) and name not in known]
            tokens = iter(tokeniser(new))
            for text, name in named:
                if not isinstance(text, str):
                    chunk.add("", text)
                elif name in known:
                    chunk.add_known(name, known[name])
                else:
                    chunk.add(name, next(tokens))
        if not chunk.rows:
            return
        start = chunk.end
        yield chunk


def _some(texts: Iterator[str | Rejection | Refusal]) -> Iterator[list[str | Rejection | Refusal]]:
    some: list[str | Rejection | Refusal] = []
    characters = 0
    for text in texts:
        some.append(text)
        characters += len(text) if isinstance(text, str) else 0
        if len(some) == _TEXTS_AT_A_TIME or characters > _CHARACTERS_AT_A_TIME:
            yield some
            some, characters = [], 0
    yield some


def write(storage: Storage, prefix: str, chunk: Chunk) -> Content:
    """Write a complete chunk, its quarantined rows first; what is in storage then.

    Where another unit has written the chunk meanwhile, that one counts.
    """
    found, counts, refused = chunk.finish()
    stored = StoredChunk(embedded.chunk_key(prefix, range(chunk.start, chunk.end)), chunk.start, chunk.end)
    quarantine = None
    if refused:
        quarantine = pa.Table.from_pylist(
            [
                {"id": str(row), "error_class": why.error_class, "message": why.message}
                for row, why in refused
            ],
            tables.QUARANTINE,
        )
        storage.write_if_absent(stored.quarantine_key, tables.to_bytes(quarantine))
    table = vectors.to_table(found).replace_schema_metadata({_METADATA: json.dumps(vars(counts))})
    if not storage.write_if_absent(stored.key, tables.to_bytes(table)):
        return load(storage, stored)
    return Content(stored, found, counts, quarantine)


def load(storage: Storage, stored: StoredChunk) -> Content:
    """Read a stored chunk."""
    table = tables.read(storage, stored.key)
    counts = Counts(**json.loads(table.schema.metadata[_METADATA]))
    quarantine = tables.read(storage, stored.quarantine_key) if counts.quarantined else None
    return Content(stored, vectors.from_table(table), counts, quarantine)


def find_stored(storage: Storage, prefix: str) -> list[StoredChunk]:
    """The chunks in storage that follow on one another from row 0."""
    found: list[StoredChunk] = []
    for info in storage.list(f"{prefix}/rows-"):
        if info.key.endswith(_QUARANTINE):
            continue
        rows = embedded.chunk_rows(info.key)
        if rows.start == (found[-1].end if found else 0):
            found.append(StoredChunk(info.key, rows.start, rows.stop))
    return found


def _row(item: tuple[int, Refusal]) -> int:
    return item[0]
