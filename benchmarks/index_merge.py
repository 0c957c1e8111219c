"""The corpus's index of a million vectors: trained, encoded shard by shard, merged, searched.

    make bench-index-merge

100 shards of 10,000 vectors in 384 dimensions, clustered and of low intrinsic
dimension, as those of texts are; the project's own code from chunks on storage to
the index. The merge is a process of its own, so that its memory is known. Recall is
that of 10 neighbours against all pairs: whatever is as near as the tenth counts as
right. The last line of output is one JSON object.
"""

import json
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from measure import processor
from numpy.typing import NDArray

from aitp_tasks.encoder.chunks import CHUNK_ROWS
from aitp_tasks.records import digest, indexed, tables, vectors
from aitp_tasks.records.manifest import Manifest
from aitp_tasks.records.vectors import Vectors
from aitp_tasks.storage import Storage, open_storage
from aitp_tasks.vector_index import build, library, quantiser
from aitp_tasks.vector_index.build import Shard
from aitp_tasks.vector_index.lists import Encoder
from aitp_tasks.vector_index.opened import OpenIndex

SHARDS, ROWS, DIMENSION = 100, 10_000, 384
QUERIES, NEIGHBOURS = 1000, 10
#: What a matrix product's rounding may make of equal cosines.
_EQUAL = 1e-6
_CENTRES, _INTRINSIC = 300, 32
_PREFIX = "index/bench"

Values = NDArray[np.float16]


def index(folder: Path) -> dict[str, Any]:
    """Build the index of all shards below ``folder``, and search in it."""
    storage = open_storage(f"file://{folder}/storage")
    shards = [_written(storage, number) for number in range(SHARDS)]
    lists = quantiser.lists_for(SHARDS * ROWS)
    start = time.perf_counter()
    chunks = [key for shard in shards for key in shard.chunks]
    key = quantiser.ensure(storage, f"{_PREFIX}/quantiser", lists, chunks)
    trained = time.perf_counter()
    encoded = [_encoded(storage, shard, key) for shard in shards]
    figures: dict[str, Any] = {
        "vectors": SHARDS * ROWS,
        "nlist": lists,
        "train_seconds": round(trained - start, 1),
        "encode_seconds": round(time.perf_counter() - trained, 1),
    }
    print(json.dumps(figures), flush=True)
    job = {"root": storage.root, "quantiser": key, "shards": [asdict(shard) for shard in encoded]}
    (folder / "job.json").write_text(json.dumps(job))
    merging = [sys.executable, __file__, "--merge", str(folder / "job.json")]
    told = json.loads(subprocess.run(merging, stdout=subprocess.PIPE, check=True).stdout)
    done = Manifest.model_validate(told["built"])
    figures |= told["figures"] | {"index_mb": round(done.figures["bytes"] / 1e6)}
    print(json.dumps(figures), flush=True)
    return figures | _searched(storage, shards, done)


def _made(count: int, seed: int) -> Values:
    """Vectors float16 (count, d) of length 1."""
    shape = np.random.default_rng(0)
    centres = 0.6 * shape.normal(size=(_CENTRES, DIMENSION)).astype(np.float32)
    axes = 0.15 * shape.normal(size=(_INTRINSIC, DIMENSION)).astype(np.float32)
    random = np.random.default_rng(seed + 1)
    made = centres[random.integers(0, _CENTRES, count)]
    made += random.standard_normal((count, _INTRINSIC), np.float32) @ axes
    made += 0.3 * random.standard_normal((count, DIMENSION), np.float32)
    return library.unit(made).astype(np.float16)


def _written(storage: Storage, number: int) -> Shard:
    """Write one shard's chunks."""
    values, keys = _made(ROWS, number), []
    for start in range(0, ROWS, CHUNK_ROWS):
        rows = np.arange(start, min(start + CHUNK_ROWS, ROWS))
        ids = [digest.of_text(f"{number} {row}") for row in rows.tolist()]
        keys.append(f"embeddings/{number:03d}/rows-{start:06d}.parquet")
        storage.write(keys[-1], tables.to_bytes(vectors.to_table(Vectors(ids, rows, values[rows]))))
    return Shard(("bench", f"corpus/bench/{number:03d}.parquet", "e"), ROWS, tuple(keys))


def _encoded(storage: Storage, shard: Shard, key: str) -> Shard:
    """Encode one shard, as its density unit does; with what that leaves for the index."""
    encoder = Encoder(quantiser.load(storage, key))
    documents = []
    for _, found in vectors.read_all(storage, shard.chunks):
        encoder.add(found)
        documents.append(vectors.to_table(found).select(["doc_id", "row"]))
    name = shard.facts[1].rpartition("/")[2]
    storage.write(f"encoded/{name}", encoder.finish().to_bytes())
    return replace(
        shard,
        documents=tables.write(storage, f"documents/{name}", pa.concat_tables(documents)),
        encoded=f"encoded/{name}",
    )


def _merge(job: dict[str, Any]) -> None:
    """What the index stage does, in this process."""
    before = peak_mb()
    storage = open_storage(job["root"])
    start = time.perf_counter()
    done = build.build(
        storage,
        _PREFIX,
        "bench",
        [Shard(**{**shard, "facts": tuple(shard["facts"])}) for shard in job["shards"]],
        quantiser.load(storage, job["quantiser"]),
    )
    figures = {
        "merge_seconds": round(time.perf_counter() - start, 1),
        "merge_peak_mb": peak_mb(),
        "merge_start_mb": before,
    }
    print(json.dumps({"figures": figures, "built": done.model_dump(mode="json")}))


def peak_mb() -> float:
    """Largest resident size of this process; ``getrusage`` would count its parent's before it began."""
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if "VmHWM" in line)
    return round(int(line.split()[1]) * 1024 / 1e6, 1)


def _searched(storage: Storage, shards: list[Shard], done: Manifest) -> dict[str, Any]:
    """Recall and time of a search."""
    queries = _made(QUERIES, SHARDS)
    with OpenIndex(storage, indexed.outputs("corpus", done), "corpus") as found:
        found.search(queries[:10], NEIGHBOURS)
        start = time.perf_counter()
        _, ids = found.search(queries, NEIGHBOURS)
        seconds = time.perf_counter() - start
    return {
        f"recall_at_{NEIGHBOURS}": round(_recall(storage, shards, queries, ids), 4),
        "milliseconds_per_query": round(1000 * seconds / QUERIES, 3),
    }


def _recall(storage: Storage, shards: list[Shard], queries: Values, ids: NDArray[np.int64]) -> float:
    """Share of the ids whose vectors are as near as the last of the nearest, by all pairs."""
    units = library.unit(queries)
    nearest = np.full((len(queries), NEIGHBOURS), -np.inf, np.float32)
    cosines = np.full(ids.shape, -np.inf, np.float32)
    for shard in shards:
        held = [found for _, found in vectors.read_all(storage, shard.chunks)]
        numbers = np.concatenate([vectors.faiss_ids(found.doc_ids) for found in held])
        pairs = units @ library.unit(np.concatenate([found.values for found in held])).T
        nearest = np.sort(np.concatenate([nearest, pairs], axis=1), axis=1)[:, -NEIGHBOURS:]
        order = np.argsort(numbers)
        places = order[np.minimum(np.searchsorted(numbers, ids, sorter=order), len(numbers) - 1)]
        here = numbers[places] == ids
        cosines[here] = np.take_along_axis(pairs, places, axis=1)[here]
    return float((cosines >= nearest[:, :1] - _EQUAL).mean())


def main() -> None:
    """Run it once and print the figures."""
    with tempfile.TemporaryDirectory(prefix="aitp-bench-") as folder:
        figures = index(Path(folder))
    print(json.dumps(figures | {"processor": processor()}))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--merge"]:
        _merge(json.loads(Path(sys.argv[2]).read_text()))
    else:
        main()
