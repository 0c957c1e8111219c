"""What one GPU makes of the work: embedding, k-means, nearest neighbours, training.

    make bench-gpu                                   # everything; some minutes on one GPU
    make bench-gpu PARTS="embed knn"                 # some of: embed kmeans knn train
    PYTHONPATH=. python benchmarks/gpu.py embed      # with any Python that has torch and pydantic
    PYTHONPATH=. python benchmarks/gpu.py --device cpu   # the same code on processors, on next to nothing

Nothing is downloaded: texts, vectors, tokenizer and weights are made, which changes no speed.
embed: the pipeline of the embed stage, from a Parquet shard to chunks in storage, beside
``SentenceTransformer.encode`` of the same texts in batches of 1,024, as it comes (float32) and
in the pipeline's own precision; an encoder of MiniLM's shape and one of BERT-large's. Busy is
the share of the time in which a kernel ran, as the driver tells it; on processors that of all
cores. kmeans: the centroids that merge trains, in torch on the device, beside FAISS on
processors, or numpy where FAISS is not installed. knn: exact neighbours as density wants them
with the criterion knn, likewise. train: gpu_train.py. What cannot run for want of a package is
named. The last line of output is one JSON object, with the card's name.
"""

import argparse
import importlib.util
import statistics
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from gpu_train import train
from made_models import Shape, encoder, texts
from measure import run_parts
from numpy.typing import NDArray

_ROUNDS = 2
_BATCH = 1024
_MAX_TOKENS = 256
_SAMPLE_SECONDS = 0.1
_ITERATIONS = 25
_NEIGHBOURS = 10
#: Rows of a product of matrices that are made at a time.
_ROWS = 2048


@dataclass(frozen=True)
class Sizes:
    """How much of everything."""

    encoders: dict[str, tuple[Shape, int]]
    sample: int
    lists: int
    queries: int
    vectors: int
    dimension: int = 384


_SIZES = {
    "cuda": Sizes(
        encoders={"minilm": (Shape(384, 6, 12), 60_000), "large": (Shape(1024, 24, 16), 12_000)},
        sample=163_840, lists=4096, queries=2000, vectors=200_000,
    ),
    "cpu": Sizes(
        encoders={"small": (Shape(32, 2, 4), 700)}, sample=600, lists=8, queries=50, vectors=900, dimension=16
    ),
}  # fmt: skip


def embed(device: str, folder: Path) -> dict[str, Any]:
    """Rows a second of each encoder."""
    return {
        name: _embed(device, folder / name, shape, count)
        for name, (shape, count) in _SIZES[device].encoders.items()
    }


def _embed(device: str, folder: Path, shape: Shape, count: int) -> dict[str, Any]:
    given = texts(count)
    encoder(folder / "model", shape, given, _MAX_TOKENS)
    pipeline = _Pipeline(device, folder, shape, given)
    embedders: dict[str, Callable[[Sequence[str]], NDArray[np.float32]]] = {
        "pipeline": lambda _: pipeline.run(),
        "sentence_transformers": _library(device, folder, torch.float32),
        "sentence_transformers_half": _library(device, folder, pipeline.dtype),
    }
    seconds: dict[str, list[float]] = {name: [] for name in embedders}
    busy: dict[str, list[float]] = {name: [] for name in embedders}
    told = device != "cuda" or importlib.util.find_spec("pynvml") is not None
    found = {}
    for number in range(_ROUNDS + 1):
        for name, work in embedders.items():
            with _watched(device, told) as watch:
                found[name] = work(given)
            # The first round loads kernels and finds their fastest forms.
            if number:
                seconds[name].append(watch.seconds)
                busy[name].append(watch.busy)
                print(f"embed {name} rows_per_second={count / watch.seconds:.0f}", flush=True)
    cosines = (_unit(found["pipeline"]) * _unit(found["sentence_transformers"])).sum(axis=1)
    return {
        "rows": count,
        "rows_per_second": {
            name: round(count / statistics.median(taken), 1) for name, taken in seconds.items()
        },
        "busy": {name: round(statistics.median(shares), 3) for name, shares in busy.items()}
        if told
        else "left out, for want of nvidia-ml-py",
        "speedup": _ratio(seconds["sentence_transformers"], seconds["pipeline"]),
        "speedup_half": _ratio(seconds["sentence_transformers_half"], seconds["pipeline"]),
        "cosine_least": round(float(cosines.min()), 6),
        **pipeline.figures,
    }


class _Pipeline:
    """The embed stage's pipeline over one shard."""

    def __init__(self, device: str, folder: Path, shape: Shape, given: Sequence[str]) -> None:
        from aitp_tasks import config
        from aitp_tasks.encoder.facts import Facts
        from aitp_tasks.encoder.opened import Encoder
        from aitp_tasks.encoder.tokens import Tokeniser
        from aitp_tasks.encoder.torch_backend import TorchBackend
        from aitp_tasks.storage import open_storage

        settings = config.Encoder(model=str(folder / "model"), max_tokens=_MAX_TOKENS)
        facts = Facts(
            dimension=shape.width, max_tokens=_MAX_TOKENS, prompt="", prompt_tokens=0, lower_case=False,
            normalised=True, pad=0,
        )  # fmt: skip
        tokenizer = (folder / "model" / "tokenizer.json").read_text(encoding="utf-8")
        backend = TorchBackend(settings, facts, device)
        self.dtype = backend._dtype
        self._encoder = Encoder(facts, Tokeniser(tokenizer, facts, settings), backend)
        self._rows = len(given)
        self._key = "corpus/made/made.parquet"
        (folder / "storage/corpus/made").mkdir(parents=True)
        pq.write_table(pa.table({"text": list(given)}), folder / "storage" / self._key)
        self._storage = open_storage(f"file://{folder}/storage")
        self._config = config.RunConfig.model_validate(
            {
                "root": f"file://{folder}/storage",
                "dump": "made",
                "sft": "made",
                "encoder": settings.model_dump(),
                # Read by other stages only.
                "engine": {"model": "none"},
                "prompts": {"folder": "none"},
                "finetune": {"model": "none"},
            }
        )
        self._passes = 0
        self.figures: dict[str, Any] = {}

    def run(self) -> NDArray[np.float32]:
        from aitp_tasks.encoder import pipeline
        from aitp_tasks.encoder.progress import Progress
        from aitp_tasks.inputs import shards
        from aitp_tasks.records import embedded, vectors
        from aitp_tasks.records.plan import Shard

        info = self._storage.stat(self._key)
        shard = Shard("corpus", "made", self._key, info.etag, info.size, self._rows)
        reader = shards.reader(self._storage, info, "corpus", self._config)
        progress = Progress("made", self._rows)
        self._passes += 1
        prefix = f"embeddings/{self._passes}"
        done = pipeline.embed(self._storage, shard, reader, prefix, lambda: self._encoder, progress)
        told = progress.figures()
        self.figures = {name: told[name] for name in ("tokens_per_second", "padding", "device_mb")}
        found = [vectors.read(self._storage, key).values for key in embedded.chunk_keys(done)]
        return np.concatenate(found).astype(np.float32)


def _library(device: str, folder: Path, dtype: torch.dtype) -> Callable[[Sequence[str]], NDArray[np.float32]]:
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(folder / "model"), device=device, local_files_only=True).to(dtype)

    def run(given: Sequence[str]) -> NDArray[np.float32]:
        found = model.encode(list(given), batch_size=_BATCH, show_progress_bar=False, convert_to_tensor=True)
        exact: NDArray[np.float32] = found.float().cpu().numpy()
        return exact

    return run


class _Watch:
    """Seconds, and the share of them in which the device was busy."""

    seconds = busy = 0.0


@contextmanager
def _watched(device: str, told: bool) -> Iterator[_Watch]:
    """Watch some work; of a GPU the share only where the driver's library can tell it."""
    watch, samples, ended = _Watch(), [], threading.Event()

    def sample() -> None:
        while not ended.wait(_SAMPLE_SECONDS):
            samples.append(torch.cuda.utilization() / 100)

    thread = threading.Thread(target=sample, daemon=True)
    sampled = device == "cuda" and told
    if sampled:
        thread.start()
    start, processor = time.perf_counter(), time.process_time()
    yield watch
    watch.seconds = time.perf_counter() - start
    watch.busy = (time.process_time() - processor) / watch.seconds / torch.get_num_threads()
    ended.set()
    if sampled:
        thread.join()
        watch.busy = statistics.mean(samples or [0.0])


def kmeans(device: str, folder: Path) -> dict[str, Any]:
    """Seconds of the same number of rounds, and the mean cosine to the centroids that came out."""
    sizes = _SIZES[device]
    given = _made(sizes.sample, sizes.dimension, clusters=sizes.lists // 4)
    start = given[np.random.default_rng(1).permutation(len(given))[: sizes.lists]]
    on_device = torch.from_numpy(given).to(device)
    _cluster(on_device[: sizes.lists], torch.from_numpy(start).to(device), 1)
    seconds, centroids = _timed(device, lambda: _cluster(on_device, torch.from_numpy(start).to(device)))
    peer, peer_seconds, theirs = _peer_kmeans(given, start)
    return {
        "vectors": len(given),
        "lists": sizes.lists,
        "seconds": round(seconds, 3),
        "peer": peer,
        "peer_seconds": round(peer_seconds, 3),
        "speedup": round(peer_seconds / seconds, 2),
        "cosine": round(_nearness(given, centroids.cpu().numpy()), 4),
        "peer_cosine": round(_nearness(given, theirs), 4),
    }


def _cluster(vectors: torch.Tensor, centroids: torch.Tensor, rounds: int = _ITERATIONS) -> torch.Tensor:
    """Centroids float32 (lists, d) of length 1, after some rounds of Lloyd's."""
    for _ in range(rounds):
        nearest = torch.cat([(part @ centroids.T).argmax(dim=1) for part in vectors.split(_ROWS * 8)])
        sums = torch.zeros_like(centroids).index_add_(0, nearest, vectors)
        counts = torch.bincount(nearest, minlength=len(centroids))[:, None]
        # A list that nobody is near to stays where it was.
        centroids = torch.nn.functional.normalize(torch.where(counts > 0, sums, centroids))
    return centroids


def _peer_kmeans(
    given: NDArray[np.float32], start: NDArray[np.float32]
) -> tuple[str, float, NDArray[np.float32]]:
    if importlib.util.find_spec("faiss"):
        import faiss

        method = faiss.Kmeans(
            given.shape[1], len(start), niter=_ITERATIONS, spherical=True, min_points_per_centroid=1
        )
        began = time.perf_counter()
        method.train(given, init_centroids=start)
        return "faiss on processors", time.perf_counter() - began, method.centroids
    began = time.perf_counter()
    centroids = start
    for _ in range(_ITERATIONS):
        parts = np.array_split(given, max(len(given) // (_ROWS * 8), 1))
        nearest = np.concatenate([(part @ centroids.T).argmax(axis=1) for part in parts])
        order = np.argsort(nearest, kind="stable")
        lists, firsts = np.unique(nearest[order], return_index=True)
        centroids = centroids.copy()
        centroids[lists] = _unit(np.add.reduceat(given[order], firsts))
    return "numpy", time.perf_counter() - began, centroids


def _nearness(given: NDArray[np.float32], centroids: NDArray[np.float32]) -> float:
    parts = np.array_split(given, max(len(given) // (_ROWS * 8), 1))
    return float(np.mean(np.concatenate([(part @ centroids.T).max(axis=1) for part in parts])))


def knn(device: str, folder: Path) -> dict[str, Any]:
    """Queries a second, and the share of neighbours that are those of the peer."""
    sizes = _SIZES[device]
    given = _made(sizes.vectors, sizes.dimension, clusters=300)
    queries = given[:: sizes.vectors // sizes.queries][: sizes.queries]
    queries = _unit(queries + 0.3 / np.sqrt(sizes.dimension) * np.random.default_rng(2).normal(
        size=queries.shape).astype(np.float32))  # fmt: skip
    dtype = torch.float16 if device == "cuda" else torch.float32
    index = torch.from_numpy(given).to(device, dtype)
    _neighbours(index, torch.from_numpy(queries[:8]).to(device, dtype))
    seconds, found = _timed(
        device, lambda: _neighbours(index, torch.from_numpy(queries).to(device, dtype)).cpu().numpy()
    )
    peer, peer_seconds, theirs = _peer_neighbours(given, queries)
    same = [len(set(a) & set(b)) / _NEIGHBOURS for a, b in zip(found.tolist(), theirs.tolist(), strict=True)]
    return {
        "vectors": len(given),
        "queries": len(queries),
        "queries_per_second": round(len(queries) / seconds),
        "peer": peer,
        "peer_queries_per_second": round(len(queries) / peer_seconds),
        "speedup": round(peer_seconds / seconds, 2),
        "same_neighbours": round(statistics.mean(same), 4),
    }


def _neighbours(index: torch.Tensor, queries: torch.Tensor) -> torch.Tensor:
    return torch.cat([(part @ index.T).topk(_NEIGHBOURS, dim=1).indices for part in queries.split(_ROWS)])


def _peer_neighbours(
    given: NDArray[np.float32], queries: NDArray[np.float32]
) -> tuple[str, float, NDArray[np.int64]]:
    if importlib.util.find_spec("faiss"):
        from aitp_tasks.vector_index import library

        index = library.flat(given.astype(np.float16), np.arange(len(given)))
        began = time.perf_counter()
        _, found = library.search(index, queries, _NEIGHBOURS)
        return "the product's exact index, on processors", time.perf_counter() - began, found
    began = time.perf_counter()
    ids = [
        np.argpartition(-(part @ given.T), _NEIGHBOURS - 1, axis=1)[:, :_NEIGHBOURS]
        for part in np.array_split(queries, max(len(queries) // 256, 1))
    ]
    return "numpy", time.perf_counter() - began, np.concatenate(ids)


def _made(count: int, dimension: int, clusters: int) -> NDArray[np.float32]:
    """Vectors of length 1 around some centres."""
    random = np.random.default_rng(0)
    centres = random.normal(size=(clusters, dimension)).astype(np.float32)
    spread = random.normal(size=(count, dimension)).astype(np.float32)
    return _unit(centres[random.integers(0, clusters, count)] + 0.7 * spread)


def _unit(values: NDArray[np.float32]) -> NDArray[np.float32]:
    scaled: NDArray[np.float32] = values / np.maximum(np.linalg.norm(values, axis=1, keepdims=True), 1e-12)
    return scaled


def _timed(device: str, work: Callable[[], Any]) -> tuple[float, Any]:
    if device == "cuda":
        torch.cuda.synchronize()
    start = time.perf_counter()
    found = work()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start, found


def _ratio(others: list[float], ours: list[float]) -> float:
    return round(statistics.median(other / own for other, own in zip(others, ours, strict=True)), 3)


PARTS = {"embed": embed, "kmeans": kmeans, "knn": knn, "train": train}


def main(arguments: list[str]) -> None:
    """Run the named parts, or all."""
    parser = argparse.ArgumentParser(description="Measure one GPU.")
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)}")
    parser.add_argument("--device", choices=list(_SIZES), default="cuda")
    given = parser.parse_args(arguments)
    unknown = sorted(set(given.parts) - PARTS.keys())
    if unknown:
        parser.error(f"no part is called {unknown[0]!r}: there are {', '.join(PARTS)}")
    if given.device == "cuda" and not torch.cuda.is_available():
        parser.error(
            "torch sees no GPU here: start it where there is one, or with --device cpu, which runs the same "
            "code on next to nothing and measures nothing"
        )
    # Each part under its own name: several have a speedup.
    parts = {
        name: partial(lambda name, part, folder: {name: part(given.device, folder)}, name, part)
        for name, part in PARTS.items()
    }
    card = torch.cuda.get_device_name() if given.device == "cuda" else "none"
    run_parts(parts, given.parts, {"card": card, "torch": torch.__version__})


if __name__ == "__main__":
    main(sys.argv[1:])
