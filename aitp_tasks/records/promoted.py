"""What was promoted: ``models/<line>/latest.json``, and what each run says of its own version."""

import json

from aitp_tasks.errors import TransientError
from aitp_tasks.records import versions
from aitp_tasks.records.run import Run

_TRIES = 100
_MARK = ("finetune", "promoted")
_OUTCOME = ("promote", "outcome.json")


def point(run: Run, version: str, checkpoint: str) -> bool:
    """Let the pointer name a run's checkpoint, once; whether it does, or did.

    It is left where the version does not belong to what ``latest`` of its line names, and where it
    names the checkpoint of one that builds on this version.

    Args:
        run: that has trained it.
        version: of the dataset, that it was trained on.
        checkpoint: key of its folder.

    Raises:
        TransientError: others moved it again and again.
    """
    storage, line, mark = run.storage, run.config.assemble.dataset, run.key(*_MARK)
    if storage.find(mark) is not None:
        return True
    key = _key(line)
    told = json.dumps({"version": version, "run": run.prefix, "checkpoint": checkpoint}).encode()
    for _ in range(_TRIES):
        newest = versions.latest(storage, line)
        places = newest.position if newest else {}
        if version not in places:
            return False
        read = storage.read_tagged(key)
        if read is not None and places.get(json.loads(read.data)["version"], -1) > places[version]:
            return False
        moved = (
            storage.write_if_absent(key, told)
            if read is None
            else read.data == told or storage.write_if_matches(key, told, read.tag)
        )
        if moved:
            storage.write_if_absent(mark, b"{}")
            return True
    raise TransientError(f"{storage.uri(key)} was moved by others {_TRIES} times: retry")


def note(run: Run, promoted: bool, why: str) -> None:
    """Write down what has become of a run's version, as it is now; the same again changes nothing.

    Args:
        run: that has made it.
        promoted: whether it was.
        why: because of what, as the end of a sentence.
    """
    if noted(run) != (promoted, why):
        told = json.dumps({"promoted": promoted, "why": why}).encode()
        run.storage.write(run.key(*_OUTCOME), told)


def noted(run: Run) -> tuple[bool, str] | None:
    """What ``note`` was told last; None where it was not."""
    if run.storage.find(run.key(*_OUTCOME)) is None:
        return None
    told = json.loads(run.storage.read(run.key(*_OUTCOME)))
    return told["promoted"], told["why"]


def _key(line: str) -> str:
    return f"models/{line}/latest.json"
