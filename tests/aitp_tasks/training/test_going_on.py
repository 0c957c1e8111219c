"""A training that is killed goes on as if it had not been; what cannot go on says so."""

import json
import os
import random
import shutil
import signal
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from aitp_tasks.errors import InputError
from aitp_tasks.training import parameters, states
from aitp_tasks.training.job import Job
from tests.aitp_tasks.training import tiny

pytestmark = pytest.mark.slow

#: Steps of an epoch with two examples a step and rank, and one of them at random.
_EXAMPLES, _GAP = 24, 1e-3


def _killed(job: Job, step: int) -> None:
    """Train until a state of this step is there, and kill all ranks at once."""
    processes = tiny.start([job])
    wanted = job.states / f"step-{step:08d}"
    deadline = time.monotonic() + 240
    while not wanted.is_dir():
        assert time.monotonic() < deadline
        assert all(process.poll() is None for process in processes), processes[0].communicate()[0]
        time.sleep(0.002)
    for process in processes:
        os.kill(process.pid, signal.SIGKILL)
    for process in processes:
        process.communicate()
    assert not job.outcome.exists()


def _goes_on(job: Job) -> int:
    """Let a killed job go on from its newest state; that one's step."""
    newest = sorted(job.states.glob("step-*[0-9]"))[-1]
    shutil.rmtree(job.resumed, ignore_errors=True)
    newest.rename(job.resumed)
    shutil.rmtree(job.states)
    return int(newest.name.removeprefix("step-"))


def _gap(one: list[float], other: list[float]) -> float:
    assert len(one) == len(other)
    return max(abs(a - b) / a for a, b in zip(one, other, strict=True))


@pytest.fixture(scope="module")
def model(smollm2: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.make_model(tmp_path_factory.mktemp("model") / "tiny", smollm2, attention_dropout=0.1)


@pytest.mark.parametrize(
    ("processes", "settings"),
    [
        (1, {"neftune_noise": 5.0, "group_by_length": True}),
        # Two examples a row, so that an epoch has half as many steps.
        (2, {"zero_stage": 3, "packing": True, "max_length": 128, "epochs": 4}),
    ],
)
def test_a_killed_training_goes_on(
    model: Path, tmp_path: Path, processes: int, settings: dict[str, Any]
) -> None:
    seed = random.randrange(10**6)
    print(f"seed={seed}")
    # Mostly in a later epoch, whose order is another one.
    settings = {
        **{"processes": processes, "batch_size": 4 // processes, "epochs": 2, "scheduler": "cosine"},
        **{"save_steps": 1, "weight_decay": 0.1, **settings},
    }
    pairs = tiny.pairs(_EXAMPLES)
    whole = tiny.make_job(tmp_path / "whole", model, pairs, **{**settings, "save_steps": None})
    broken = tiny.make_job(tmp_path / "broken", model, pairs, **settings)
    _killed(broken, random.Random(seed).randrange(3, 11))
    step = _goes_on(broken)
    tiny.train([whole, broken])
    assert step >= 1
    assert _gap(tiny.losses(whole), tiny.losses(broken)) <= _GAP
    assert [json.loads(job.outcome.read_bytes())["steps"] for job in (whole, broken)] == [12, 12]
    first = min(int(path.name.removeprefix("step-")) for path in broken.states.iterdir())
    assert first == step + 1


def test_the_other_stages_go_on_too(smollm2: Path, tmp_path: Path) -> None:
    model = tiny.make_model(tmp_path / "tiny", smollm2)
    jobs = []
    for stage in (0, 1):
        settings: dict[str, Any] = {"processes": 2, "zero_stage": stage, "save_steps": 3}
        whole = tiny.make_job(tmp_path / f"whole-{stage}", model, tiny.pairs(_EXAMPLES), **settings, epochs=1)
        again = tiny.make_job(tmp_path / f"again-{stage}", model, tiny.pairs(_EXAMPLES), **settings, epochs=1)
        # There is one when the second begins.
        again.resumed.symlink_to(whole.states / states.name(3))
        jobs.append((whole, again))
    tiny.train([job for pair in jobs for job in pair])
    for whole, again in jobs:
        assert not (again.states / states.name(3)).exists()
        assert _gap(tiny.losses(whole), tiny.losses(again)) <= _GAP


def test_other_ranks_go_on_with_as_many_examples_and_are_refused_with_others(
    smollm2: Path, tmp_path: Path
) -> None:
    # Without what is drawn at random by each rank for itself.
    model = tiny.make_model(tmp_path / "tiny", smollm2)
    settings = {"epochs": 2, "zero_stage": 1, "batch_size": 2, "processes": 2, "learning_rate": 1e-3}
    whole = tiny.make_job(tmp_path / "whole", model, tiny.pairs(_EXAMPLES), **settings, save_steps=5)
    tiny.train([whole])
    alone = {**settings, "processes": 1, "zero_stage": 3}
    same = tiny.make_job(tmp_path / "same", model, tiny.pairs(_EXAMPLES), **{**alone, "batch_size": 4})
    other = tiny.make_job(tmp_path / "other", model, tiny.pairs(_EXAMPLES), **alone)
    state = whole.states / "step-00000005"
    for job in (same, other):
        shutil.copytree(state, job.resumed)
    (process,) = tiny.start([same, other])
    printed = process.communicate(timeout=300)[0]
    assert process.returncode == 1
    assert "left by 2 ranks with 4 examples a step, but now 2 are taken: set finetune.nodes" in printed
    # Sums in another order; the same examples.
    assert _gap(tiny.losses(whole), tiny.losses(same)) <= 5e-3
    assert tiny.losses(whole)[:5] == tiny.losses(same)[:5]


def test_weights_that_are_not_finite_are_no_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tensors = {"a.weight": torch.ones(3), "b.weight": torch.tensor([1.0, float("inf")])}
    monkeypatch.setattr(parameters, "weights", lambda engine: tensors.items())
    monkeypatch.setattr(parameters, "moments", lambda engine: {}.items())
    with pytest.raises(InputError, match=r"b.weight is not finite any more: lower finetune.learning_rate"):
        states._write_tensors(tmp_path, None, 0, 1)
    states._write_tensors(tmp_path, None, 0, 2)
    assert [path.name for path in tmp_path.iterdir()] == ["tensors-00000-00000.safetensors"]
