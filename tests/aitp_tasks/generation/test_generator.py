"""The same run twice with the real engine, once on a machine that is busy: the same bytes."""

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from aitp_tasks.config import RunConfig
from aitp_tasks.records import generated
from aitp_tasks.records.run import Run
from aitp_tasks.stages import density, difference, embed, merge, plan
from tests.aitp_tasks.conftest import REPOSITORY, Configure, write_shard

pytestmark = pytest.mark.slow

#: Texts of several lengths, so that each batch is another shape.
TEXTS = [
    (REPOSITORY / "README.md").read_text()[start : start + length]
    for start, length in ((0, 300), (1500, 1600), (2500, 200))
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
            "sampling": {"max_tokens": 64, "temperature": 0.7},
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
    spinning = [subprocess.Popen([sys.executable, "-c", SPIN]) for _ in range(2)]
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
    for stage in generated.STAGES:
        shutil.rmtree(root / run.key(stage, ""), ignore_errors=True)
        command = [Path(sys.executable).with_name("aitp"), stage, "--run", run.uri, "--unit", "0"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr[-3000:]
        assert run.require_manifest(stage, run.parts[0]).figures["generated"] > 0
    paths = [path for stage in generated.STAGES for path in (root / run.key(stage, "")).rglob("*.parquet")]
    return {str(path.relative_to(root)): path.read_bytes() for path in paths}
