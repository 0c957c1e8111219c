"""States of several machines in the storage: whole with the shares of all, else torn; here without ranks."""

import errno
import logging
import os
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from aitp_tasks.errors import TransientError
from aitp_tasks.records.run import Run
from aitp_tasks.storage.local import LocalStorage
from aitp_tasks.training import kept, meeting
from aitp_tasks.training.job import Job
from aitp_tasks.training.meeting import Meeting
from aitp_tasks.training.nodes import Node
from aitp_tasks.training.template import ChatTemplates
from tests.aitp_tasks.training import tiny

_Work = Callable[[Job, Run], None]


def _jobs(run: Run, folder: Path) -> list[Job]:
    """Of two machines."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = int(probe.getsockname()[1])
    jobs = []
    for rank in range(2):
        own = folder / f"machine-{rank}"
        own.mkdir()
        node = Node(rank=rank, count=2, address="127.0.0.1", port=port)
        templates = ChatTemplates("", "", None, 0)
        jobs.append(Job(folder=own, finetune=run.config.finetune, node=node, templates=templates))
    return jobs


def _leave(job: Job, step: int) -> None:
    """What the ranks of one machine leave."""
    assert job.node is not None
    unfinished = job.states / f"step-{step:08d}.unfinished"
    unfinished.mkdir(parents=True)
    (unfinished / f"tensors-{job.node.rank:05d}-00000.safetensors").write_bytes(b"weights" * step)
    if job.node.first:
        (unfinished / "layout.json").write_bytes(b"{}")
    unfinished.rename(unfinished.with_suffix(""))


def _wait(job: Job) -> None:
    """Until a machine's stage has taken what its ranks have left."""
    deadline = time.monotonic() + 30
    while list(job.states.iterdir()):
        assert time.monotonic() < deadline
        time.sleep(0.01)


@contextmanager
def _trying(run: Run, job: Job) -> Iterator[Meeting]:
    met = meeting.join(job.node, job.finetune.timeout_minutes)
    with kept.keeping(run, job, "finetune", met, met.agree("attempt", f"try-of-{met.rank}")):
        yield met


def _both(run: Run, jobs: list[Job], work: _Work) -> list[str]:
    """Let two machines do something while their states are kept; what each fails with."""

    def one(job: Job) -> str:
        try:
            with _trying(run, job):
                work(job, run)
        except TransientError as error:
            return str(error)
        return ""

    with ThreadPoolExecutor(2) as pool:
        return list(pool.map(one, jobs))


def test_a_state_has_the_shares_of_all_machines(make_run: Any, tmp_path: Path) -> None:
    run = make_run(tiny.pairs(1), processes=1, nodes=2, save_number=1, timeout_minutes=0.5)
    jobs = _jobs(run, tmp_path)

    def work(job: Job, run: Run) -> None:
        for step in (5, 10):
            _leave(job, step)
            _wait(job)
        # Both at once: the older one is let go of, unless it was begun.
        _leave(job, 15)
        _leave(job, 20)
        _wait(job)
        raise TransientError("the ranks were killed")

    assert _both(run, jobs, work) == ["the ranks were killed"] * 2
    state = kept.newest(run)
    assert state is not None
    assert state.step == 20
    assert state.prefix.endswith("finetune/states/step-00000020-try-of-0")
    assert set(state.files) == {
        "layout.json",
        "tensors-00000-00000.safetensors",
        "tensors-00001-00000.safetensors",
    }
    assert {info.key.split("/")[-2] for info in run.storage.list(run.key("finetune", "states/"))} == {
        "step-00000020-try-of-0"
    }
    kept.fetch(run, state, job := jobs[0].model_copy(update={"folder": tmp_path}))
    assert (job.resumed / "tensors-00001-00000.safetensors").read_bytes() == b"weights" * 20


@pytest.mark.parametrize("failure", ["storage", "dead"])
def test_a_state_without_a_share_is_torn(
    make_run: Any,
    tmp_path: Path,
    failure: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    run = make_run(tiny.pairs(1), processes=1, nodes=2, timeout_minutes=0.5)
    jobs = _jobs(run, tmp_path)
    plain = LocalStorage.upload
    monkeypatch.setattr(kept, "_GRACE_SECONDS", 0.5)

    def upload(self: LocalStorage, key: str, path: Path) -> None:
        if "step-00000010" in key and "/tensors-00001" in key:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        plain(self, key, path)

    monkeypatch.setattr(LocalStorage, "upload", upload)

    def work(job: Job, run: Run) -> None:
        _leave(job, 5)
        _wait(job)
        if failure == "storage" or job.node is None or job.node.first:
            _leave(job, 10)
        raise TransientError("the ranks were killed")

    with caplog.at_level(logging.WARNING):
        _both(run, jobs, work)
    state = kept.newest(run)
    assert state is not None
    assert state.step == 5
    assert "the state step-00000010 could not be kept, the training goes on: machine 1 " in caplog.text


def test_all_go_on_from_the_state_that_the_first_has_found(
    make_run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_run(tiny.pairs(1), processes=1, nodes=2, timeout_minutes=0.1)
    older, newer = (kept.State(f"finetune/states/step-{step:08d}-a", step, ()) for step in (5, 10))
    jobs = _jobs(run, tmp_path)
    with ThreadPoolExecutor(2) as pool:
        met = list(pool.map(lambda job: meeting.join(job.node, 0.1), jobs))
    # The second sees one more, as when it looks a moment later.
    monkeypatch.setattr(kept, "_whole", lambda run, stage: [older])
    assert kept.agreed(run, "finetune", met[0]) == older
    monkeypatch.setattr(kept, "_whole", lambda run, stage: [older, newer])
    assert kept.agreed(run, "finetune", met[1]) == older
    monkeypatch.setattr(kept, "_whole", lambda run, stage: [newer])
    with pytest.raises(
        TransientError, match=r"step-00000005-a, from which the first machine goes on, is not"
    ):
        kept.agreed(run, "finetune", met[1])
