"""Shards of made vectors in a folder: clustered, as text embeddings are, with texts that occur again."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from aitp_tasks.records import digest, tables, vectors
from aitp_tasks.records.vectors import Vectors
from aitp_tasks.storage import Storage, open_storage
from aitp_tasks.vector_index.build import Shard

DIMENSION = 16
MakeShard = Callable[..., Shard]


def vector(text: str, dimension: int = DIMENSION) -> NDArray[np.float16]:
    """A text's vector: its first word says which cluster it is in; not of length 1."""
    centre = np.random.default_rng(int(digest.of_text(text.split()[0])[:8], 16)).normal(size=dimension)
    own = np.random.default_rng(int(digest.of_text(text)[:8], 16)).normal(size=dimension)
    return (centre + 0.3 * own).astype(np.float16)


def texts_of(shard: int, count: int = 300) -> list[str]:
    """Texts of one shard; a fifth of them lie in every shard, some of them twice."""
    own = [f"c{row % 9} text {shard} {row}" for row in range(count)]
    common = [f"c{row % 9} common {row}" for row in range(count // 5)]
    return own + common + common[:10]


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    return open_storage(f"file://{tmp_path}/storage")


@pytest.fixture
def make_shard(storage: Storage) -> MakeShard:
    """Writes the chunks of one shard."""

    def make(number: int, texts: list[str] | None = None, dimension: int = DIMENSION) -> Shard:
        texts = texts_of(number) if texts is None else texts
        chunks = []
        for start in range(0, len(texts), 128):
            some = texts[start : start + 128]
            found = Vectors(
                [digest.of_text(text) for text in some],
                np.arange(start, start + len(some)),
                np.stack([vector(text, dimension) for text in some]),
            )
            key = f"embeddings/{number}/rows-{start:06d}.parquet"
            storage.write(key, tables.to_bytes(vectors.to_table(found)))
            chunks.append(key)
        return Shard(("news", f"corpus/news/{number}.parquet", "e"), len(texts), tuple(chunks))

    return make
