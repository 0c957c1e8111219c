"""The embedders that benchmarks/embed.py compares, each served in a process of its own.

    python benchmarks/embedders.py NAME TEXTS.json FOLDER

loads the embedder, warms it up, prints ``ready``, and for every line on standard
input embeds all texts once, writes ``FOLDER/NAME.npy`` (float32, n × d) and prints
the seconds. ``aitp`` is the embed stage on a Parquet shard, storage included; the
others embed strings in memory, as their users call them.
"""

import importlib
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

REPOSITORY = Path(__file__).resolve().parents[1]
MODEL = REPOSITORY / ".aitp" / "models" / "all-MiniLM-L6-v2"
#: The authors' way on a CPU, which is the library's default too.
BATCH = 32
_MAX_TOKENS = 256

Embed = Callable[[list[str]], NDArray[np.float32]]


def aitp(folder: Path) -> Embed:
    """The embed stage, from a Parquet shard to chunks in storage."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from aitp_tasks.config import RunConfig
    from aitp_tasks.encoder import pipeline
    from aitp_tasks.encoder.opened import open_encoder
    from aitp_tasks.encoder.progress import Progress
    from aitp_tasks.inputs import shards
    from aitp_tasks.machine import models
    from aitp_tasks.records import embedded, vectors
    from aitp_tasks.records.plan import Shard
    from aitp_tasks.storage import open_storage

    root = folder / "storage"
    config = RunConfig.load(REPOSITORY / "configs/demo.yaml", [f"root=file://{root}"])
    encoder = open_encoder(config.encoder, models.identity(config.encoder))
    storage = open_storage(config.root)

    def embed(texts: list[str]) -> NDArray[np.float32]:
        key = "corpus/mix/mix.parquet"
        if storage.find(key) is None:
            (root / "corpus/mix").mkdir(parents=True)
            pq.write_table(pa.table({"text": texts}), root / key)
        info = storage.stat(key)
        planned = Shard(role="corpus", source="mix", key=key, etag=info.etag, size=info.size, rows=len(texts))
        shutil.rmtree(root / "embeddings", ignore_errors=True)
        progress = Progress("mix", len(texts))
        reader = shards.reader(storage, info, "corpus", config)
        done = pipeline.embed(storage, planned, reader, "embeddings/x", lambda: encoder, progress)
        (folder / "aitp.json").write_text(json.dumps(progress.figures()))
        found = [vectors.read(storage, key).values for key in embedded.chunk_keys(done)]
        return np.concatenate(found).astype(np.float32)

    return embed


def sentence_transformers(folder: Path) -> Embed:
    """SentenceTransformer.encode in float32, as the paper's authors call it."""
    return _library(backend="torch")


def sentence_transformers_onnx(folder: Path) -> Embed:
    """The same on ONNX Runtime, exported by optimum."""
    return _library(backend="onnx")


def sentence_transformers_openvino(folder: Path) -> Embed:
    """The same on OpenVINO, exported by optimum-intel; bfloat16 where the processor has it."""
    return _library(backend="openvino")


def fastembed(folder: Path) -> Embed:
    """fastembed with the exported ONNX model as a custom local model."""
    from fastembed import TextEmbedding
    from fastembed.common.model_description import ModelSource, PoolingType

    exported = folder / "onnx"
    _load(backend="onnx").save_pretrained(str(exported))
    TextEmbedding.add_custom_model(
        model="local/minilm",
        pooling=PoolingType.MEAN,
        normalization=True,
        sources=ModelSource(url="file:///none"),
        dim=384,
        model_file="onnx/model.onnx",
    )
    model = TextEmbedding("local/minilm", specific_model_path=str(exported))
    model.model.tokenizer.enable_truncation(_MAX_TOKENS)
    return lambda texts: np.stack(list(model.embed(texts, batch_size=BATCH)))


def vllm_pooling(folder: Path) -> Embed:
    """vLLM's pooling runner, in bfloat16, all cores."""
    os.environ |= {
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
        "VLLM_CPU_OMP_THREADS_BIND": f"0-{(os.cpu_count() or 1) - 1}",
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "VLLM_LOGGING_LEVEL": "ERROR",
    }
    from vllm import LLM

    model = LLM(str(MODEL), runner="pooling", dtype="bfloat16", enforce_eager=True, max_model_len=_MAX_TOKENS)
    tokenizer = model.get_tokenizer()

    def embed(texts: list[str]) -> NDArray[np.float32]:
        tokens = tokenizer(texts, truncation=True, max_length=_MAX_TOKENS)["input_ids"]
        found = model.embed([{"prompt_token_ids": ids} for ids in tokens], use_tqdm=False)
        return np.array([output.outputs.embedding for output in found], np.float32)

    return embed


#: Which environment each needs: the worker's own, or the peers'.
EMBEDDERS: dict[str, tuple[str, Callable[[Path], Embed]]] = {
    "aitp": ("worker", aitp),
    "sentence_transformers": ("worker", sentence_transformers),
    "vllm_pooling": ("worker", vllm_pooling),
    "sentence_transformers_onnx": ("peers", sentence_transformers_onnx),
    "sentence_transformers_openvino": ("peers", sentence_transformers_openvino),
    "fastembed": ("peers", fastembed),
}


def _load(backend: str) -> Any:
    library = importlib.import_module("sentence_transformers")
    with tempfile.TemporaryDirectory() as copy:
        # An export writes beside the model.
        shutil.copytree(MODEL, copy, dirs_exist_ok=True)
        return library.SentenceTransformer(copy, backend=backend, device="cpu", local_files_only=True)


def _library(backend: str) -> Embed:
    model = _load(backend)

    def embed(texts: list[str]) -> NDArray[np.float32]:
        found: NDArray[np.float32] = model.encode(texts, batch_size=BATCH, show_progress_bar=False)
        return found

    return embed


def serve(name: str, texts: list[str], folder: Path) -> None:
    """Answer every line on standard input with the seconds of one pass."""
    # Libraries print to standard output too.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    embed = EMBEDDERS[name][1](folder)
    embed(texts[:64] if name != "aitp" else texts)
    print("ready", file=answers, flush=True)
    for _ in sys.stdin:
        start = time.perf_counter()
        found = embed(texts)
        print(time.perf_counter() - start, file=answers, flush=True)
        np.save(folder / f"{name}.npy", found)


if __name__ == "__main__":
    serve(sys.argv[1], json.loads(Path(sys.argv[2]).read_text(encoding="utf-8")), Path(sys.argv[3]))
