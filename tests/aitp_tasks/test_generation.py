"""The runner's own logic, with a stand-in engine; the real one is in test_engine and tests/e2e."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from aitp_tasks import answer, difference, embed, generation, merge, plan, rewrite, score
from aitp_tasks import density as density_stage
from aitp_tasks.engine import Completion
from aitp_tasks.errors import BudgetExceededError, TransientError
from aitp_tasks.run import FrozenPrompt, Run
from tests.aitp_tasks.conftest import Configure

Respond = Callable[[str, dict[str, str]], str | Exception]


class StandIn:
    """Answers by a rule; counts what it was asked."""

    asked: list[dict[str, str]]
    respond: Respond

    def __init__(self, _: Any) -> None:
        pass

    def complete(self, prompt: FrozenPrompt, arguments: list[dict[str, str]]) -> list[Completion]:
        answers = [type(self).respond(prompt.name, values) for values in arguments]
        for reply in answers:
            if isinstance(reply, Exception):
                raise reply
        type(self).asked += arguments
        return [Completion(str(reply), "length" if reply == "cut" else "stop", 10, 5) for reply in answers]


def good(stage: str, values: dict[str, str]) -> str:
    """What a well-behaved model says."""
    if stage == "rewrite":
        return json.dumps({"questions": [f"What of {values['text'][:13]}?", "Which rivers are meant?"]})
    if stage == "score":
        return json.dumps({"quality": 8, "difficulty": 5, "additional_information": False})
    return json.dumps({"answer": f"Because of {values['question']}"})


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> type[StandIn]:
    StandIn.asked = []
    StandIn.respond = staticmethod(good)
    monkeypatch.setattr(generation, "Engine", StandIn)
    return StandIn


@pytest.fixture
def run(configure: Configure) -> Run:
    """A run up to its difference set: all twelve documents, in two parts."""
    return up_to_difference(configure(**SELECT_ALL))


SELECT_ALL: dict[str, Any] = {
    "difference": {"tau": 1e9, "max_documents": 12, "documents_per_part": 6},
    "engine": {"model": "/tmp", "max_model_len": 1024, "requests_per_flush": 2},
    "finetune": {"model": "/tmp"},
}


def up_to_difference(config: Any) -> Run:
    run = Run.open(plan.execute(config)["run"])
    for unit in range(len(run.plan.groups)):
        embed.execute(run, unit)
    merge.execute(run)
    for unit in range(len(run.plan.groups)):
        density_stage.execute(run, unit)
    difference.execute(run)
    return run


@pytest.fixture(autouse=True)
def small_models(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Model folders that are not loaded here get a fixed identity."""
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    for section in ("engine", "finetune"):
        SELECT_ALL[section]["model"] = str(folder)


def rows_of(run: Run, stage: str) -> list[dict[str, Any]]:
    return [row for part in run.parts for row in generation.read_rows(run, stage, part)]


def run_stage(stage: Any, run: Run) -> list[dict[str, Any]]:
    return [stage.execute(run, unit) for unit in range(run.part_count)]


def test_every_row_goes_through_the_three_stages(run: Run, engine: type[StandIn]) -> None:
    for stage in (rewrite, score, answer):
        run_stage(stage, run)
    questions, scores, pairs = (rows_of(run, stage) for stage in ("rewrite", "score", "answer"))
    assert len(questions) == len(scores) == len(pairs) == 24
    assert {row["question_id"] for row in pairs} == {row["question_id"] for row in questions}
    assert all(row["answer"] == f"Because of {row['question']}" for row in pairs)


def test_a_second_run_generates_nothing(run: Run, engine: type[StandIn]) -> None:
    run_stage(rewrite, run)
    engine.asked = []
    assert sum(result["generated"] for result in run_stage(rewrite, run)) == 12
    assert engine.asked == []


def test_an_interrupted_part_generates_only_what_is_missing(run: Run, engine: type[StandIn]) -> None:
    calls = 0

    def dies(stage: str, values: dict[str, str]) -> str | Exception:
        nonlocal calls
        calls += 1
        return TransientError("the engine died") if calls > 4 else good(stage, values)

    engine.respond = staticmethod(dies)
    with pytest.raises(TransientError):
        rewrite.execute(run, 0)
    stored = len(engine.asked)
    assert stored == 4
    engine.respond = staticmethod(good)
    result = rewrite.execute(run, 0)
    assert len(engine.asked) == result["rows_in"]
    assert len({values["text"] for values in engine.asked}) == result["rows_in"]


def test_another_configuration_reuses_what_its_prompts_left_alone(
    run: Run, engine: type[StandIn], configure: Configure
) -> None:
    run_stage(rewrite, run)
    engine.asked = []
    other = up_to_difference(configure(**SELECT_ALL, density={"bandwidth": 2.0}))
    assert other.uri != run.uri
    run_stage(rewrite, other)
    assert engine.asked == []


def test_one_bad_request_costs_itself_only(run: Run, engine: type[StandIn]) -> None:
    bad = generation.documents(run, run.parts[0], ["text"])[0]["text"]

    def refuses(stage: str, values: dict[str, str]) -> str | Exception:
        return ValueError("prompt too long") if values["text"] == bad else good(stage, values)

    engine.respond = staticmethod(refuses)
    with pytest.raises(
        BudgetExceededError, match=r"rewrite of part-0000.*'not_servable': 1.*failure_budget=0.05"
    ):
        rewrite.execute(run, 0)
    stored = len(engine.asked)
    engine.respond = staticmethod(good)
    assert rewrite.execute(run, 0)["rows_quarantined"] == 0
    assert len(engine.asked) == stored + 1


@pytest.mark.parametrize(
    ("reply", "error_class"),
    [
        ("cut", "cut_off"),
        ('{"questions": ["only one of them"]}', "not_parsed"),
        ("not json", "not_parsed"),
        ('{"questions": ["          ", "           "]}', "no_question"),
        ('{"questions": ["a lone \\ud800 surrogate", "another question"]}', "not_unicode"),
    ],
)
def test_a_response_that_cannot_be_used_is_quarantined_with_its_class(
    configure: Configure, engine: type[StandIn], reply: str, error_class: str
) -> None:
    run = up_to_difference(
        configure(**SELECT_ALL, prompts={"folder": configure().prompts.folder, "failure_budget": 1.0})
    )
    engine.respond = staticmethod(lambda stage, values: reply)
    for result in run_stage(rewrite, run):
        assert result["rows_quarantined"] == result["rows_in"] > 0
    done = run.require_manifest("rewrite", run.parts[0])
    assert done.ledger is not None
    assert set(done.ledger.quarantined) == {error_class}
    assert "quarantine" in done.outputs


@pytest.mark.parametrize(
    ("scores", "reason"),
    [
        ({"quality": 5, "difficulty": 9, "additional_information": False}, "quality"),
        ({"quality": 6, "difficulty": 2, "additional_information": False}, "difficulty"),
        ({"quality": 6, "difficulty": 3, "additional_information": True}, "additional_information"),
    ],
)
def test_gates_reject_with_their_reason_and_keep_the_row(
    run: Run, engine: type[StandIn], scores: dict[str, Any], reason: str
) -> None:
    run_stage(rewrite, run)
    engine.respond = staticmethod(lambda stage, values: json.dumps(scores))
    run_stage(score, run)
    rows = rows_of(run, "score")
    assert len(rows) == 24
    assert {row["reason"] for row in rows} == {reason}
    engine.asked = []
    assert all(result["rows_in"] == 0 for result in run_stage(answer, run))
    assert engine.asked == []


def test_equal_questions_are_one_question(run: Run, engine: type[StandIn]) -> None:
    engine.respond = staticmethod(
        lambda stage, values: '{"questions": ["What is it for?", " What is it for? "]}'
    )
    run_stage(rewrite, run)
    assert len(rows_of(run, "rewrite")) == 12
