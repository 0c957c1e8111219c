"""What was promoted: ``models/<line>/latest.json``, and what each run says of its own version."""

import json

from aitp_tasks.errors import TransientError
from aitp_tasks.records import manifest, trainings, versions
from aitp_tasks.records.run import Run
from aitp_tasks.records.versions import Version
from aitp_tasks.storage import Storage

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


def named(storage: Storage, line: str) -> str | None:
    """Name of the version whose checkpoint the pointer names; None where there is none."""
    read = storage.read_tagged(_key(line))
    return None if read is None else str(json.loads(read.data)["version"])


def follow(storage: Storage, line: str, version: Version) -> tuple[str | None, str | None]:
    """Let the pointer name the newest checkpoint that was promoted of what ``latest`` was moved to.

    It is left where no version of that has one.

    Args:
        storage: where the line lies.
        line: the dataset.
        version: that ``latest`` names now.

    Returns:
        Names of the versions that the pointer has named, and names now.

    Raises:
        TransientError: others moved it again and again.
    """
    found = _newest_checkpoint(storage, line, version)
    for _ in range(_TRIES):
        read = storage.read_tagged(_key(line))
        before = None if read is None else str(json.loads(read.data)["version"])
        # Of one version, a later run may have trained another checkpoint.
        if read is None or found is None or before == found["version"]:
            return before, before
        if storage.write_if_matches(_key(line), json.dumps(found).encode(), read.tag):
            return before, found["version"]
    raise TransientError(f"{storage.uri(_key(line))} was moved by others {_TRIES} times: retry")


def _newest_checkpoint(storage: Storage, line: str, version: Version) -> dict[str, str] | None:
    """Of a version and those that it builds on, the newest that was promoted, as the pointer says it."""
    for name in reversed(version.position):
        runs = {versions.load(storage, line, name).run, *trainings.runs(storage, line, name)}
        keys = {"/".join((run, *_MARK)): run for run in runs}
        # Of several trainings on one version, the one that was promoted last.
        dated = [(at, info.key) for key in keys for info, at in storage.list_dated(key) if info.key == key]
        if dated:
            run = keys[max(dated)[1]]
            done = manifest.load(storage, f"{run}/finetune/manifest.json")
            if done is not None:
                return {"version": name, "run": run, "checkpoint": done.output("checkpoint")}
    return None


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
    return outcome(run.storage, run.prefix)


def outcome(storage: Storage, prefix: str) -> tuple[bool, str] | None:
    """The same of the run below a prefix, of which nothing else need be there."""
    read = storage.read_tagged("/".join((prefix, *_OUTCOME)))
    if read is None:
        return None
    told = json.loads(read.data)
    return told["promoted"], told["why"]


def _key(line: str) -> str:
    return f"models/{line}/latest.json"
