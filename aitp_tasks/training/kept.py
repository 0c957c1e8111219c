"""States of a training in the storage, while the ranks go on.

The ranks leave each state in the job's folder (see states.py); a thread of the stage
copies it below ``states/`` of the stage's folder in the run, and writes the object that names its files
last: a state without it, or without one of its files, is torn, and nobody goes on from it. Each try at a
stage has prefixes of its own, so that two do not mix theirs.

Of several machines each stores what its own ranks have left. The first says which state is kept, and names
the files of all when all have stored theirs; with one that failed there, the state stays torn.
"""

import json
import logging
import shutil
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from aitp_tasks.errors import AitpError, TransientError
from aitp_tasks.records.run import Run
from aitp_tasks.training import states
from aitp_tasks.training.job import Job
from aitp_tasks.training.meeting import Meeting

log = logging.getLogger(__name__)

_FOLDER = "states"
_LAST = "complete.json"
_POLL_SECONDS = 0.5
#: What one machine says to the others: the state that is kept (at the end none), and its own files of it.
_KEEP, _OWN = "keep", "kept/{name}/{rank}"
#: For the other machines, when the training has failed.
_GRACE_SECONDS = 60.0


@dataclass(frozen=True)
class State:
    """A whole state: its prefix, step and files, and the step of the best one where that is kept."""

    prefix: str
    step: int
    files: tuple[str, ...]
    best: int | None = None


def newest(run: Run, stage: str = "finetune") -> State | None:
    """The last whole state that a stage's training has left."""
    whole = _whole(run, stage)
    return whole[-1] if whole else None


def fetch(run: Run, state: State, job: Job, stage: str = "finetune") -> None:
    """Copy a state into the job's folder, with the best one until then."""
    _download(run, state, job.resumed)
    if state.best == state.step:
        states.link(job.resumed, job.best)
    elif state.best is not None:
        best = next(found for found in _whole(run, stage) if found.step == state.best)
        _download(run, best, job.best)
    log.info("the training goes on behind step=%d state=%s", state.step, run.storage.uri(state.prefix))


def _download(run: Run, state: State, target: Path) -> None:
    target.mkdir()
    for name in state.files:
        run.storage.download(f"{state.prefix}/{name}", target / name)


def clear(run: Run, stage: str = "finetune") -> None:
    """Delete all states of a stage: what they were kept for is done."""
    run.storage.delete([info.key for info in run.storage.list(_root(run, stage))])


@contextmanager
def keeping(run: Run, job: Job, stage: str, meeting: Meeting, attempt: str) -> Iterator[None]:
    """Keep the states that the ranks leave meanwhile; also the last of a training that fails.

    Args:
        run: whose storage keeps them.
        job: that the ranks are at.
        stage: that trains.
        meeting: with the other machines.
        attempt: the name of this try, the same on all machines.
    """
    keeper = _Keeper(run, job, stage, meeting, attempt)
    thread = threading.Thread(target=keeper.lead if meeting.first else keeper.follow, daemon=True)
    thread.start()
    try:
        yield
    except AitpError:
        keeper.failed()
        thread.join()
        raise
    keeper.ended.set()
    thread.join()


def agreed(run: Run, stage: str, meeting: Meeting) -> State | None:
    """The last whole state, as the first of the machines has found it.

    Raises:
        TransientError: it is not there any more, or was not told in time.
    """
    state = newest(run, stage) if meeting.first else None
    prefix = meeting.agree("state", state.prefix if state else "")
    if meeting.first or not prefix:
        return state
    found = next((one for one in _whole(run, stage) if one.prefix == prefix), None)
    if found is None:
        raise TransientError(
            f"the state {run.storage.uri(prefix)}, from which the first machine goes on, is not there: "
            "retry on all"
        )
    return found


class _Keeper:
    """What the stage's thread does on one machine."""

    def __init__(self, run: Run, job: Job, stage: str, meeting: Meeting, attempt: str) -> None:
        self._run, self._job, self._stage, self._meeting, self._attempt = run, job, stage, meeting, attempt
        self._patience = job.finetune.timeout_minutes * 60
        self._until = float("inf")
        #: The ranks are done.
        self.ended = threading.Event()

    def failed(self) -> None:
        """The ranks are done, and so may be the other machines."""
        self._until = time.monotonic() + _GRACE_SECONDS
        self.ended.set()

    def lead(self) -> None:
        """Keep the newest state and the best until then, again and again, and say so."""
        last = False
        while not last:
            last = self.ended.wait(_POLL_SECONDS)
            found = self._left()
            if not found:
                continue
            best = states.best((found[-1] / states.LAYOUT).read_bytes())
            for folder in found:
                if folder is not found[-1] and _step(folder.name) != best:
                    continue
                try:
                    self._keep(folder)
                except (AitpError, OSError) as error:
                    # The next one may find room; this training needs none of them.
                    log.warning(
                        "the state %s could not be kept, the training goes on: %s", folder.name, error
                    )
            self._let_go(found)
        self._meeting.tell(_KEEP, "")

    def follow(self) -> None:
        """Store what the ranks of this machine have left of the states that the first machine keeps."""
        told = ""
        try:
            while time.monotonic() < self._until:
                name = self._meeting.heard(_KEEP)
                if name == "":
                    return
                if name is not None and name != told:
                    told = name
                    self._share(name)
                time.sleep(_POLL_SECONDS)
        except AitpError as error:
            # Of the ranks, too, those of the first machine are gone.
            log.warning("no more states are kept: %s", error)

    def _share(self, name: str) -> None:
        try:
            # The ranks of the first machine may have been a moment earlier.
            files = self._store(self._await(name))
        except (AitpError, OSError) as error:
            log.warning("this machine's part of the state %s could not be kept: %s", name, error)
            files = {}
        self._meeting.tell(_OWN.format(name=name, rank=self._meeting.rank), json.dumps(files))
        self._let_go([folder for folder in self._left() if folder.name <= name])

    def _await(self, name: str) -> Path:
        folder, deadline = self._job.states / name, time.monotonic() + _GRACE_SECONDS
        while not folder.is_dir():
            if time.monotonic() > deadline:
                raise TransientError(f"the ranks have not left {name}: see their output above, then retry")
            time.sleep(_POLL_SECONDS)
        return folder

    def _keep(self, folder: Path) -> None:
        """Store a state, then let go of all but the newest ones and the best of each."""
        run, stage = self._run, self._stage
        self._meeting.tell(_KEEP, folder.name)
        files = self._store(folder)
        for rank in self._meeting.others:
            files |= self._files_of(rank, folder.name)
        prefix = self._prefix(folder.name)
        run.storage.write(f"{prefix}/{_LAST}", json.dumps(files).encode())
        log.info("kept state=%s mb=%.0f", run.storage.uri(prefix), sum(files.values()) / 1e6)
        newest = _whole(run, stage)[-self._job.finetune.save_number :]
        oldest, best = newest[0].step, {state.best for state in newest}
        stored = [(info.key, _step(info.key.split("/")[-2])) for info in run.storage.list(_root(run, stage))]
        run.storage.delete([key for key, step in stored if step < oldest and step not in best])

    def _files_of(self, rank: int, name: str) -> dict[str, int]:
        """What another machine has stored of a state."""
        deadline = time.monotonic() + self._patience
        while (said := self._meeting.heard(_OWN.format(name=name, rank=rank))) is None:
            if time.monotonic() > min(deadline, self._until):
                raise TransientError(
                    f"machine {rank} has not stored its part in time: see its log, then retry on all"
                )
            time.sleep(_POLL_SECONDS)
        files: dict[str, int] = json.loads(said)
        if not files:
            raise TransientError(f"machine {rank} could not store its part, see its log")
        return files

    def _store(self, folder: Path) -> dict[str, int]:
        """Copy the files of a state into the storage; their sizes by name."""
        files = {path.name: path.stat().st_size for path in sorted(folder.iterdir())}
        for name in files:
            self._run.storage.upload(f"{self._prefix(folder.name)}/{name}", folder / name)
        return files

    def _prefix(self, name: str) -> str:
        return f"{_root(self._run, self._stage)}{name}-{self._attempt}"

    def _left(self) -> list[Path]:
        """What the ranks of this machine have left, in the order of the steps."""
        states = self._job.states
        return sorted(states.glob("step-*[0-9]")) if states.is_dir() else []

    def _let_go(self, folders: Sequence[Path]) -> None:
        for folder in folders:
            shutil.rmtree(folder, ignore_errors=True)


def _whole(run: Run, stage: str) -> list[State]:
    """All whole states, in the order of their steps; one whose best is gone is none."""
    found: dict[str, dict[str, int]] = {}
    for info in run.storage.list(_root(run, stage)):
        prefix, _, name = info.key.rpartition("/")
        found.setdefault(prefix, {})[name] = info.size
    whole = []
    for prefix, sizes in found.items():
        if _LAST not in sizes:
            continue
        wanted = json.loads(run.storage.read(f"{prefix}/{_LAST}"))
        if all(sizes.get(name) == size for name, size in wanted.items()):
            best = states.best(run.storage.read(f"{prefix}/{states.LAYOUT}"))
            whole.append(State(prefix, _step(prefix.rpartition("/")[2]), tuple(wanted), best))
        else:
            log.warning("state=%s lacks files: nobody goes on from it", run.storage.uri(prefix))
    steps = {None, *(state.step for state in whole)}
    for state in whole:
        if state.best not in steps:
            log.warning(
                "state=%s lacks the best one, of step=%d: nobody goes on from it",
                *(run.storage.uri(state.prefix), state.best),
            )
    return sorted(
        (state for state in whole if state.best in steps), key=lambda state: (state.step, state.prefix)
    )


def _step(name: str) -> int:
    return int(name.split("-")[1])


def _root(run: Run, stage: str) -> str:
    return run.key(stage, f"{_FOLDER}/")
