"""To a prefix of a storage: a folder of the version's name, ``version.json`` last."""

import hashlib
import tempfile
from pathlib import Path
from typing import Any

from aitp_tasks.dataset.finished import Finished
from aitp_tasks.errors import InputError
from aitp_tasks.records.contents import StoredFile
from aitp_tasks.storage import Storage, open_storage

_READ_BYTES = 2**20


def publish(finished: Finished, to: str, source: Storage) -> dict[str, Any]:
    """Write the files that are not there yet.

    Args:
        finished: the version.
        to: the prefix.
        source: where the version comes from.

    Raises:
        InputError: the prefix is within the pipeline's own root, cannot be used, or holds something else
            under the version's name.
        TransientError: the storage has failed.
    """
    target = open_storage(to.rstrip("/"))
    if f"{target.root}/".startswith(f"{source.root}/"):
        raise InputError(
            f"--to {to} lies within {source.root}, where runs read and versions are kept: give a prefix of "
            "its own"
        )
    missing = _missing(finished, target)
    with tempfile.TemporaryDirectory(prefix="aitp-publish-") as name:
        for path in missing:
            local = finished.fetch(path, Path(name))
            target.upload(f"{finished.name}/{path}", local)
            local.unlink()
    return {"published": target.uri(finished.name), "written": len(missing)}


def _missing(finished: Finished, target: Storage) -> list[str]:
    """The files that are not there; all that is there has to be the version's."""
    there = {info.key.removeprefix(f"{finished.name}/"): info for info in target.list(f"{finished.name}/")}
    for path, info in there.items():
        stored = finished.files.get(path)
        if stored is None or stored.bytes != info.size or stored != _read(target, info.key):
            raise InputError(
                f"{target.uri(info.key)} is there and is not of {finished.name}: nothing was written; give "
                "another prefix, or delete what lies there if nobody needs it"
            )
    return [path for path in finished.files if path not in there]


def _read(target: Storage, key: str) -> StoredFile:
    """Size and digest of an object."""
    digest, size = hashlib.sha256(), 0
    with target.open(target.stat(key)) as stream:
        while data := stream.read(_READ_BYTES):
            digest.update(data)
            size += len(data)
    return StoredFile(bytes=size, sha256=digest.hexdigest())
