"""publish: hand a version of the dataset on, to a repository of a hub or to a prefix of a storage.

Only the version's own files are handed on (see ``dataset.finished``), as they were made; the
card and ``croissant.json`` with the licence that is configured now, the card with the
evaluation. A second time changes nothing; what was broken off goes on where it was; what is
there under the version's name and is something else is left alone, and told.
"""

import logging
from typing import Any

from aitp_tasks.config import RunConfig, file
from aitp_tasks.dataset.finished import LAST, Finished
from aitp_tasks.errors import InputError
from aitp_tasks.records import versions
from aitp_tasks.records.manifest import Stopwatch
from aitp_tasks.storage import Storage, open_storage
from aitp_tasks.tools.publish import hub, prefix

log = logging.getLogger(__name__)

_HUB = "hf://"
_STORAGES = ("s3://", "file://")


def execute(config: RunConfig, version: str, to: str, public: bool) -> dict[str, Any]:
    """Publish a version.

    Args:
        config: names the root, the dataset and the licence.
        version: its name, or ``latest``.
        to: ``hf://owner/name``, or a prefix of a storage, below which the version has a folder of its name.
        public: whether anybody may read the repository; nothing for a prefix.

    Raises:
        InputError: there is no such version, it is not whole, the place cannot be used, or something else is
            there.
        TransientError: the hub or the storage has failed; the same command goes on.
    """
    watch = Stopwatch()
    on_hub = to.startswith(_HUB)
    # What is no place is told before anything is read.
    name = hub.repository(to.removeprefix(_HUB)) if on_hub else ""
    if not on_hub and not to.startswith(_STORAGES):
        raise InputError(
            f"--to {file.masked(to)!r}: give hf://owner/name, s3://bucket/prefix or file:///folder"
        )
    if not on_hub and public:
        raise InputError(f"--public says nothing of {to}: who may read there, the storage decides")
    storage = open_storage(config.root)
    finished = Finished(storage, config.assemble, version)
    finished.require_whole()
    if on_hub:
        done = hub.publish(finished, name, public, _known(storage, config.assemble.dataset))
    else:
        done = prefix.publish(finished, to, storage)
    log.info("publish version=%s to=%s written=%d", finished.name, done["published"], done["written"])
    return {
        "stage": "publish",
        "version": finished.name,
        **done,
        "files": len(finished.files),
        "bytes": sum(file.bytes for file in finished.files.values()),
        "seconds": watch.seconds(),
    }


def _known(storage: Storage, line: str) -> hub.Known:
    """Gives the ``version.json`` of a version of the line."""

    def read(name: str) -> bytes | None:
        if "/" in name:
            return None
        found = storage.read_tagged(f"{versions.prefix(line, name)}/{LAST}")
        return None if found is None else found.data

    return read
