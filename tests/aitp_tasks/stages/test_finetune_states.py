"""States of a training in the storage: kept by number, never torn, gone when it is done."""

import errno
import json
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from aitp_tasks.errors import InputError, TransientError
from aitp_tasks.records.run import Run
from aitp_tasks.stages import finetune
from aitp_tasks.storage.local import LocalStorage
from aitp_tasks.training import kept, launcher
from aitp_tasks.training.job import Job, Outcome
from tests.aitp_tasks.training import tiny

_REPOSITORY = Path(__file__).parents[3]
Train = Callable[[Job], Outcome]


def _write(job: Job, step: int, best: int | None = None) -> None:
    unfinished = job.states / f"step-{step:08d}.unfinished"
    unfinished.mkdir(parents=True)
    (unfinished / "tensors-00000.safetensors").write_bytes(f"weights {step}".encode())
    (unfinished / "layout.json").write_text(json.dumps({"best": best} if best else {}))
    unfinished.rename(unfinished.with_suffix(""))


def _wait_for(run: Run, step: int) -> None:
    """Until the stage's thread has kept a state."""
    while (state := kept.newest(run)) is None or state.step < step:
        time.sleep(0.01)


def _trained(job: Job) -> Outcome:
    job.checkpoint.mkdir()
    (job.checkpoint / "config.json").write_text("{}")
    job.log_history.write_text("[]")
    return Outcome(steps=1, train_loss_first=1.0, train_loss_last=1.0)


def _failing(run: Run, steps: Sequence[int], error: Exception, best: int | None = None) -> Train:
    def train(job: Job) -> Outcome:
        for step in steps:
            _write(job, step, best if best and best <= step else None)
            _wait_for(run, step)
        raise error

    return train


def _steps(run: Run) -> list[int]:
    names = {info.key.split("/")[-2] for info in run.storage.list(run.key("finetune", "states/"))}
    return sorted(int(name.split("-")[1]) for name in names)


def test_the_newest_are_kept_and_the_next_try_goes_on(make_run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    run = make_run(tiny.pairs(2), save_number=2)
    monkeypatch.setattr(launcher, "run", _failing(run, (1, 2, 3), TransientError("a rank was killed")))
    with pytest.raises(TransientError, match="a rank was killed"):
        finetune.execute(run, None)
    assert _steps(run) == [2, 3]
    found: list[str] = []

    def goes_on(job: Job) -> Outcome:
        found.extend(sorted(path.name for path in job.resumed.iterdir()))
        return _trained(job)

    monkeypatch.setattr(launcher, "run", goes_on)
    finetune.execute(run, None)
    assert found == ["layout.json", "tensors-00000.safetensors"]
    assert _steps(run) == []


def test_the_last_state_of_a_training_that_diverges_is_kept(
    make_run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_run(tiny.pairs(2))

    def train(job: Job) -> Outcome:
        _write(job, 7)
        # Before anybody has looked.
        raise InputError("the loss is nan at step 8")

    monkeypatch.setattr(launcher, "run", train)
    with pytest.raises(
        InputError, match="the loss is nan at step 8; the last good state, of step 7, "
    ) as told:
        finetune.execute(run, None)
    assert _steps(run) == [7]
    last = kept.newest(run)
    assert last is not None
    assert str(told.value).endswith(f"stays in {run.storage.uri(last.prefix)}")


def test_the_best_is_kept_beside_the_newest(make_run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    run = make_run(tiny.pairs(2), save_number=2)
    killed = TransientError("killed")
    monkeypatch.setattr(launcher, "run", _failing(run, (1, 2, 3, 4, 5), killed, best=2))
    with pytest.raises(TransientError):
        finetune.execute(run, None)
    assert _steps(run) == [2, 4, 5]
    found: list[bytes] = []

    def goes_on(job: Job) -> Outcome:
        found.extend(
            (folder / "tensors-00000.safetensors").read_bytes() for folder in (job.resumed, job.best)
        )
        # A new best one, and a newer state, before anybody has looked.
        _write(job, 6, 6)
        _write(job, 7, 6)
        raise killed

    monkeypatch.setattr(launcher, "run", goes_on)
    with pytest.raises(TransientError):
        finetune.execute(run, None)
    assert found == [b"weights 5", b"weights 2"]
    assert _steps(run) == [6, 7]
    # One that is the best itself.
    newest = kept.newest(run)
    assert newest is not None
    run.storage.delete([f"{newest.prefix}/complete.json"])
    with pytest.raises(TransientError):
        finetune.execute(run, None)
    assert found[2:] == [b"weights 6", b"weights 6"]


def test_nobody_goes_on_from_a_state_whose_best_is_gone(
    make_run: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    run = make_run(tiny.pairs(2), save_number=3)
    monkeypatch.setattr(launcher, "run", _failing(run, (1, 2, 3), TransientError("killed"), best=2))
    with pytest.raises(TransientError):
        finetune.execute(run, None)
    (best,) = [
        info.key for info in run.storage.list("") if "step-00000002" in info.key and "tens" in info.key
    ]
    run.storage.delete([best])
    state = kept.newest(run)
    assert state is not None
    assert state.step == 1
    assert "lacks the best one, of step=2: nobody goes on from it" in caplog.text


@pytest.mark.parametrize("damage", ["no last object", "a file lost", "a file cut short"])
def test_nobody_goes_on_from_a_torn_state(
    make_run: Any, monkeypatch: pytest.MonkeyPatch, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    run = make_run(tiny.pairs(2))
    monkeypatch.setattr(launcher, "run", _failing(run, (1, 2), TransientError("killed")))
    with pytest.raises(TransientError):
        finetune.execute(run, None)
    newest = kept.newest(run)
    assert newest is not None
    if damage == "no last object":
        run.storage.delete([f"{newest.prefix}/complete.json"])
    elif damage == "a file lost":
        run.storage.delete([f"{newest.prefix}/layout.json"])
    else:
        run.storage.write(f"{newest.prefix}/tensors-00000.safetensors", b"")
    before = kept.newest(run)
    assert before is not None
    assert before.step == 1
    assert ("lacks files: nobody goes on from it" in caplog.text) == (damage != "no last object")


def test_a_state_that_cannot_be_kept_is_told_and_the_training_goes_on(
    make_run: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    run = make_run(tiny.pairs(2))
    plain = LocalStorage.upload

    def upload(self: LocalStorage, key: str, path: Path) -> None:
        if "/states/" in key:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        plain(self, key, path)

    monkeypatch.setattr(LocalStorage, "upload", upload)

    def train(job: Job) -> Outcome:
        _write(job, 1)
        while list(job.states.iterdir()):
            time.sleep(0.01)
        return _trained(job)

    monkeypatch.setattr(launcher, "run", train)
    with caplog.at_level(logging.WARNING):
        finetune.execute(run, None)
    assert "step-00000001 could not be kept, the training goes on: " in caplog.text
    assert "No space left on device" in caplog.text


def test_devices_are_leased_behind_all_that_needs_none(
    make_run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_run(tiny.pairs(2))
    done: list[str] = []
    examples, lease = finetune.examples.write, finetune.devices.lease
    monkeypatch.setattr(
        finetune.examples, "write", lambda *given: (done.append("tokenised"), examples(*given))[1]
    )
    monkeypatch.setattr(finetune.devices, "lease", lambda *given: (done.append("leased"), lease(*given))[1])
    monkeypatch.setattr(launcher, "run", lambda job: (done.append("trained"), _trained(job))[1])
    finetune.execute(run, None)
    assert done == ["tokenised", "leased", "trained"]


@pytest.mark.slow
def test_a_killed_stage_goes_on(
    make_run: Any, smollm2: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], caplog: Any
) -> None:
    model = tiny.make_model(tmp_path / "tiny", smollm2)
    run = make_run(
        *(tiny.pairs(24), tiny.pairs(30)[24:]),
        **{"model": str(model), "save_steps": 10, "max_steps": 80, "learning_rate": 1e-3},
        **{"eval_steps": 15, "keep_best": True},
    )
    code = (
        "import logging, sys; logging.basicConfig(level=20)\n"
        "from aitp_tasks.stages import finetune; from aitp_tasks.records.run import Run\n"
        "finetune.execute(Run.open(sys.argv[1]), None)"
    )
    stage = subprocess.Popen(
        [sys.executable, "-c", code, run.uri],
        env={**os.environ, "PYTHONPATH": str(_REPOSITORY), "TMPDIR": str(tmp_path)},
        stderr=subprocess.PIPE,
        text=True,
    )
    assert stage.stderr is not None
    for line in stage.stderr:
        if "kept state=" in line:
            break
    stage.send_signal(signal.SIGKILL)
    stage.wait()
    stage.stderr.close()
    state = kept.newest(run)
    assert state is not None
    with caplog.at_level(logging.INFO):
        finetune.execute(run, None)
    assert f"the training goes on behind step={state.step} " in caplog.text
    told = capfd.readouterr().err
    assert f"step={state.step} of=80" not in told
    assert f"step={state.step + 1} of=80" in told
    done = run.require_manifest("finetune")
    history = json.loads(run.storage.read(done.output("log_history")))
    assert [entry["step"] for entry in history if "loss" in entry] == list(range(1, 81))
    curve = {entry["step"]: entry["eval_loss"] for entry in history if "eval_loss" in entry}
    assert list(curve) == [15, 30, 45, 60, 75, 80]
    best = min(curve, key=lambda step: curve[step])
    figures = done.figures
    assert (figures["best_step"], figures["eval_loss_best"]) == (best, round(curve[best], 4))
    assert (figures["eval_loss_first"], figures["eval_loss_last"]) == (
        round(curve[15], 4),
        round(curve[80], 4),
    )
    assert figures["validation"]["examples"] == 6
    card = run.storage.read(f"{done.output('checkpoint')}/README.md").decode()
    assert f"loss on 6 examples that were held out for choosing: {figures['eval_loss_first']:.4f} at" in card
    assert f"of step {best}," in card
    assert _steps(run) == []
