"""compact: few objects where many small ones lie.

Each part of a prompt stage joins its own responses when it is done; what parts have
left that were killed and given up is joined here. Nothing else needs it: of what grows
from night to night, only responses are many small objects that are read together
(``docs/how-to/tidy.md`` has the count). It can run beside nights and be stopped at any
time: an object is deleted when what holds all of its rows is written, and whoever
reads it at that moment looks again.
"""

import logging
from typing import Any

from aitp_tasks.config import RunConfig
from aitp_tasks.errors import InputError
from aitp_tasks.generation import stored
from aitp_tasks.records.manifest import Stopwatch
from aitp_tasks.storage import Storage, open_storage

log = logging.getLogger(__name__)


def execute(config: RunConfig) -> dict[str, Any]:
    """Join the small objects of responses below the configuration's root.

    Raises:
        InputError: objects are damaged; what lies under other prefixes is joined all the same.
    """
    watch = Stopwatch()
    storage = open_storage(config.root)
    before = _objects(storage)
    damaged = [why for prefix in before if (why := _joined(storage, prefix))]
    after = _objects(storage)
    for prefix in sorted(before.keys() & after.keys()):
        if after[prefix] < before[prefix]:
            log.info("generations=%s objects=%d now=%d", prefix, before[prefix], after[prefix])
    if damaged:
        raise InputError(f"{len(damaged)} of {len(before)} prefixes are not joined, the first: {damaged[0]}")
    return {
        "stage": "compact",
        "prefixes": len(before),
        "objects_before": sum(before.values()),
        "objects": sum(after.values()),
        "seconds": watch.seconds(),
    }


def _joined(storage: Storage, prefix: str) -> str:
    """Join what lies under a prefix; why that cannot be done, empty where it was."""
    try:
        stored.join_all(storage, prefix)
    except InputError as error:
        log.error("generations=%s is not joined: %s", prefix, error)
        return str(error)
    return ""


def _objects(storage: Storage) -> dict[str, int]:
    """How many objects of responses lie under each prefix."""
    found = dict[str, int]()
    for info in storage.list("generations/"):
        prefix = f"{info.key.rpartition('/')[0]}/"
        if stored.is_one(prefix, info):
            found[prefix] = found.get(prefix, 0) + 1
    return found
