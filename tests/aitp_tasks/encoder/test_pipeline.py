"""One shard through the pipeline, batches drawn over several chunks: the same files, whatever happens."""

import itertools
from collections.abc import Generator, Iterable, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import pyarrow as pa
import pytest

from aitp_tasks.encoder import chunks, pipeline, windows
from aitp_tasks.encoder.batches import Answer, Batch
from aitp_tasks.encoder.opened import Encoder
from aitp_tasks.encoder.progress import Progress
from aitp_tasks.encoder.tokens import Tokenised
from aitp_tasks.errors import TransientError
from aitp_tasks.inputs import shards
from aitp_tasks.inputs.rows import Refusal
from aitp_tasks.records import embedded, tables, vectors
from aitp_tasks.records.manifest import Manifest
from aitp_tasks.records.plan import Shard
from aitp_tasks.storage import Storage, open_storage
from tests.aitp_tasks import made
from tests.aitp_tasks.conftest import Configure, write_shard

KEY = "corpus/mix/mix.parquet"
ROWS = 8


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Chunks of eight rows, and windows of four chunks at most."""
    monkeypatch.setattr(chunks, "CHUNK_ROWS", ROWS)
    monkeypatch.setattr(windows, "LARGEST", 4)


class Backend:
    """Computes a vector from a sequence's own tokens; dies at a batch, or answers out of order."""

    name, dimension = "made", 4

    def __init__(self, window_tokens: int, budget: int = 64) -> None:
        self.window_tokens, self.batch_tokens = window_tokens, budget
        self.dies_at, self.reversed_by = -1, 1
        self.batches: list[Batch] = []

    def run(self, batches: Iterable[Batch]) -> Generator[Answer, None, None]:
        batches = iter(batches)
        while some := list(itertools.islice(batches, self.reversed_by)):
            for batch in reversed(some):
                self.batches.append(batch)
                if len(self.batches) == self.dies_at:
                    raise KeyboardInterrupt
                yield Answer(batch, np.stack([self._vector(tokens) for tokens in batch.sequences]))

    def memory_mb(self) -> float:
        return 0.0

    @staticmethod
    def _vector(tokens: Any) -> Any:
        return np.array([len(tokens), tokens[0], tokens[-1], 1], np.float32) / 256

    @property
    def rows(self) -> int:
        return sum(len(batch.sequences) for batch in self.batches)


def tokens(texts: Sequence[str]) -> list[Tokenised | Refusal]:
    """``7 long`` as seven tokens of which the first is of the rest; ``no`` as a refusal."""
    return [
        Refusal("empty", "no token")
        if text.endswith("no")
        else Tokenised([np.full(int(text.split()[0]), len(text), np.int32)], False)
        for text in texts
    ]


class World:
    """A storage with one shard of texts of given lengths."""

    def __init__(self, root: Path, configure: Configure, lengths: Sequence[int | str]) -> None:
        texts = [
            f"{length} row {row}" if isinstance(length, int) else length for row, length in enumerate(lengths)
        ]
        table = pa.table({"text": pa.array(texts, pa.string())})
        write_shard(root / KEY, table)
        self.storage: Storage = open_storage(f"file://{root}")
        self._config = configure()
        self._facts = made.encoder().facts

    def embed(self, backend: Backend, prefix: str) -> Manifest:
        info = self.storage.stat(KEY)
        planned = Shard(role="corpus", source="mix", key=KEY, etag=info.etag, size=info.size, rows=1)
        reader = shards.reader(self.storage, info, "corpus", self._config)
        encoder = Encoder(self._facts, cast(Any, tokens), backend)
        return pipeline.embed(self.storage, planned, reader, prefix, lambda: encoder, Progress("mix", None))

    def files(self, prefix: str) -> dict[str, bytes]:
        return {
            info.key.removeprefix(prefix): self.storage.read(info.key)
            for info in self.storage.list(f"{prefix}/")
        }


HOSTILE: list[int | str] = [300, 1, 299, "no", 2, 1, 64, 63, *range(1, 60), "no", *[7] * 30, 65, 1]
SHARDS: list[Any] = [
    pytest.param([], id="no row"),
    pytest.param([5], id="one row"),
    pytest.param([5000], id="one huge text"),
    pytest.param([1] * 20 + [5000] + [1] * 20, id="one huge text among short ones"),
    pytest.param([9] * 100, id="all of one length"),
    pytest.param(["no"] * 50, id="no row with a token"),
    pytest.param(["no"] * 17 + [3] + ["no"] * 30, id="whole chunks without a token"),
    pytest.param(HOSTILE, id="hostile lengths"),
    pytest.param([*range(1, ROWS * 7 + 1)], id="whole chunks"),
]


@pytest.mark.parametrize("lengths", SHARDS)
@pytest.mark.parametrize("reversed_by", [1, 3])
def test_the_files_are_those_of_batches_within_chunks(
    root: Path, configure: Configure, lengths: list[int | str], reversed_by: int
) -> None:
    world = World(root, configure, lengths)
    alone, together = Backend(0), Backend(10_000)
    together.reversed_by = reversed_by
    first, second = world.embed(alone, "embeddings/a"), world.embed(together, "embeddings/b")
    assert world.files("embeddings/a") == world.files("embeddings/b")
    assert first.ledger == second.ledger
    assert together.rows == alone.rows == sum(isinstance(length, int) for length in lengths)


def test_a_batch_draws_on_several_chunks(root: Path, configure: Configure) -> None:
    world = World(root, configure, [4, 16] * 60)
    alone, together = Backend(0), Backend(10_000)
    world.embed(alone, "embeddings/a")
    world.embed(together, "embeddings/b")
    assert max(len({chunk for chunk, _ in batch.positions}) for batch in alone.batches) == 1
    assert max(len({chunk for chunk, _ in batch.positions}) for batch in together.batches) > 2
    assert len(together.batches) < 0.8 * len(alone.batches)


@pytest.mark.parametrize("dies_at", [1, 2, 5, 9, 14])
def test_a_unit_that_died_in_a_window_goes_on_after_its_last_chunk(
    root: Path, configure: Configure, dies_at: int
) -> None:
    world = World(root, configure, HOSTILE)
    whole, dying, again = Backend(10_000), Backend(10_000), Backend(10_000)
    world.embed(whole, "embeddings/whole")
    dying.dies_at = dies_at
    with pytest.raises(KeyboardInterrupt):
        world.embed(dying, "embeddings/broken")
    stored = chunks.find_stored(world.storage, "embeddings/broken")
    world.embed(again, "embeddings/broken")
    assert world.files("embeddings/broken") == world.files("embeddings/whole")
    rows = np.arange(stored[-1].end if stored else 0, len(HOSTILE))
    assert again.rows == sum(isinstance(HOSTILE[row], int) for row in rows)
    # A window at most is computed twice.
    assert dying.rows + again.rows - whole.rows <= windows.LARGEST * ROWS


def test_a_chunk_that_another_unit_has_written_meanwhile_counts(root: Path, configure: Configure) -> None:
    world = World(root, configure, HOSTILE)
    world.embed(Backend(0), "embeddings/whole")
    theirs = embedded.chunk_key("embeddings/shared", range(2 * ROWS, 3 * ROWS))
    found = vectors.read(world.storage, embedded.chunk_key("embeddings/whole", range(2 * ROWS, 3 * ROWS)))

    class Beside(Backend):
        def run(self, batches: Iterable[Batch]) -> Generator[Answer, None, None]:
            table = vectors.to_table(vectors.Vectors(found.doc_ids, found.rows, found.values * 0))
            metadata = {b"aitp": b'{"rows": 8, "tokens": 1}'}
            world.storage.write_if_absent(theirs, tables.to_bytes(table.replace_schema_metadata(metadata)))
            yield from super().run(batches)

    done = world.embed(Beside(10_000), "embeddings/shared")
    assert not vectors.read(world.storage, theirs).values.any()
    assert done.ledger is not None
    assert (done.ledger.rows_in, done.figures["tokens"]) == (len(HOSTILE), 1 + _tokens_beside(HOSTILE, 2))


def _tokens_beside(lengths: list[int | str], chunk: int) -> int:
    rest = lengths[: chunk * ROWS] + lengths[(chunk + 1) * ROWS :]
    return sum(length for length in rest if isinstance(length, int))


def test_no_more_than_three_windows_are_held(
    root: Path, configure: Configure, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[chunks.Chunk] = []
    plain = chunks.Chunk.__init__

    def begins(self: chunks.Chunk, *arguments: Any) -> None:
        begun.append(self)
        plain(self, *arguments)

    class Counting(Backend):
        ahead = 0

        def run(self, batches: Iterable[Batch]) -> Generator[Answer, None, None]:
            for answer in super().run(batches):
                self.ahead = max(self.ahead, len(begun) * ROWS - self.rows)
                yield answer

    monkeypatch.setattr(chunks.Chunk, "__init__", begins)
    backend = Counting(10_000)
    World(root, configure, [5] * 800).embed(backend, "embeddings/a")
    # One in the device, one that is ready, one that is being read; and the chunk of it that is begun.
    assert backend.ahead <= (3 * windows.LARGEST + 1) * ROWS


def test_a_backend_that_loses_a_batch_fails_the_unit(root: Path, configure: Configure) -> None:
    class Losing(Backend):
        def run(self, batches: Iterable[Batch]) -> Generator[Answer, None, None]:
            yield from itertools.islice(super().run(batches), 1, None)

    with pytest.raises(TransientError, match=r"chunks were left without an answer"):
        World(root, configure, HOSTILE).embed(Losing(10_000), "embeddings/a")


@pytest.mark.parametrize("window_tokens", [0, 10_000])
def test_texts_have_the_same_vectors_in_whatever_window(window_tokens: int) -> None:
    texts = [f"{1 + 7 * row % 23} row {row}" for row in range(70)]
    texts[9] = "no"
    encoder = Encoder(made.encoder().facts, cast(Any, tokens), Backend(window_tokens))
    places, count = [], 0
    for found, refused in encoder.vectors_of(texts):
        count += 1
        places += [*found.rows.tolist(), *refused]
        for row, value in zip(found.rows.tolist(), found.values, strict=True):
            assert value[0] * 256 == 1 + 7 * row % 23
    assert sorted(places) == list(range(70))
    assert count == -(-70 // ROWS)
