"""The embed stage against other embedders, and what it promises of memory, resuming and reuse.

    make bench-embed                    # everything; about 40 minutes on two cores
    make bench-embed PARTS="speed"      # some of: speed memory kills reuse formats host

speed: every embedder in a process of its own, loaded and warm, one pass each in
turn, several rounds; ratios are medians of the rounds' own ratios. memory: the
stage as its own process on Parquet shards of 1 and 3 GB. kills: one shard, its
process killed ten times at random moments. reuse: an unchanged dump. These
three cut texts to few tokens, because they are about everything but arithmetic.
formats: the same texts as Parquet and as JSON Lines with zstd, in turn, whole.
host: what the processors do beside a GPU, in seconds of one core, and how many tokens its
batches get of one chunk and of a window. The last line of output is one JSON object.
"""

import json
import random
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import zstandard
from embedders import EMBEDDERS, REPOSITORY
from measure import run_parts, timed

from aitp_tasks.config import Examples
from aitp_tasks.inputs.examples import Example
from aitp_tasks.inputs.forms import columns, compared
from aitp_tasks.inputs.forms.rows import Rows

ROUNDS = 3
KILLS = 10
_DATA = REPOSITORY / ".aitp" / "data"
_FEW_TOKENS, _ALL_TOKENS = 16, 256
#: Tokens of a batch on a GPU, and of a window.
_GPU_BATCH = 131_072
_GPU_WINDOW = 32 * _GPU_BATCH


def mix() -> list[str]:
    """C4, Wikipedia and Alpaca as the demo has them."""
    texts: list[str] = []
    rows = Rows(Examples())
    for path in sorted((_DATA / "corpus").rglob("*.parquet")):
        texts += pq.read_table(path)["text"].to_pylist()
    for path in sorted((_DATA / "sft").rglob("*.parquet")):
        for batch in pq.read_table(path).to_batches():
            for example in map(rows.example, columns.rows(batch)):
                text = compared.first_turns(example.messages) if isinstance(example, Example) else None
                texts += [text] if isinstance(text, str) else []
    return texts


def speed(folder: Path) -> dict[str, Any]:
    """Rows per second of every embedder, and how much faster the stage is."""
    texts = mix()
    (folder / "texts.json").write_text(json.dumps(texts), encoding="utf-8")
    servers = {name: _Server(name, environment, folder) for name, (environment, _) in EMBEDDERS.items()}
    seconds: dict[str, list[float]] = {name: [] for name in servers}
    for _ in range(ROUNDS):
        for name, server in servers.items():
            seconds[name].append(server.run())
            print(f"speed {name} rows_per_second={len(texts) / seconds[name][-1]:.1f}", flush=True)
    for server in servers.values():
        server.close()
    ours, plain = seconds["aitp"], "sentence_transformers"
    peers = {name: _ratio(taken, ours) for name, taken in seconds.items() if name not in ("aitp", plain)}
    best = min(peers, key=lambda name: peers[name])
    vectors = {name: np.load(folder / f"{name}.npy") for name in servers}
    cosines = _cosines(vectors["aitp"], vectors[plain])
    return {
        "speedup_vs_sentence_transformers": _ratio(seconds[plain], ours),
        "speedup_vs_best_peer": peers[best],
        "best_peer": best,
        "cosine_mean": round(float(cosines.mean()), 6),
        "cosine_min": round(float(cosines.min()), 6),
        "padding": json.loads((folder / "aitp.json").read_text())["padding"],
        "rows_per_second": {
            name: round(len(texts) / statistics.median(taken), 1) for name, taken in seconds.items()
        },
        "peer_cosine_mean": {
            name: round(float(_cosines(found, vectors[plain]).mean()), 6) for name, found in vectors.items()
        },
    }


def memory(folder: Path) -> dict[str, Any]:
    """Peak memory of the unit's process tree on shards of 1 and 3 GB."""
    figures = {}
    for size in (1, 3):
        root = folder / f"{size}gb"
        _write_shard(root, size * 10**9)
        run = _plan(root)
        result, seconds, peak = timed(["embed", "--run", run, "--unit", "0"])
        figures |= {
            f"peak_mb_{size}gb": peak,
            f"rows_{size}gb": result["rows_in"],
            f"seconds_{size}gb": round(seconds, 1),
        }
        print(f"memory shard_gb={size} peak_mb={peak} seconds={seconds:.0f}", flush=True)
    model = REPOSITORY / ".aitp/models/all-MiniLM-L6-v2/model.safetensors"
    return figures | {"model_mb": round(model.stat().st_size / 1e6, 1)}


def kills(folder: Path) -> dict[str, Any]:
    """Share of rows that were embedded again, worst of the kills; the bytes must be the same."""
    texts = mix() * 43
    for root in (folder / "whole", folder / "killed"):
        path = root / "corpus/mix/mix.parquet"
        path.parent.mkdir(parents=True)
        numbered = [f"{number} {text[:200]}" for number, text in enumerate(texts)]
        pq.write_table(pa.table({"text": numbered}), path)
        _sft(root)
    start = time.monotonic()
    timed(["embed", "--run", _plan(folder / "whole"), "--unit", "0"])
    whole = time.monotonic() - start
    run, random_ = _plan(folder / "killed"), random.Random(0)
    answered = folder / "answered"
    lost: list[float] = []
    while len(lost) < KILLS:
        answered.write_bytes(b"")
        before = _stored(folder / "killed")
        process = subprocess.Popen(
            [sys.executable, __file__, "counted", run, str(answered)],
            stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
        )  # fmt: skip
        while not answered.stat().st_size and process.poll() is None:
            time.sleep(0.01)
        time.sleep(random_.uniform(0, whole / KILLS / 1.5))
        process.send_signal(signal.SIGKILL)
        if process.wait() != -signal.SIGKILL:
            sys.exit("the unit ended before it was killed: raise the number of rows")
        embedded = sum(answered.read_bytes())
        lost.append((embedded - (_stored(folder / "killed") - before)) / len(texts))
        print(f"kills embedded={embedded} lost_share={lost[-1]:.4f}", flush=True)
    timed(["embed", "--run", run, "--unit", "0"])
    return {
        "recomputed_share": round(max(lost), 5),
        "kills": len(lost),
        "kills_rows": len(texts),
        "kills_identical": _contents(folder / "whole") == _contents(folder / "killed"),
    }


def counted(run: str, answered: Path) -> None:
    """Embed unit 0 and note how many rows have their vector, one byte an answer."""
    from aitp_tasks.encoder import chunks
    from aitp_tasks.records.run import Run
    from aitp_tasks.stages import embed

    plain = chunks.take
    with answered.open("ab", buffering=0) as stream:

        def take(answer: Any) -> None:
            count = len(answer.batch.sequences)
            stream.write(bytes([255] * (count // 255) + [count % 255]))
            plain(answer)

        chunks.take = take
        embed.execute(Run.open(run), 0)


def reuse(folder: Path) -> dict[str, Any]:
    """Seconds a shard of a second run, beyond the start of the process."""
    seconds = {}
    for shards in (1, 101):
        root = folder / str(shards)
        for number in range(shards):
            path = root / f"corpus/mix/{number:05d}.parquet"
            path.parent.mkdir(parents=True, exist_ok=True)
            pq.write_table(pa.table({"text": [f"document {number}"]}), path)
        _sft(root)
        run = _plan(root)
        timed(["embed", "--run", run, "--unit", "0"])
        for done in root.glob("runs/*/*/embed/*"):
            done.unlink()
        taken = [timed(["embed", "--run", run, "--unit", "0"]) for _ in range(ROUNDS)]
        assert all(result["rows_embedded_now"] == 0 for result, _, _ in taken)
        seconds[shards] = statistics.median(second for _, second, _ in taken)
    return {
        "second_run_seconds_per_shard": round((seconds[101] - seconds[1]) / 100, 4),
        "second_run_start_seconds": round(seconds[1], 2),
    }


def formats(folder: Path) -> dict[str, Any]:
    """Rows per second from JSON Lines with zstd, as a share of those from Parquet of the same texts."""
    texts = [f"{number} {text}" for number, text in enumerate(mix() * 4)]
    writers = {"parquet": _to_parquet, "jsonl.zst": _to_lines}
    rates: dict[str, list[float]] = {name: [] for name in writers}
    for number in range(ROUNDS):
        for name, write in writers.items():
            root = folder / f"{name}-{number}"
            path = root / f"corpus/mix/mix.{name}"
            path.parent.mkdir(parents=True)
            write(path, texts)
            _sft(root)
            result, _, _ = timed(["embed", "--run", _plan(root, tokens=_ALL_TOKENS), "--unit", "0"])
            assert result["rows_out"] == len(texts)
            rates[name].append(len(texts) / result["seconds"])
            print(f"formats {name} rows_per_second={rates[name][-1]:.1f}", flush=True)
    return {
        "jsonl_vs_parquet": _ratio(rates["jsonl.zst"], rates["parquet"]),
        "formats_rows_per_second": {name: round(statistics.median(rate), 1) for name, rate in rates.items()},
    }


def _to_parquet(path: Path, texts: list[str]) -> None:
    pq.write_table(pa.table({"text": texts}), path, compression="zstd")


def _to_lines(path: Path, texts: list[str]) -> None:
    lines = (json.dumps({"id": number, "text": text}) for number, text in enumerate(texts))
    path.write_bytes(zstandard.compress("\n".join(lines).encode()))


def host(folder: Path) -> dict[str, Any]:
    """Rows that a core tokenises, batches and sums in a second; tokens and padding of a GPU's batches."""
    from aitp_tasks.config import Encoder
    from aitp_tasks.densities.moments import Moments
    from aitp_tasks.encoder.prepared import prepare
    from aitp_tasks.encoder.tokens import Tokeniser
    from aitp_tasks.machine import models

    settings = Encoder(model=str(REPOSITORY / ".aitp/models/all-MiniLM-L6-v2"), max_tokens=_ALL_TOKENS)
    found = prepare(settings, models.identity(settings))
    tokeniser, texts = Tokeniser(found.tokenizer_json, found.facts, settings), mix()
    rates = {"tokenised": len(texts) / _processor_seconds(lambda: tokeniser(texts))}
    for dimension in (384, 768, 1024):
        values = np.random.default_rng(0).normal(size=(512, dimension)).astype(np.float16)
        values /= np.linalg.norm(values, axis=1, keepdims=True)
        rates[f"summed_{dimension}"] = 512 / _processor_seconds(partial(Moments.of, values))
    alone, together = _batched(0), _batched(_GPU_WINDOW)
    rates["batched_and_taken"] = together.pop("rows_per_second")
    return {
        "rows_per_core_second": {name: round(rate) for name, rate in rates.items()},
        "chunk_batch_tokens": alone["tokens"],
        "window_batch_tokens": together["tokens"],
        "chunk_padding": alone["padding"],
        "window_padding": together["padding"],
    }


def _processor_seconds(work: Callable[[], Any]) -> float:
    """Median of three passes, of all threads."""
    taken = []
    for _ in range(ROUNDS):
        start = time.process_time()
        work()
        taken.append(time.process_time() - start)
    return statistics.median(taken)


def _batched(window_tokens: int) -> dict[str, float]:
    """Batches of rows with lengths as a web corpus has them, cut at 256; no encoder."""
    from aitp_tasks.encoder import chunks, windows
    from aitp_tasks.encoder.batches import Answer
    from aitp_tasks.encoder.tokens import Tokenised

    lengths = np.minimum(np.random.default_rng(0).lognormal(5.0, 1.0, 256 * 512).astype(int) + 3, 256)
    read = []
    for start in range(0, len(lengths), 512):
        read.append(chunks.Chunk(start, 384, True))
        for length in lengths[start : start + 512].tolist():
            read[-1].add("", Tokenised([np.zeros(length, np.int32)], False))
    vectors, padded, count = np.zeros((50_000, 384), np.float32), 0, 0
    began = time.process_time()
    for window in windows.grouped(read, window_tokens):
        for batch in chunks.batches(window, _GPU_BATCH):
            batch.padded(0)
            chunks.take(Answer(batch, vectors[: len(batch.sequences)]))
            padded, count = padded + batch.padded_tokens, count + 1
        for chunk in window:
            chunk.finish()
    return {
        "rows_per_second": len(lengths) / (time.process_time() - began),
        "tokens": round(padded / count),
        "padding": round(1 - int(lengths.sum()) / padded, 4),
    }


PARTS = {"speed": speed, "memory": memory, "kills": kills, "reuse": reuse, "formats": formats, "host": host}


class _Server:
    """One embedder in a process of its own."""

    def __init__(self, name: str, environment: str, folder: Path) -> None:
        self._name = name
        python = REPOSITORY / ".venv" / environment / "bin" / "python"
        script = REPOSITORY / "benchmarks" / "embedders.py"
        self._log = (folder / f"{name}.log").open("w+")
        self._process = subprocess.Popen(
            [python, script, name, folder / "texts.json", folder],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._log, text=True,
        )  # fmt: skip
        self._answer()

    def run(self) -> float:
        """Seconds of one pass."""
        assert self._process.stdin is not None
        self._process.stdin.write("go\n")
        self._process.stdin.flush()
        return float(self._answer())

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()

    def _answer(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            self._log.seek(0)
            sys.exit(f"{self._name} failed:\n{self._log.read()[-3000:]}")
        return line


def _ratio(others: list[float], ours: list[float]) -> float:
    return round(statistics.median(other / own for other, own in zip(others, ours, strict=True)), 3)


def _cosines(left: Any, right: Any) -> Any:
    norms = np.linalg.norm(left, axis=1) * np.linalg.norm(right, axis=1)
    return (left * right).sum(axis=1) / norms


def _write_shard(root: Path, size: int) -> None:
    """One shard of about ``size`` bytes of real documents, each made different, one row group."""
    path = root / "corpus/mix/mix.parquet"
    path.parent.mkdir(parents=True)
    schema = pa.schema([("text", pa.large_string())])
    documents = [text for text in mix() if len(text) > 1000]
    with pq.ParquetWriter(path, schema, compression="none", use_dictionary=False) as writer:
        for batch in _numbered(documents, size):
            writer.write_batch(pa.record_batch([pa.array(batch, pa.large_string())], schema=schema))
    _sft(root)


def _numbered(documents: list[str], size: int) -> Iterator[list[str]]:
    written = number = 0
    while written < size:
        batch = [f"{number + place} {text}" for place, text in enumerate(documents)]
        number += len(batch)
        written += sum(map(len, batch))
        yield batch


def _sft(root: Path) -> None:
    path = root / "sft/alpaca/alpaca.parquet"
    path.parent.mkdir(parents=True)
    pq.write_table(pa.Table.from_pylist([{"instruction": "Add 1 and 1.", "output": "2"}]), path)


def _plan(root: Path, tokens: int = _FEW_TOKENS) -> str:
    overrides = [
        f"root=file://{root}",
        "dump=mix",
        f"encoder.max_tokens={tokens}",
        "plan.group_bytes=100000000000",
    ]
    arguments = [word for override in overrides for word in ("--set", override)]
    result, _, _ = timed(["plan", "--config", str(REPOSITORY / "configs/demo.yaml"), *arguments])
    return str(result["run"])


def _stored(root: Path) -> int:
    """Rows in stored chunks."""
    chunks = [path.stem.split("-") for path in (root / "embeddings").rglob("rows-*")]
    return sum(int(end) - int(start) for _, start, end in chunks)


def _contents(root: Path) -> dict[str, bytes]:
    """Data objects by name; folders and manifests differ by the input files' times.

    A process killed while it writes leaves a file that no listing of the storage shows.
    """
    files = [path for path in (root / "embeddings").rglob("*") if path.is_file()]
    hidden = ("manifest.json", ".unfinished-")
    return {path.name: path.read_bytes() for path in files if not path.name.startswith(hidden)}


if __name__ == "__main__":
    if sys.argv[1:2] == ["counted"]:
        counted(sys.argv[2], Path(sys.argv[3]))
    else:
        run_parts(PARTS, sys.argv[1:])
