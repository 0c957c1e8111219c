"""What a training says of itself."""

import logging
from pathlib import Path
from typing import Any

import pytest
from transformers import TrainerControl, TrainerState, TrainingArguments

from aitp_tasks.config import Finetune
from aitp_tasks.errors import InputError
from aitp_tasks.training import progress
from aitp_tasks.training.job import Job
from aitp_tasks.training.template import ChatTemplates


class _Told:
    """A training whose steps take as long as is said."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch, **state: Any) -> None:
        job = Job(folder=folder, finetune=Finetune(model="/none"), templates=ChatTemplates("", "", None, 0))
        self.now = 100.0
        monkeypatch.setattr("time.monotonic", lambda: self.now)
        self.arguments, self.control = TrainingArguments(output_dir=str(folder)), TrainerControl()
        self.state = TrainerState(max_steps=10, **state)
        self.callback = progress.callback(job)
        self.callback.on_train_begin(self.arguments, self.state, self.control)

    def step(self, seconds: float, tokens: int, loss: float = 2.0) -> None:
        self.now += seconds
        self.state.global_step += 1
        logs = {"loss": loss, "num_tokens": tokens, "padding": 0.25}
        self.state.log_history.append({**logs, "step": self.state.global_step})
        self.callback.on_log(self.arguments, self.state, self.control, logs=logs)

    def validate(self, loss: float) -> None:
        logs = {"eval_loss": loss}
        self.state.log_history.append({**logs, "step": self.state.global_step})
        self.callback.on_log(self.arguments, self.state, self.control, logs=logs)


def test_a_line_now_and_then(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    told = _Told(tmp_path, monkeypatch)
    with caplog.at_level(logging.INFO):
        for number in range(1, 11):
            told.step(4.0, number * 1000)
    assert [record.getMessage() for record in caplog.records] == [
        "step=1 of=10 loss=2.0000 tokens_per_second=250 padding=0.250 seconds_left=36",
        "step=4 of=10 loss=2.0000 tokens_per_second=250 padding=0.250 seconds_left=24",
        "step=7 of=10 loss=2.0000 tokens_per_second=250 padding=0.250 seconds_left=12",
        "step=10 of=10 loss=2.0000 tokens_per_second=250 padding=0.250 seconds_left=0",
    ]
    assert [entry["seconds"] for entry in told.state.log_history] == [4.0 * step for step in range(1, 11)]


def test_what_was_before_a_stop_is_added_and_not_counted_into_the_speed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    last = {"loss": 3.0, "step": 6, "seconds": 600.0, "num_tokens": 9000}
    told = _Told(tmp_path, monkeypatch, global_step=6, log_history=[last])
    with caplog.at_level(logging.INFO):
        told.step(2.0, 10000)
    assert "step=7 of=10 loss=2.0000 tokens_per_second=500 padding=0.250 seconds_left=6" in caplog.text
    assert told.state.log_history[-1]["seconds"] == 602.0


@pytest.mark.parametrize("loss", [float("nan"), float("inf")])
def test_a_loss_that_is_none_ends_the_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, loss: float
) -> None:
    with pytest.raises(
        InputError, match=rf"the loss is {loss} at step 1: lower finetune.learning_rate=2e-06"
    ):
        _Told(tmp_path, monkeypatch).step(1.0, 10, loss)


def test_a_validation_has_a_line_and_is_no_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    told = _Told(tmp_path, monkeypatch)
    with caplog.at_level(logging.INFO):
        told.step(4.0, 1000)
        for loss in (2.5, 2.25, 2.75):
            told.now += 1.0
            told.validate(loss)
        told.step(4.0, 2000)
    lines = [record.getMessage() for record in caplog.records]
    assert lines[1:] == [
        "step=1 eval_loss=2.5000 best=2.5000 best_step=1",
        "step=1 eval_loss=2.2500 best=2.2500 best_step=1",
        "step=1 eval_loss=2.7500 best=2.2500 best_step=1",
    ]
    assert [entry["seconds"] for entry in told.state.log_history] == [4.0, 5.0, 6.0, 7.0, 11.0]
    # What follows a stop goes by the last step, not by the validation behind it.
    again = _Told(tmp_path, monkeypatch, global_step=1, log_history=told.state.log_history[:2])
    again.step(2.0, 1500)
    assert again.state.log_history[-1]["seconds"] == 6.0
    with pytest.raises(InputError, match="the loss on what is held out is nan at step 2: lower"):
        again.validate(float("nan"))
