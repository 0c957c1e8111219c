"""What evaluate has measured of a version, for whoever hands the version on without its run.

``datasets/<line>/<version>/evaluation.json`` is no part of the dataset: the same version may
be measured again.
"""

import json
from collections.abc import Mapping
from typing import Any

from aitp_tasks.records import versions
from aitp_tasks.storage import Storage

NAME = "evaluation.json"
#: Of evaluate's figures.
_TOLD = ("sets", "tasks", "steps")


def note(storage: Storage, line: str, version: str, figures: Mapping[str, Any]) -> None:
    """Write down what was measured of a version; the same again changes nothing."""
    told = {name: figures[name] for name in _TOLD if name in figures}
    if of_version(storage, line, version) != told:
        storage.write(_key(line, version), json.dumps(told, indent=1).encode())


def of_version(storage: Storage, line: str, version: str) -> dict[str, Any] | None:
    """What was measured; None where nothing was."""
    read = storage.read_tagged(_key(line, version))
    if read is None:
        return None
    told: dict[str, Any] = json.loads(read.data)
    return told


def _key(line: str, version: str) -> str:
    return f"{versions.prefix(line, version)}/{NAME}"
