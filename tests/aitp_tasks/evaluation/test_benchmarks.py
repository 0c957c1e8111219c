"""lm-evaluation-harness as it is run: against a plain reckoning, without a network, without credentials."""

import http.server
import json
import math
import os
import random
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from aitp_tasks.config import Evaluate, Finetune
from aitp_tasks.errors import InputError
from aitp_tasks.evaluation import benchmarks
from aitp_tasks.evaluation.benchmarks import Told
from tests.aitp_tasks import loopback
from tests.aitp_tasks.conftest import REPOSITORY
from tests.aitp_tasks.training import tiny

HARNESS = version("lm_eval")
#: The task file that the documentation shows.
TASK = (REPOSITORY / "docs/how-to/evaluate.md").read_text().split("```yaml\n")[3].split("```")[0]
WORDS = ("apples", "horses", "a tree", "rivers", "stone", "the sun", "no", "winter", "green", "seven", "salt")
DRAWN = random.Random(1)
#: Texts that would run or end something if they were more than texts.
ROWS = [
    {
        "question": f"What is {number} and {number}? {{{{ 7 * 7 }}}}<|im_end|>",
        "choices": DRAWN.sample(WORDS, 3),
        "answer": number % 3,
    }
    for number in range(13)
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("tasks")
    (made / "quiz.yaml").write_text(TASK)
    (made / "quiz.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    # Would be imported in the place of the library where this folder is on the path.
    (made / "torch.py").write_text("raise SystemExit('imported from the task folder')")
    return made


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory, smollm2: Path) -> Path:
    return tiny.make_model(tmp_path_factory.mktemp("base") / "model", smollm2, dtype="float32")


def _reckoned(base: Path, rows: list[dict[str, Any]]) -> dict[str, float]:
    """Accuracies as anybody would reckon them: of each choice, the likelihood behind the question."""
    tokenizer = AutoTokenizer.from_pretrained(base)
    model = AutoModelForCausalLM.from_pretrained(base).eval()
    right: dict[str, list[bool]] = {"acc": [], "acc_norm": []}
    chosen = set()
    for row in rows:
        question = f"Question: {row['question']}\nAnswer:"
        start = len(tokenizer(question)["input_ids"])
        scores = []
        for choice in row["choices"]:
            ids = torch.tensor([tokenizer(f"{question} {choice}")["input_ids"]])
            with torch.inference_mode():
                likely = model(ids).logits[0].log_softmax(-1)
            scores.append(sum(float(likely[at - 1, ids[0, at]]) for at in range(start, ids.shape[1])))
        normal = [score / len(choice) for score, choice in zip(scores, row["choices"], strict=True)]
        for name, values in (("acc", scores), ("acc_norm", normal)):
            right[name].append(values.index(max(values)) == row["answer"])
            chosen.add((name, values.index(max(values))))
    assert len(chosen) > 3, "a model that always chooses the same would show nothing"
    return {name: sum(found) / len(found) for name, found in right.items()}


@pytest.mark.slow
@pytest.mark.side_by_side
def test_accuracies_are_those_of_a_plain_reckoning(
    folder: Path, base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As another launcher leaves them: they are for ranks of its own.
    for name, value in (
        ("RANK", "3"),
        ("LOCAL_RANK", "3"),
        ("WORLD_SIZE", "8"),
        ("MASTER_ADDR", "192.0.2.1"),
    ):
        monkeypatch.setenv(name, value)
    settings = Evaluate(held_out=0.1, tasks=("quiz",), task_folder=str(folder), task_limit=12)
    told = benchmarks.of_model(settings, Finetune(model=str(base)), "float32", "cpu")
    found = benchmarks.figures({"base": told, "aitp": told}, settings.task_limit)
    assert (found["harness"], found["limit"], list(found["results"])) == (HARNESS, 12, ["quiz"])
    quiz = found["results"]["quiz"]
    assert quiz["n"] == 12
    for metric, share in _reckoned(base, ROWS[:12]).items():
        error = math.sqrt(share * (1 - share) / 11)
        expected = [pytest.approx(share, abs=1e-6), pytest.approx(error, abs=1e-6)]
        assert quiz["metrics"][metric] == {"base": expected, "aitp": expected}


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """A server in the place of the hub; what it was asked for."""
    asked: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_error(404)

        do_HEAD = do_GET  # noqa: N815

        def log_message(self, *_: Any) -> None:
            pass

    with loopback.serving(Handler) as address:
        monkeypatch.setenv("HF_ENDPOINT", address)
        yield asked


@pytest.mark.slow
@pytest.mark.side_by_side
def test_a_task_whose_rows_are_on_a_hub_is_refused_with_the_remedy_and_nobody_is_asked(
    folder: Path, hub: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HF_HOME", str(tmp_path / "no-cache"))
    settings = Evaluate(held_out=0.1, tasks=("quiz", "arc_easy"), task_folder=str(folder))
    with pytest.raises(
        InputError, match="task arc_easy of evaluate.tasks cannot be loaded .*: nothing is fetc"
    ):
        benchmarks.require(settings, load=True)
    assert hub == []


@pytest.mark.slow
@pytest.mark.side_by_side
def test_a_task_that_nobody_knows_is_refused_with_the_nearest_ones(folder: Path) -> None:
    settings = Evaluate(held_out=0.1, tasks=("quizz",), task_folder=str(folder))
    with pytest.raises(InputError, match=f"'quizz', which neither .* {HARNESS} nor {folder} has: write quiz"):
        benchmarks.require(settings, load=False)


def test_without_tasks_nothing_is_started(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("subprocess.Popen", pytest.fail)
    benchmarks.require(Evaluate(), load=True)


def test_the_process_knows_no_secrets_and_no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    secrets = (
        *("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "HF_TOKEN", "OPENAI_API_KEY"),
        *("GOOGLE_APPLICATION_CREDENTIALS", "DB_PASSWORD", "client_secret"),
    )
    for name in secrets:
        monkeypatch.setenv(name, "s3cret")
    monkeypatch.setenv("https_proxy", "http://proxy.example.org")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-1")
    found = benchmarks._environment()
    assert "s3cret" not in found.values()
    assert found["CUDA_VISIBLE_DEVICES"] == "GPU-1"
    assert found["PATH"] == os.environ["PATH"]
    assert (found["HF_HUB_OFFLINE"], found["HF_DATASETS_OFFLINE"], found["https_proxy"]) == (
        "1", "1", "http://127.0.0.1:9",
    )  # fmt: skip


def test_figures_of_all_models_stand_side_by_side() -> None:
    base = Told(
        version="1",
        results={
            "a": {"alias": "a", "acc,none": 0.5, "acc_stderr,none": 0.1},
            "b": {
                **{"exact,strict": 1, "exact_stderr,strict": "N/A"},
                **{"ppl,none": float("nan"), "ppl_stderr,none": 1.0},
            },
            "group": {"acc,none": 0.25, "acc_stderr,none": 0.0625},
        },
        counts={"a": {"original": 9, "effective": 4}, "b": {"original": 3, "effective": 3}},
    )
    aitp = base.model_copy(update={"results": {"a": {"acc,none": 0.75, "acc_stderr,none": 0.2}}})
    assert benchmarks.figures({"base": base, "aitp": aitp}, None) == {
        "harness": "1",
        "limit": None,
        "results": {
            "a": {"n": 4, "metrics": {"acc": {"base": [0.5, 0.1], "aitp": [0.75, 0.2]}}},
            "b": {"n": 3, "metrics": {"exact,strict": {"base": [1.0, None]}, "ppl": {"base": [None, 1.0]}}},
            "group": {"n": None, "metrics": {"acc": {"base": [0.25, 0.0625]}}},
        },
    }


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"tasks": ["quiz"]}, "held_out=0 holds none out: set held_out"),
        ({"held_out": 0.1, "task_folder": "/t"}, "task_folder=/t is set, but tasks names none"),
        ({"held_out": 0.1, "tasks": ["a", "b", "a"]}, "tasks names a twice"),
        ({"held_out": 0.1, "tasks": ["../a.yaml"]}, "should match pattern"),
        ({"held_out": 0.1, "tasks": ["/tmp/a"]}, "should match pattern"),
        ({"held_out": 0.1, "tasks": ["quiz"], "task_limit": 0}, "greater than or equal to 1"),
    ],
)
def test_settings_that_cannot_be_meant_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Evaluate.model_validate(settings)
