"""States of a training in the storage, while the ranks go on.

The ranks leave each state in the job's folder (see states.py); a thread of the stage
copies it below ``states/`` of the stage's folder in the run, and writes the object that names its files
last: a state without it, or without one of its files, is torn, and nobody goes on from it. Each
has a prefix of its own, so that two tries at a stage do not mix theirs.
"""

import json
import logging
import shutil
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from aitp_tasks.errors import AitpError
from aitp_tasks.records.run import Run
from aitp_tasks.training import states
from aitp_tasks.training.job import Job

log = logging.getLogger(__name__)

_FOLDER = "states"
_LAST = "complete.json"
_POLL_SECONDS = 0.5


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
def keeping(run: Run, job: Job, stage: str = "finetune") -> Iterator[None]:
    """Keep the states that the ranks leave meanwhile; also the last of a training that fails."""
    stop = threading.Event()
    thread = threading.Thread(target=_watch, args=(run, job, stage, stop), daemon=True)
    thread.start()
    try:
        yield
    except AitpError:
        stop.set()
        thread.join()
        raise
    stop.set()
    thread.join()


def _watch(run: Run, job: Job, stage: str, stop: threading.Event) -> None:
    last = False
    while not last:
        last = stop.wait(_POLL_SECONDS)
        found = sorted(job.states.glob("step-*[0-9]")) if job.states.is_dir() else []
        if not found:
            continue
        best = states.best((found[-1] / states.LAYOUT).read_bytes())
        for folder in found:
            if folder is not found[-1] and _step(folder.name) != best:
                continue
            try:
                _keep(run, stage, folder, job.finetune.save_number)
            except (AitpError, OSError) as error:
                # The next one may find room; this training needs none of them.
                log.warning("the state %s could not be kept, the training goes on: %s", folder.name, error)
        for folder in found:
            shutil.rmtree(folder, ignore_errors=True)


def _keep(run: Run, stage: str, folder: Path, number: int) -> None:
    """Store a state, then let go of all but the newest ones and the best of each."""
    prefix = f"{_root(run, stage)}{folder.name}-{uuid.uuid4().hex}"
    files = {path.name: path.stat().st_size for path in sorted(folder.iterdir())}
    for name in files:
        run.storage.upload(f"{prefix}/{name}", folder / name)
    run.storage.write(f"{prefix}/{_LAST}", json.dumps(files).encode())
    log.info("kept state=%s mb=%.0f", run.storage.uri(prefix), sum(files.values()) / 1e6)
    newest = _whole(run, stage)[-number:]
    oldest, best = newest[0].step, {state.best for state in newest}
    stored = [(info.key, _step(info.key.split("/")[-2])) for info in run.storage.list(_root(run, stage))]
    run.storage.delete([key for key, step in stored if step < oldest and step not in best])


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
