"""The log history as TensorBoard itself reads it back."""

import json
from pathlib import Path

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from aitp_tasks.training import events


def test_tensorboard_reads_each_figure_of_each_step(tmp_path: Path) -> None:
    history = [
        {"step": 1, "epoch": 0.5, "loss": 2.5, "learning_rate": 1e-5, "seconds": 1.5},
        {"step": 2, "epoch": 1.0, "loss": 2.0, "learning_rate": 0.0, "seconds": 3.0},
        {"step": 2, "epoch": 1.0, "eval_loss": 2.25, "seconds": 4.0},
    ]
    (tmp_path / "history.json").write_text(json.dumps(history))
    events.write(tmp_path / "history.json", tmp_path / "runs")
    assert [path.name for path in (tmp_path / "runs").iterdir()] == ["events.out.tfevents.training"]
    read = EventAccumulator(str(tmp_path / "runs"))
    read.Reload()
    assert sorted(read.Tags()["scalars"]) == ["eval/loss", "train/learning_rate", "train/loss"]
    assert [(one.step, one.value, one.wall_time) for one in read.Scalars("eval/loss")] == [(2, 2.25, 4.0)]
    found = [(one.step, one.value, one.wall_time) for one in read.Scalars("train/loss")]
    assert found == [(1, 2.5, 1.5), (2, 2.0, 3.0)]


def test_a_training_without_a_step_leaves_a_file_that_is_empty(tmp_path: Path) -> None:
    (tmp_path / "history.json").write_text("[]")
    events.write(tmp_path / "history.json", tmp_path / "runs")
    read = EventAccumulator(str(tmp_path / "runs"))
    read.Reload()
    assert read.Tags()["scalars"] == []
