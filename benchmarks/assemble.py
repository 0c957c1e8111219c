"""assemble at size: a large SFT set and many new pairs, with and without the search for near-duplicates.

    make bench-assemble                                # a million examples, 50,000 pairs
    .venv/worker/bin/python benchmarks/assemble.py EXAMPLES PAIRS

The stages before it are run for real, but for the encoder, whose vectors are made (384
components, each text at one of a few thousand places), and for the three prompt stages, of
which only the rows are written. assemble itself runs as a process of its own. The last
line of output is one JSON object.
"""

import json
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from embedders import REPOSITORY
from measure import processor, tree_memory
from numpy.typing import NDArray

from aitp_tasks.config import RunConfig
from aitp_tasks.machine import models
from aitp_tasks.records import generated, selected, tables
from aitp_tasks.records.manifest import Ledger, Manifest
from aitp_tasks.records.run import Run
from aitp_tasks.selection import contest
from aitp_tasks.stages import answer, assemble, density, difference, embed, index, merge, plan, rewrite, score

_DIMENSION, _PLACES, _ROWS_PER_SHARD, _ANSWER_WORDS = 384, 4096, 100_000, 120
_MODELS = REPOSITORY / ".aitp" / "models"
_CENTRES = np.random.default_rng(0).normal(size=(_PLACES, _DIMENSION)).astype(np.float32)


def main(examples: int, pairs: int) -> None:
    """Prepare one run, and assemble it twice."""
    figures: dict[str, Any] = {"examples": examples, "pairs": pairs}
    with tempfile.TemporaryDirectory(prefix="aitp-bench-", dir=REPOSITORY / ".aitp") as folder:
        root = Path(folder)
        _write_inputs(root, examples, pairs)
        for name, similarity in (("assemble", 1.0), ("assemble_near", 0.95)):
            uri = _prepared(root, pairs, similarity)
            seconds, megabytes = _in_a_process(uri)
            done = Run.open(uri).require_manifest("assemble").figures
            figures |= {
                f"{name}_seconds": round(seconds, 1),
                f"{name}_peak_mb": megabytes,
                f"{name}_pairs": done["pairs"],
            }
            print(name, json.dumps(figures), flush=True)
    print(json.dumps(figures | {"processor": processor()}))


def _write_inputs(root: Path, examples: int, pairs: int) -> None:
    words = (REPOSITORY / "README.md").read_text().split()
    answered = " ".join(words[:_ANSWER_WORDS])
    for first in range(0, examples, _ROWS_PER_SHARD):
        rows = [
            {
                "instruction": f"p{number % (_PLACES // 2)} s{number} how is this done?",
                "output": f"{number} {answered}",
            }
            for number in range(first, min(first + _ROWS_PER_SHARD, examples))
        ]
        _write(root / f"sft/set/{first:09d}.parquet", rows)
    # Documents lie where half of the examples do not.
    rows = [{"text": f"p{number % _PLACES} d{number} tells. {answered}"} for number in range(2 * pairs)]
    _write(root / "corpus/dump/0.parquet", rows)


def _write(path: Path, rows: list[dict[str, str]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows), path)


def _prepared(root: Path, pairs: int, similarity: float) -> str:
    """The URI of a run that has come as far as answer."""
    _with_made_vectors()
    config = RunConfig.model_validate(
        {
            "root": f"file://{root}",
            "dump": "dump",
            "sft": "set",
            "encoder": {"model": str(_MODELS / "all-MiniLM-L6-v2")},
            "difference": {"target_documents": pairs, "max_documents": pairs},
            "engine": {"model": str(_MODELS / "SmolLM2-135M-Instruct"), "max_model_len": 4096},
            "prompts": {"folder": str(REPOSITORY / "prompts")},
            "assemble": {"dataset": "bench", "base": "none", "max_similarity": similarity},
            "finetune": {"model": str(_MODELS / "SmolLM2-135M-Instruct")},
        }
    )
    run = Run.open(plan.execute(config, estimated=False)["run"])
    stages: list[tuple[Callable[..., Any], bool]] = [
        *((embed.execute, True), (merge.execute, False), (density.execute, True)),
        *((index.execute, False), (difference.execute, False)),
    ]
    for stage, by_group in stages:
        for unit in range(len(run.plan.groups)) if by_group else [None]:
            stage(run, unit)
    run = Run.open(run.uri)
    for part in run.parts:
        _answer(run, part)
    return run.uri


def _with_made_vectors() -> None:
    sys.path.insert(0, str(REPOSITORY))
    from tests.aitp_tasks import made

    def numbers(text: str) -> tuple[int, int]:
        return int(text.split(maxsplit=1)[0][1:]), crc32(text.encode()) >> 1

    def vector(place: int, own: int) -> NDArray[np.float32]:
        random = np.random.default_rng(own)
        return _CENTRES[place] + 0.6 * random.normal(size=_DIMENSION).astype(np.float32)

    encoder = made.encoder(numbers, vector, _DIMENSION)
    for module in (embed, contest):
        module.open_encoder = lambda *_: encoder  # type: ignore[attr-defined]
    models.require_planned = lambda *_: None  # type: ignore[assignment]


def _answer(run: Run, part: str) -> None:
    """One question and answer for each document of a part, as the prompt stages would have left them."""
    rows: dict[str, list[dict[str, Any]]] = {name: [] for name in generated.STAGES}
    for document in selected.documents(run, part, ["doc_id", "text"]):
        place, number, *rest = document["text"].split()
        question = f"{place} {number} asks how this is done?"
        asked = {
            "doc_id": document["doc_id"],
            "question_id": rewrite.question_id(document["doc_id"], question),
            "question": question,
            "kept": True,
        }
        rows["rewrite"].append(asked | {"cut_characters": 0})
        rows["score"].append(asked | {"quality": 8, "difficulty": 5, "additional_information": False})
        told = {"pair_id": f"{asked['question_id']}-a", "answer": " ".join(rest), "cut_characters": 0}
        rows["answer"].append(asked | told)
    for stage in (rewrite, score, answer):
        found = pa.Table.from_pylist(rows[stage.STAGE.name], stage.STAGE.columns)
        key = tables.write(run.storage, run.key(stage.STAGE.name, part), found)
        ledger = Ledger(rows_in=len(found), rows_out=len(found))
        run.commit(Manifest(stage=stage.STAGE.name, label=part, ledger=ledger, outputs={"rows": key}), part)


def _in_a_process(uri: str) -> tuple[float, float]:
    """Seconds and peak memory in MB of assemble."""
    start, peaks = time.monotonic(), [0.0]
    process = subprocess.Popen([sys.executable, __file__, "assemble", uri])

    def watch() -> None:
        while process.poll() is None:
            peaks.append(tree_memory(process.pid))
            time.sleep(0.1)

    thread = threading.Thread(target=watch)
    thread.start()
    thread.join()
    if process.returncode:
        sys.exit(process.returncode)
    return time.monotonic() - start, round(max(peaks) / 1e6, 1)


if __name__ == "__main__":
    if sys.argv[1:2] == ["assemble"]:
        _with_made_vectors()
        assemble.execute(Run.open(sys.argv[2]))
    else:
        main(*map(int, sys.argv[1:] or (1_000_000, 50_000)))
