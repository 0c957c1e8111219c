"""The stage on several machines, here as processes that meet on loopback: real ranks, real DeepSpeed."""

import base64
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from aitp_tasks.config import Finetune
from aitp_tasks.errors import ExitCode, InputError, TransientError
from aitp_tasks.evaluation import baseline
from aitp_tasks.records.run import Run
from aitp_tasks.stages import finetune
from aitp_tasks.training import kept, launcher
from aitp_tasks.training.job import Job, Outcome
from aitp_tasks.training.nodes import Node
from aitp_tasks.training.template import ChatTemplates
from tests.aitp_tasks.training import tiny

_REPOSITORY = Path(__file__).parents[3]
_STEPS, _GAP, _WAIT_SECONDS = 40, 1e-3, 240


class _Machine:
    """A stage that was started as one machine of two, with another launcher's variables left over."""

    def __init__(self, run: Run, rank: int, port: int, log: Path) -> None:
        left = {"RANK": "7", "WORLD_SIZE": "9", "LOCAL_RANK": "7", "TORCHELASTIC_RUN_ID": "none"}
        told = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "NODE_RANK": str(rank), "NNODES": "2"}
        self._log = log
        with log.open("wb") as stream:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "aitp_tasks.cli", "finetune", "--run", run.uri],
                env={**os.environ, "PYTHONPATH": str(_REPOSITORY), **left, **told},
                stdout=subprocess.PIPE,
                stderr=stream,
                text=True,
            )

    @property
    def said(self) -> str:
        return self._log.read_text(errors="replace")

    def wait_for(self, text: str) -> None:
        deadline = time.monotonic() + _WAIT_SECONDS
        while text not in self.said:
            assert self.process.poll() is None, self.said
            assert time.monotonic() < deadline, self.said
            time.sleep(0.01)

    def end(self, code: int) -> dict[str, Any]:
        """Its result, or nothing."""
        told = self.process.communicate(timeout=_WAIT_SECONDS)[0]
        assert self.process.returncode == code, self.said
        found: dict[str, Any] = json.loads(told) if told else {}
        return found


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[[Run, int, int], _Machine]]:
    """Starts machines; what is still there at the end is killed, and its ranks with it."""
    started: list[_Machine] = []

    def one(run: Run, rank: int, port: int) -> _Machine:
        started.append(_Machine(run, rank, port, tmp_path / f"{len(started)}.log"))
        return started[-1]

    yield one
    for machine in started:
        machine.process.kill()
        machine.process.communicate()


def _port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


def _history(run: Run) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(
        run.storage.read(run.require_manifest("finetune").output("log_history"))
    )
    return found


@pytest.mark.slow
def test_two_machines_train_as_one_does_also_when_one_is_killed(
    make_run: Any, start: Callable[[Run, int, int], _Machine], smollm2: Path, tmp_path: Path
) -> None:
    settings = {
        "model": str(tiny.make_model(tmp_path / "tiny", smollm2)),
        **{"max_steps": _STEPS, "learning_rate": 1e-3, "save_steps": 10, "timeout_minutes": 2.0},
    }
    alone = make_run(tiny.pairs(24), processes=2, **settings)
    finetune.execute(alone, None)
    run = make_run(tiny.pairs(24), processes=1, nodes=2, **settings)
    port = _port()
    first, second = start(run, 0, port), start(run, 1, port)
    first.wait_for("kept state=")
    second.process.kill()
    second.end(-signal.SIGKILL)
    assert first.end(ExitCode.TRANSIENT) == {}
    assert run.find_manifest("finetune") is None
    state = kept.newest(run)
    assert state is not None
    # Of both: the tensors are shared out between the ranks.
    assert {name for name in state.files if name.startswith("random-")} == {
        "random-00000.safetensors",
        "random-00001.safetensors",
    }
    assert {name.split("-")[1] for name in state.files if name.startswith("tensors-")} == {"00000", "00001"}

    again = [start(run, 1, port), start(run, 0, port)]
    told = [one.end(ExitCode.DONE) for one in again]
    assert [(one["node"], one["nodes"]) for one in told] == [(1, 2), (0, 2)]
    assert told[0]["checkpoint"] == told[1]["checkpoint"] == f"{run.storage.root}/models/aitp/v1"
    for one in again:
        assert f"the training goes on behind step={state.step} " in one.said

    expected, found = _history(alone), _history(run)
    assert [entry["step"] for entry in found] == list(range(1, _STEPS + 1))
    assert [entry["num_tokens"] for entry in found] == [entry["num_tokens"] for entry in expected]
    gaps = [
        abs(own["loss"] - other["loss"]) / other["loss"] for own, other in zip(found, expected, strict=True)
    ]
    assert max(gaps) <= _GAP
    # One of them has stored a checkpoint, and nothing else is left.
    attempts = {
        info.key.split("/")[4]
        for info in run.storage.list(run.key("finetune", ""))
        if "/attempt-" in info.key
    }
    assert len(attempts) == 1
    assert list(run.storage.list(run.key("finetune", "states/"))) == []
    assert run.require_manifest("finetune").figures["devices"] == 0
    # Whoever comes later finds it done, whatever is set.
    assert finetune.execute(run, None)["checkpoint"] == told[0]["checkpoint"]


def test_one_machine_alone_gives_up_and_says_so(make_run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    run = make_run(tiny.pairs(2), processes=1, nodes=2, timeout_minutes=0.02)
    monkeypatch.setattr(launcher, "run", pytest.fail)
    with pytest.raises(InputError, match=r"finetune.nodes=2, but nothing says which .* NODE_RANK=0 to 1"):
        finetune.execute(run, None)
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    monkeypatch.setenv("MASTER_PORT", str(_port()))
    for rank, said in (("0", "machines NODE_RANK=1 did not come"), ("1", "nobody is there: start the same")):
        monkeypatch.setenv("NODE_RANK", rank)
        with pytest.raises(TransientError, match=said):
            finetune.execute(run, None)


def _job(folder: Path, node: Node | None) -> Job:
    settings = Finetune(model="/none", processes=2, nodes=node.count if node else 1)
    templates = ChatTemplates("", "", None, 0)
    return Job(folder=folder, finetune=settings, node=node, gpus=(3, 5), templates=templates)


@pytest.mark.parametrize(
    ("variables", "address", "interface"),
    [
        ({}, "127.0.0.1", "lo"),
        ({"GLOO_SOCKET_IFNAME": "eth7"}, "127.0.0.1", "eth7"),
        ({"GLOO_SOCKET_IFNAME": "eth7"}, None, "lo"),
        ({}, "no.such.host.invalid", None),
    ],
    ids=["by the address", "by the user", "one machine", "not known"],
)
def test_ranks_are_told_their_machine_and_nothing_of_others(
    variables: dict[str, str],
    address: str | None,
    interface: str | None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("GLOO_SOCKET_IFNAME", raising=False)
    for name, value in {"RANK": "9", "PET_NNODES": "4", "MASTER_ADDR": "elsewhere", **variables}.items():
        monkeypatch.setenv(name, value)
    node = None if address is None else Node(rank=1, count=3, address=address, port=2999)
    job = _job(tmp_path, node)
    environment, command = launcher._environment(job), launcher._command(job)
    assert not environment.keys() & {"RANK", "PET_NNODES", "MASTER_ADDR"}
    assert environment.get("GLOO_SOCKET_IFNAME") == interface
    machines = json.loads(base64.urlsafe_b64decode(command[command.index("--world_info") + 1]))
    if node is None:
        assert machines == {"machine-0": [3, 5]}
        return
    assert machines == {"machine-0": [0, 1], "machine-1": [3, 5], "machine-2": [0, 1]}
    assert {"--node_rank=1", f"--master_addr={address}", "--master_port=2999"} <= set(command)


def test_no_hostfile_is_read_by_accident(tmp_path: Path) -> None:
    # DeepSpeed's front-end reads /job/hostfile, and asks ssh; its launcher of one machine does not.
    assert launcher._command(_job(tmp_path, None))[1:3] == ["-m", "deepspeed.launcher.launch"]


def test_the_baseline_takes_as_many_examples_a_step_on_one_machine(
    make_run: Any, smollm2: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = tmp_path / "ds.json"
    own.write_text('{"gradient_accumulation_steps": 3, "train_batch_size": 24, "steps_per_print": 7}')
    run = make_run(
        tiny.pairs(2), processes=2, nodes=4, batch_size=1, gradient_accumulation=3, deepspeed=str(own)
    )
    asked: list[Job] = []

    def train(job: Job) -> Outcome:
        asked.append(job)
        job.checkpoint.mkdir()
        return Outcome(steps=1, train_loss_first=1.0, train_loss_last=1.0)

    monkeypatch.setattr(launcher, "run", train)
    monkeypatch.setattr(baseline, "write_sft", lambda whole, alone: whole.rename(alone))
    monkeypatch.setenv("NNODES", "4")
    length = baseline.Length(1, 1)
    key = baseline.key(run, "sft", length)
    baseline.make(run, "evaluate", key, run.require_manifest("assemble").output("parquet"), length)
    (job,) = asked
    assert job.node is None
    settings = job.finetune
    assert (settings.nodes, settings.processes, settings.gradient_accumulation) == (1, 2, 12)
    assert settings.examples_per_step == run.config.finetune.examples_per_step == 24
    assert job.deepspeed == {"train_batch_size": 24, "steps_per_print": 7}
