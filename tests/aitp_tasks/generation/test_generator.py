"""The same run twice with the real engine, once on a machine that is busy: the same bytes."""

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from aitp_tasks.config import Engine, Require, RunConfig
from aitp_tasks.errors import InputError
from aitp_tasks.generation.generator import Session
from aitp_tasks.generation.part import PromptStage
from aitp_tasks.machine import devices
from aitp_tasks.records import generated, selected, tables
from aitp_tasks.records.manifest import Manifest
from aitp_tasks.records.run import Run
from aitp_tasks.stages import answer, density, difference, embed, merge, plan, rewrite, score
from tests.aitp_tasks.conftest import Configure, write_shard

pytestmark = pytest.mark.slow

#: Texts of several lengths, so that each batch is another shape.
TEXTS = ["The harbour was built of grey stone. " * count for count in (8, 40, 5)]
#: What each stage finds, whatever the model has drawn before: that differs by the processor.
QUESTIONS = [
    "Why do harbours silt up over the years?",
    "How is grey stone cut?",
    "Which tides are highest, and when?",
]
SPIN = "while True: pass"


@pytest.fixture
def deterministic(root: Path, configure: Configure) -> RunConfig:
    shutil.rmtree(root / "corpus")
    write_shard(root / "corpus/news/news-00000.parquet", [{"text": text} for text in TEXTS])
    config = configure()
    values: dict[str, Any] = {
        "difference": {"tau": 1e9, "documents_per_part": 3},
        "engine": config.engine.model_dump()
        | {"deterministic": True, "engine_args": {"enforce_eager": True}, "max_model_len": 768},
        "prompts": {
            "folder": config.prompts.folder,
            # What is drawn at random is the same too.
            "sampling": {"max_tokens": 24, "temperature": 0.7},
            "failure_budget": 1.0,
        },
        "gates": {
            "min_quality": 1,
            "min_difficulty": 1,
            "min_question_words": 1,
            "allow_additional_information": True,
        },
    }
    return configure(**values)


def test_two_runs_one_beside_busy_processes_give_the_same_bytes(root: Path, deterministic: RunConfig) -> None:
    run = Run.open(plan.execute(deterministic)["run"])
    for stage in (embed, merge, density, difference):
        for unit in range(len(run.plan.groups)) if stage in (embed, density) else [None]:
            stage.execute(run, *([] if unit is None else [unit]))
    alone = generate(root, run)
    # Nice: what is wanted is another timing, not that all of it takes three times as long.
    spinning = [subprocess.Popen(["nice", sys.executable, "-c", SPIN]) for _ in range(2)]
    try:
        busy = generate(root, run)
    finally:
        for process in spinning:
            process.kill()
    assert len(alone) >= len(generated.STAGES)
    assert alone == busy


def generate(root: Path, run: Run) -> dict[str, bytes]:
    """What the prompt stages make of the part, all of it anew."""
    shutil.rmtree(root / "generations", ignore_errors=True)
    made: dict[str, bytes] = {}
    for stage in (rewrite, score, answer):
        name = stage.STAGE.name
        shutil.rmtree(root / run.key(name, ""), ignore_errors=True)
        command = [Path(sys.executable).with_name("aitp"), name, "--run", run.uri, "--unit", "0"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr[-3000:]
        assert run.require_manifest(name, run.parts[0]).figures["generated"] >= len(TEXTS)
        made |= {path.name: path.read_bytes() for path in (root / run.key(name, "")).rglob("*.parquet")}
        hand_on(root, run, stage.STAGE)
    return made


def hand_on(root: Path, run: Run, stage: PromptStage) -> None:
    """Leave the same kept rows to the next stage every time."""
    shutil.rmtree(root / run.key(stage.name, ""))
    given = {
        "quality": 9,
        "difficulty": 9,
        "cut_characters": 0,
        "additional_information": False,
        "kept": True,
    }
    rows = [
        {"doc_id": document["doc_id"], "question_id": rewrite.question_id(document["doc_id"], question)}
        | {"question": question}
        | {name: value for name, value in given.items() if name in stage.columns.names}
        for document, question in zip(
            selected.documents(run, run.parts[0], ["doc_id"]), QUESTIONS, strict=True
        )
    ]
    table = pa.Table.from_pylist(rows, stage.columns)
    outputs = {"rows": tables.write(run.storage, run.key(stage.name, run.parts[0]), table)}
    run.commit(Manifest(stage=stage.name, label=run.parts[0], outputs=outputs), run.parts[0])


def test_a_gpu_that_is_missing_is_told_before_the_model_is_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "_required", Require.GPU)
    monkeypatch.setattr("aitp_tasks.machine.gpus._installed", list)
    session = Session(Engine(model="/not/fetched"), "planned")
    with pytest.raises(InputError, match="engine.engine_args is to work on a GPU"):
        session.start(seeded=False)
