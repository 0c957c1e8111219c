"""Benchmark tasks in a plan: looked for before anything is planned, and a part of the run's identity."""

from pathlib import Path

import pytest

from aitp_tasks.errors import InputError
from aitp_tasks.evaluation import benchmarks
from aitp_tasks.evaluation.benchmarks import Asked, Told
from aitp_tasks.records.run import Run
from aitp_tasks.stages import plan
from tests.aitp_tasks.conftest import Configure


def test_task_files_decide_which_run_it_is_and_where_they_lie_does_not(
    configure: Configure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Asked] = []
    # The process is run in evaluation/test_benchmarks.py.
    monkeypatch.setattr(benchmarks, "_run", lambda one: asked.append(one) or Told())
    runs = []
    for folder, content in (
        ("one", "task: quiz"),
        ("other", "task: quiz"),
        ("other", "task: quiz\nversion: 2"),
    ):
        (tmp_path / folder).mkdir(exist_ok=True)
        (tmp_path / folder / "quiz.yaml").write_text(content)
        settings = {"held_out": 0.1, "tasks": ["quiz"], "task_folder": str(tmp_path / folder)}
        runs.append(Run.open(plan.execute(configure(evaluate=settings))["run"]))
    assert runs[0].digest == runs[1].digest != runs[2].digest
    assert [(one.tasks, one.load, one.model) for one in asked] == [(("quiz",), False, None)] * len(asked)
    assert asked
    # A run without tasks is the one that it was before there were any.
    plain = Run.open(plan.execute(configure(evaluate={"held_out": 0.1}))["run"])
    assert (plain.plan.tasks_identity, plain.plan.digest) == ("", plain.digest)
    assert plain.digest not in {run.digest for run in runs}


def test_a_task_that_nobody_knows_leaves_no_plan(
    configure: Configure, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(_: Asked) -> Told:
        raise InputError("evaluate.tasks names 'quizz'")

    monkeypatch.setattr(benchmarks, "_run", refused)
    with pytest.raises(InputError, match="names 'quizz'"):
        plan.execute(configure(evaluate={"held_out": 0.1, "tasks": ["quizz"]}))
    assert not (root / "runs").exists()
