"""``models/<line>/latest.json``: the checkpoint of the newest version that was promoted."""

import json

from aitp_tasks.errors import TransientError
from aitp_tasks.records import versions
from aitp_tasks.records.run import Run

_TRIES = 100
_MARK = ("finetune", "promoted")


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


def _key(line: str) -> str:
    return f"models/{line}/latest.json"
