"""What trackers are told; a real training tells one in test_validation.py."""

import importlib.util
import logging
import os
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from transformers import TrainerControl, TrainerState, TrainingArguments

from aitp_tasks.config import Finetune, Tracker
from aitp_tasks.errors import InputError
from aitp_tasks.training import checks, tracking
from aitp_tasks.training.job import Job
from aitp_tasks.training.template import ChatTemplates
from tests.aitp_tasks.training import tiny

_SECRET = "hunter2"


@pytest.mark.parametrize("tracker", Tracker)
def test_a_tracker_that_is_not_installed_is_refused(tracker: Tracker) -> None:
    # None of them is in the lock.
    assert importlib.util.find_spec(tracker.value) is None
    with pytest.raises(InputError, match=rf"report_to names {tracker}, .* pip install {tracker}") as told:
        checks.require_trackers(Finetune(model="/none", report_to=(tracker,)))
    assert "or take it out" in str(told.value)


@pytest.mark.parametrize(
    "address",
    [f"https://me:{_SECRET}@host/x", f"https://{_SECRET}@host", f"http://host/?write_token={_SECRET}"],
)
@pytest.mark.parametrize(
    ("tracker", "variable"), [(name, one.address) for name, one in tracking._CLIENTS.items()]
)
def test_a_secret_in_an_address_is_refused_and_not_repeated(
    tracker: Tracker, variable: str, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    settings = Finetune(model="/none", report_to=(tracker,))
    monkeypatch.setenv(variable, "https://host:8080/path")
    tracking.require(settings)
    monkeypatch.setenv(variable, address)
    with pytest.raises(InputError, match=f"{variable} has a user, a password or a query") as told:
        tracking.require(settings)
    assert _SECRET not in str(told.value)


@pytest.fixture
def job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Job:
    for name in tracking._PROJECT:
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    monkeypatch.setenv("MLFLOW_FLATTEN_PARAMS", "1")
    settings = Finetune(model="/none", report_to=(Tracker.TRACKIO,))
    templates = ChatTemplates("", "", None, 0)
    return Job(folder=tmp_path, finetune=settings, templates=templates, project="line", title="v1 base")


def _run(job: Job, folder: Path) -> list[Any]:
    """A training of two steps."""
    arguments = TrainingArguments(output_dir=str(folder), run_name=job.title, project=job.project)
    state, control = TrainerState(max_steps=2, is_world_process_zero=True), TrainerControl()
    (callback,) = tracking.callbacks(job)
    callback.on_train_begin(arguments, state, control, model=None)
    for step in (1, 2):
        state.global_step = step
        callback.on_log(arguments, state, control, logs={"loss": 1.0 / step})
    callback.on_train_end(arguments, state, control)
    return [os.environ[name] for name in tracking._PROJECT]


def test_the_project_is_the_dataset_unless_the_environment_says_otherwise(
    job: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = tiny.tracker(tmp_path, monkeypatch)
    assert _run(job, tmp_path) == ["line", "line"]
    assert client() == [
        {"init": ["line", "v1 base"]},
        {"log": {"train/loss": 1.0, "train/global_step": 1}},
        {"log": {"train/loss": 0.5, "train/global_step": 2}},
        {"finish": True},
    ]
    monkeypatch.setenv("WANDB_PROJECT", "ours")
    tracking.callbacks(job)
    assert os.environ["WANDB_PROJECT"] == "ours"


@pytest.mark.parametrize("broken", ["init", "log", "finish"])
def test_a_tracker_that_fails_ends_nothing_and_its_text_is_not_shown(
    broken: str, job: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    client = tiny.tracker(tmp_path, monkeypatch)
    module: ModuleType = sys.modules["trackio"]

    def fail(*_: Any, **values: Any) -> None:
        raise ConnectionError(f"https://me:{_SECRET}@host refuses")

    monkeypatch.setattr(module, broken, fail)
    with caplog.at_level(logging.INFO):
        _run(job, tmp_path)
    fails = [record.getMessage() for record in caplog.records if "tracker=" in record.getMessage()]
    # Once, whatever follows.
    assert fails == ["tracker=trackio fails (ConnectionError) and is told nothing more; the training goes on"]
    assert _SECRET not in caplog.text
    assert len(client()) == {"init": 0, "log": 1, "finish": 3}[broken]
