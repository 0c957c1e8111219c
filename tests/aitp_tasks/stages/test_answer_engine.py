"""Several answers, judged, with the real engine: sampled with seeds, in one start."""

from collections.abc import Callable
from pathlib import Path

import pytest

from aitp_tasks.config import RunConfig
from aitp_tasks.records import generated
from tests.aitp_tasks.conftest import MODELS, REPOSITORY
from tests.aitp_tasks.generation.scored import scored
from tests.aitp_tasks.stages import test_answer
from tests.aitp_tasks.stages.test_answer import answered

pytestmark = pytest.mark.slow

base, configure = test_answer.base, test_answer.configure


def test_vllm_samples_with_seeds_and_judges_in_one_start(
    configure: Callable[..., RunConfig], tmp_path: Path
) -> None:
    """Prompts together are longer than what vLLM computes at a time, which kills it with a seed in each."""
    folder = tmp_path / "prompts"
    folder.mkdir()
    for path in (REPOSITORY / "prompts").iterdir():
        # So short that a small model comes to an end.
        (folder / path.name).write_text(path.read_text().replace("maxLength: 4000", "maxLength: 60"))
    config = configure("contradicted", 2, folder=str(folder), sampling={"temperature": 0.8, "max_tokens": 64})
    engine = {
        "model": str(MODELS / "SmolLM2-135M-Instruct"),
        "max_model_len": 1024,
        "engine_args": {"enforce_eager": True, "max_num_seqs": 64, "max_num_batched_tokens": 256},
    }
    config = config.model_copy(update={"engine": config.engine.model_validate(engine)})
    words = ("oak", "stone", "brick")
    run = scored(
        config, {f"The port was built of {one}. " * 60: [f"Of what is the {one} port?"] for one in words}
    )
    done, rows = answered(run)
    assert (done.figures["engine_starts"], done.figures["engine_restarts"]) == (1, 0)
    assert done.figures["generated"] >= 6
    judged = [row for row in rows if row[generated.VERDICT] is not None]
    assert len(judged) == sum(done.figures["judge"]["verdicts"].values()) > 0
    # What was loaded for the answers is there.
    assert done.figures["load_seconds"] > 0 == done.figures["judge"]["load_seconds"]
    assert {row["answer"] for row in rows if row["kept"]} <= {row["answer"] for row in judged}
    assert all(row[generated.LOG_PROBABILITY] < 0 for row in judged)
    ranked = {row["question_id"] for row in judged}
    assert len(ranked) == sum(row["kept"] for row in rows)
