"""dataset export: a version's own files as a folder of this machine, and nothing beside them.

A file gets its name once it is whole, by its size and, where its release has written that down,
its digest; so an export that is broken off goes on where it was. A folder that holds anything
else is left as it is.
"""

import errno
import fcntl
import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from aitp_tasks.config import RunConfig
from aitp_tasks.errors import InputError, TransientError
from aitp_tasks.records import contents
from aitp_tasks.records.manifest import Stopwatch
from aitp_tasks.storage import Storage, open_storage
from aitp_tasks.tools.dataset import catalog, own
from aitp_tasks.tools.dataset.own import Own
from aitp_tasks.tools.terminal import printable

log = logging.getLogger(__name__)

#: Held while an export writes into a folder, and what is not whole yet; neither is left behind.
_LOCK, _UNFINISHED = ".aitp-export", ".aitp-unfinished"


def execute(config: RunConfig, version: str, folder: str) -> dict[str, Any]:
    """Copy a version's files into a folder, and print which one to standard error.

    Args:
        config: names the root and the dataset.
        version: its name, or ``latest``.
        folder: of this machine; made where it is not there.

    Raises:
        InputError: there is no such version, it is not whole, or the folder holds something else.
        TransientError: another export writes into the folder, or a file was replaced as it was read.
    """
    watch = Stopwatch()
    storage, line = open_storage(config.root), config.assemble.dataset
    found = catalog.named(storage, line, version)
    target = _target(storage, folder)
    files = own.files(storage, line, found)
    try:
        _require_nothing_else(target, files)
        target.mkdir(parents=True, exist_ok=True)
        with _alone(target):
            copied = [one for one in files if _copied(storage, one, target)]
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise InputError(f"{target} cannot be written ({error.strerror}): name another folder") from None
    result = {
        "stage": "dataset",
        "action": "export",
        "dataset": line,
        "version": found.name,
        "folder": str(target),
        "files": len(files),
        "bytes": sum(one.size for one in files),
        "copied": len(copied),
        "checked": "sizes and digests" if found.files else "sizes",
        "seconds": watch.seconds(),
    }
    sys.stderr.write(
        f"{found.name} is in {printable(str(target))}: {len(files):,} files, {result['bytes']:,} bytes, "
        f"{len(copied):,} of them copied now, {result['checked']} compared\n"
    )
    return result


def _target(storage: Storage, folder: str) -> Path:
    if not folder or "://" in folder:
        raise InputError(f"'{printable(folder)}' is no folder of this machine: name one to export to")
    target = Path(folder).resolve()
    root = storage.root.removeprefix("file://")
    if storage.root.startswith("file://") and target.is_relative_to(Path(root) / "datasets"):
        raise InputError(f"{target} is where versions lie, which never change: export to another folder")
    if target.exists() and not target.is_dir():
        raise InputError(f"{target} is a file: name a folder to export to")
    return target


def _require_nothing_else(target: Path, files: list[Own]) -> None:
    """Refuse a folder with any other file, or with one of that name that is another one."""
    known = {one.path: one for one in files}
    for path in _files_below(target):
        name = path.relative_to(target).as_posix()
        if name not in known or not _is_whole(path, known[name]):
            raise InputError(
                f"{target} holds {printable(name)}, which is not of this version: export to another folder, "
                "or take it away"
            )


def _files_below(target: Path) -> Iterator[Path]:
    """The files, and links, below a folder, but for what an export leaves there meanwhile."""
    for folder, folders, names in os.walk(target):
        links = (name for name in folders if (Path(folder) / name).is_symlink())
        yield from (Path(folder) / name for name in (*links, *names) if name not in (_LOCK, _UNFINISHED))


def _copied(storage: Storage, one: Own, target: Path) -> bool:
    """Copy a file unless it is there; whether it was copied."""
    path = target / one.path
    # Without a digest on record nobody knows whether it is the same.
    if path.exists() and one.sha256 is not None:
        return False
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(_UNFINISHED)
    try:
        storage.download(one.key, unfinished)
        if not _is_whole(unfinished, one):
            raise InputError(
                f"{storage.uri(one.key)} is not what it was made as, by its size or digest: restore it, or "
                "export another version"
            )
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)
    log.info("exported %s bytes=%d", one.path, one.size)
    return True


def _is_whole(path: Path, one: Own) -> bool:
    if not path.is_file() or path.is_symlink() or path.stat().st_size != one.size:
        return False
    return one.sha256 is None or contents.sha256(path) == one.sha256


@contextmanager
def _alone(target: Path) -> Iterator[None]:
    """Keep other exports out of a folder; the lock ends with this process at the latest."""
    lock = target / _LOCK
    with lock.open("ab") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise TransientError(f"another export writes into {target}: wait for its end") from None
        yield
        lock.unlink(missing_ok=True)
