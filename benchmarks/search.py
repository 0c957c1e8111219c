"""A first answer from an index of 10 million vectors that lies in an object store.

    make bench-search

16,384 lists of random codes in 384 dimensions, and places, in a SeaweedFS that is
started here and shares the processor: what a search reads and how long it takes does
not depend on what the vectors mean. ``search_seconds`` is from opening the index to
the places of 10 neighbours, ``search_peak_mb`` the largest resident size of the process;
each in a process of its own, imports done, medians of three. The encoder that turns a
text into a vector and the reading of the found texts are not among them. The peer
copies the whole index, once. The last line of output is one JSON object.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pyarrow.parquet as pq
from index_merge import peak_mb
from measure import processor
from numpy.typing import NDArray
from plan import BUCKET, store

from aitp_tasks.storage import open_storage
from aitp_tasks.vector_index import library, places, quantiser
from aitp_tasks.vector_index.library import INDEX_FILE, LISTS_FILE, Quantiser
from aitp_tasks.vector_index.opened import OpenIndex

VECTORS, DIMENSION, NEIGHBOURS = 10_000_000, 384, 10
_PLACES_FILE = "places.parquet"
_KEYS = {
    f"corpus_{name}": f"index/bench/{file}"
    for name, file in (("index", INDEX_FILE), ("lists", LISTS_FILE), ("places", _PLACES_FILE))
}
_ROUNDS = 3


def search(folder: Path) -> dict[str, Any]:
    """Build, upload and ask."""
    random = np.random.default_rng(0)
    sizes = _write_index(folder, random)
    with store(folder / "store") as (_, environment):
        os.environ.update(environment)
        storage = open_storage(f"s3://{BUCKET}")
        for key in _KEYS.values():
            path = folder / key.rpartition("/")[2]
            storage.upload(key, path)
            path.unlink()
        asked = [_asked("--few") for _ in range(_ROUNDS)]
        whole = _asked("--whole")
    if any(answer["ids"] != whole["ids"] or answer["cosines"] != whole["cosines"] for answer in asked):
        sys.exit("the answers differ")
    return {
        "search_vectors": VECTORS,
        "search_nlist": len(sizes),
        "search_peak_mb": statistics.median(answer["peak_mb"] for answer in asked),
        "search_seconds": round(statistics.median(answer["seconds"] for answer in asked), 2),
        "search_start_mb": asked[0]["start_mb"],
        "search_whole_peak_mb": whole["peak_mb"],
        "search_whole_seconds": round(whole["seconds"], 2),
    }


def _write_index(folder: Path, random: np.random.Generator) -> NDArray[np.int64]:
    """Index, lists and places in a folder; the sizes of the lists."""
    trained = _quantiser(quantiser.lists_for(VECTORS), random)
    records = np.zeros(VECTORS, places._RECORD)
    records["id"] = np.sort(random.integers(0, 2**63 - 1, VECTORS))
    records["high"] = records["id"]
    records["low"] = random.integers(0, 2**63 - 1, VECTORS)
    records["row"] = np.arange(VECTORS)
    builder = places.Builder(folder, [("bench", "corpus/bench/0.parquet", "e")], VECTORS)
    with pq.ParquetWriter(folder / _PLACES_FILE, places.SCHEMA, compression="zstd") as writer:
        for start in range(0, VECTORS, places._GROUP_ROWS):
            writer.write_table(builder._table(records[start : start + places._GROUP_ROWS]))
    ids = random.permutation(records["id"])
    sizes = np.bincount(random.integers(0, trained.lists, VECTORS), minlength=trained.lists)
    with (folder / LISTS_FILE).open("wb") as file:
        end = 0
        for size in sizes.tolist():
            start, end = end, end + size
            file.write(random.bytes(size * trained.code_size))
            file.write(ids[start:end].tobytes())
    trained.write_index(folder, sizes)
    return sizes


def _quantiser(lists: int, random: np.random.Generator) -> Quantiser:
    """One with random centroids: training would take longer than all the rest, and is not measured here."""
    metric = faiss.METRIC_INNER_PRODUCT
    vectors = library.unit(random.normal(size=(lists, DIMENSION)).astype(np.float32))
    centroids = faiss.IndexFlat(DIMENSION, metric)
    centroids.add(vectors)
    index = faiss.IndexIVFScalarQuantizer(centroids, DIMENSION, lists, faiss.ScalarQuantizer.QT_8bit, metric)
    index.by_residual = False
    index.sq.train(vectors)
    index.is_trained = True
    return Quantiser(library.to_bytes(index), "the quantiser")


def _asked(way: str) -> dict[str, Any]:
    asking = [sys.executable, __file__, way]
    output = subprocess.run(asking, stdout=subprocess.PIPE, check=True).stdout
    # FAISS prints where the file of lists is, too.
    answer: dict[str, Any] = json.loads(output.splitlines()[-1])
    print(way, answer["seconds"], answer["peak_mb"], flush=True)
    return answer


def _ask(few: bool) -> None:
    """One question, in this process."""
    query = np.random.default_rng(1).normal(size=(1, DIMENSION)).astype(np.float16)
    storage = open_storage(f"s3://{BUCKET}")
    before = peak_mb()
    start = time.perf_counter()
    with OpenIndex(storage, _KEYS, "corpus", few_queries=few) as found:
        cosines, ids = found.search(query, NEIGHBOURS)
        found.places(ids[0])
    figures = {"seconds": time.perf_counter() - start, "peak_mb": peak_mb(), "start_mb": before}
    print(json.dumps(figures | {"ids": ids.tolist(), "cosines": cosines.tolist()}))


def main() -> None:
    """Run it once and print the figures."""
    with tempfile.TemporaryDirectory(prefix="aitp-bench-") as folder:
        figures = search(Path(folder))
    print(json.dumps(figures | {"processor": processor()}))


if __name__ == "__main__":
    if sys.argv[1:2] in (["--few"], ["--whole"]):
        _ask(few=sys.argv[1] == "--few")
    else:
        main()
