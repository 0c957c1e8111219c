"""The texts of sampled documents: bytes read and seconds, against reading the wanted row groups.

    make bench-fetch

40 shards of 10,000 rows of 2 KB in a SeaweedFS that is started here and shares the
processor, 400 rows drawn of the three tenths that are selected: a fiftieth of a night
that draws 20,000 rows of 2,000 shards, in the same proportions. The peer is what
``difference`` did before: one shard after the other, and of a row group with a wanted
row the whole text column. In turn, medians of three rounds; texts compared. The last
line of output is one JSON object; ``fetch_bytes_share`` and ``fetch_speedup`` in it are
of files as pyarrow writes them, with what embed has kept; the other forms are read
without, as those are whose embeddings are older.
"""

import io
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from measure import processor
from plan import BUCKET, store

from aitp_tasks.records import digest
from aitp_tasks.records.kept import Keeper, draw, share
from aitp_tasks.records.manifest import Manifest
from aitp_tasks.selection.texts import Texts, by_shard
from aitp_tasks.storage import ObjectInfo, Storage, open_storage

SHARDS, ROWS, WANTED = 40, 10_000, 400
_SELECTED = 0.3
_TEXT_BYTES = 2000
_ROUNDS = 3
_WORDS = 30_000
#: What files are written with.
_FORMS: dict[str, dict[str, Any]] = {
    "plain": {},
    "plain_10_groups": {"row_group_size": ROWS // 10},
    "plain_100_groups": {"row_group_size": ROWS // 100},
}


def fetch(folder: Path) -> dict[str, Any]:
    """Both ways over all forms of files."""
    figures: dict[str, Any] = {}
    with store(folder) as (put, environment):
        os.environ.update(environment)
        storage = open_storage(f"s3://{BUCKET}")
        texts = _texts()
        drawn = _drawn(texts)
        for form, settings in _FORMS.items():
            column = 0
            for number in range(SHARDS):
                data = _parquet(_of_shard(texts, number), settings)
                column += _column_bytes(data)
                put(_key(form, number), data)
            for name, embeddings in (("", []), ("_kept", _embeddings(storage, form, texts))):
                if name and form != "plain":
                    continue
                found = _compared(storage, _placed(storage, form, drawn), column, embeddings)
                print(form + name, json.dumps(found), flush=True)
                figures |= {f"{form}{name}_{key}": value for key, value in found.items()}
    return figures | {
        "fetch_bytes_share": figures["plain_kept_bytes_share"],
        "fetch_speedup": figures["plain_kept_speedup"],
    }


def _texts() -> list[str]:
    """Texts of words as rare as those of a language; each shard puts its number before them."""
    random = np.random.default_rng(0)
    letters = np.array(list("abcdefghijklmnopqrstuvwxyz"))
    words = ["".join(random.choice(letters, size)) for size in random.integers(2, 11, _WORDS)]
    ranks = np.minimum(random.zipf(1.2, ROWS * _TEXT_BYTES // 6), _WORDS) - 1
    whole = " ".join(words[rank] for rank in ranks.tolist())
    starts = range(0, ROWS * _TEXT_BYTES, _TEXT_BYTES)
    return [whole[start % (len(whole) - _TEXT_BYTES) :][:_TEXT_BYTES] for start in starts]


def _of_shard(texts: list[str], number: int) -> list[str]:
    return [f"{number} {text}" for text in texts]


def _parquet(texts: list[str], settings: dict[str, Any]) -> bytes:
    sink = io.BytesIO()
    table = pa.table({"text": texts, "url": [f"https://example.org/{row}" for row in range(len(texts))]})
    pq.write_table(table, sink, compression="zstd", **settings)
    return sink.getvalue()


def _column_bytes(data: bytes) -> int:
    footer = pq.read_metadata(io.BytesIO(data))
    groups = map(footer.row_group, range(footer.num_row_groups))
    return sum(group.column(0).total_compressed_size for group in groups)


def _embeddings(storage: Storage, form: str, texts: list[str]) -> list[Manifest]:
    """What embed leaves of the shards, of their texts."""
    made = []
    for number in range(SHARDS):
        info = storage.stat(_key(form, number))
        keeper = Keeper(0, share(WANTED, SHARDS * ROWS))
        for row, text in enumerate(_of_shard(texts, number)):
            keeper.see(row, text)
        outputs = keeper.write(storage, f"embeddings/{form}/{number}")
        figures = {"shard": info.key, "etag": info.etag}
        made.append(Manifest(stage="embed", label=info.key, outputs=outputs, figures=figures))
    return made


def _drawn(texts: list[str]) -> list[tuple[int, int]]:
    """Shards and rows of the selected documents whose draws come first."""
    random = np.random.default_rng(1)
    first: list[tuple[int, int, int]] = []
    for number in range(SHARDS):
        selected = np.flatnonzero(random.random(ROWS) < _SELECTED).tolist()
        of_shard = _of_shard(texts, number)
        first += sorted((draw(0, digest.of_text(of_shard[row])), number, row) for row in selected)[:WANTED]
    return [(number, row) for _, number, row in sorted(first)[:WANTED]]


def _placed(storage: Storage, form: str, drawn: list[tuple[int, int]]) -> pa.Table:
    shards = [storage.stat(_key(form, number)) for number in range(SHARDS)]
    return pa.table(
        {
            "shard": [shards[number].key for number, _ in drawn],
            "etag": [shards[number].etag for number, _ in drawn],
            "row": [row for _, row in drawn],
        }
    )


def _key(form: str, number: int) -> str:
    return f"corpus/{form}/{number:05d}.parquet"


class _Counted:
    """A storage that counts what is read."""

    def __init__(self, storage: Storage) -> None:
        self._storage, self._lock = storage, Lock()
        self.bytes = self.requests = 0

    def read_range(self, info: ObjectInfo, start: int, size: int) -> bytes:
        return self._count(self._storage.read_range(info, start, size))

    def read(self, key: str) -> bytes:
        return self._count(self._storage.read(key))

    def _count(self, data: bytes) -> bytes:
        with self._lock:
            self.bytes += len(data)
            self.requests += 1
        return data

    def open(self, info: ObjectInfo) -> Any:
        return Storage.open(self, info)  # type: ignore[arg-type]

    def __getattr__(self, name: str) -> Any:
        return getattr(self._storage, name)


def _compared(storage: Storage, drawn: pa.Table, column: int, embeddings: list[Manifest]) -> dict[str, Any]:
    """Shares of bytes and seconds of both ways, in turn."""
    ways: dict[str, Callable[[Any, pa.Table], list[str]]] = {
        "before": _before,
        "now": lambda storage, drawn: _now(storage, drawn, embeddings),
    }
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    read: dict[str, _Counted] = {}
    texts: dict[str, list[str]] = {}
    for _ in range(_ROUNDS):
        for name, way in ways.items():
            read[name] = _Counted(storage)
            start = time.perf_counter()
            texts[name] = way(read[name], drawn)
            seconds[name].append(time.perf_counter() - start)
    if texts["before"] != texts["now"]:
        sys.exit("the texts differ")
    taken = {name: statistics.median(values) for name, values in seconds.items()}
    return {
        "column_mb": round(column / 1e6),
        "bytes_share": round(read["now"].bytes / column, 3),
        "bytes_share_before": round(read["before"].bytes / column, 3),
        "requests": read["now"].requests,
        "requests_before": read["before"].requests,
        "seconds": round(taken["now"], 2),
        "seconds_before": round(taken["before"], 2),
        "speedup": round(taken["before"] / taken["now"], 1),
    }


def _now(storage: Any, drawn: pa.Table, embeddings: list[Manifest]) -> list[str]:
    with Texts(storage, ["text"], drawn, embeddings) as texts:
        return texts.take(np.arange(len(drawn))).to_pylist()


def _before(storage: Any, drawn: pa.Table) -> list[str]:
    found = [""] * len(drawn)
    for (shard, etag), positions in sorted(by_shard(drawn).items()):
        info = ObjectInfo(shard, storage.stat(shard).size, etag)
        for row, text in _picked(storage, info, positions):
            found[positions[row]] = text
    return found


def _picked(storage: Any, info: ObjectInfo, wanted: dict[int, int]) -> Iterator[tuple[int, str]]:
    source = pa.PythonFile(storage.open(info), mode="r")
    file = pq.ParquetFile(source, buffer_size=4 * 2**20, pre_buffer=False)
    end = 0
    for group in range(file.num_row_groups):
        first, end = end, end + file.metadata.row_group(group).num_rows
        if not any(first <= row < end for row in wanted):
            continue
        for batch in file.iter_batches(1024, row_groups=[group], columns=["text"]):
            for row in sorted(wanted):
                if first <= row < first + len(batch):
                    yield row, batch.column(0)[row - first].as_py()
            first += len(batch)


def main() -> None:
    """Run it once and print the figures."""
    with tempfile.TemporaryDirectory(prefix="aitp-bench-") as folder:
        figures = fetch(Path(folder))
    print(json.dumps(figures | {"processor": processor()}))


if __name__ == "__main__":
    main()
