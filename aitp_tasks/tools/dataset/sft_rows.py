"""Which SFT examples two versions have and have not in common: told by a digest of what each says.

An example has no id. The texts of a version are read once, a row group at a time, and held as
16 bytes each.
"""

import json
from typing import Any

import numpy as np
import pyarrow.compute as pc
from numpy.typing import NDArray

from aitp_tasks.records import conversations, digest, version_rows
from aitp_tasks.storage import Storage


def difference(storage: Storage, line: str, before: str, after: str) -> tuple[int, int]:
    """How many examples of one version another has not, and the reverse; of equal ones each counts.

    Raises:
        InputError: a file of a version is missing or damaged.
    """
    first, second = (_digests(storage, line, name) for name in (before, after))
    found, places = np.unique(np.concatenate([first, second]), axis=0, return_inverse=True)
    # How often the first has each of them, and how often the second.
    here, there = (
        np.bincount(some, minlength=len(found)) for some in np.split(places.reshape(-1), [len(first)])
    )
    return int(np.maximum(here - there, 0).sum()), int(np.maximum(there - here, 0).sum())


def _digests(storage: Storage, line: str, version: str) -> NDArray[np.uint64]:
    """Of all examples, in two numbers each, uint64 (n, 2)."""
    found = bytearray()
    for table in version_rows.columns(storage, line, version, ["origin", "messages", conversations.TOOLS]):
        for row in table.filter(pc.equal(table["origin"], "sft")).to_pylist():
            found += bytes.fromhex(
                _digest(*conversations.read(row["messages"], row.get(conversations.TOOLS)))
            )
    return np.frombuffer(bytes(found), np.uint64).reshape(-1, 2)


def _digest(messages: list[dict[str, Any]], tools: list[Any]) -> str:
    """Of what an example says, in whichever of both forms its file has turns."""
    said = [{name: value for name, value in turn.items() if value is not None} for turn in messages]
    return digest.of_text(json.dumps([said, tools], sort_keys=True))
