"""Storage in a folder of this machine, for tests and small local use."""

import errno
import os
import shutil
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from stat import S_ISREG

from aitp_tasks.errors import InputError, TransientError
from aitp_tasks.storage.base import ObjectChangedError, ObjectInfo, Storage

#: Marks files that are still being written; never listed.
_UNFINISHED = ".unfinished-"


class LocalStorage(Storage):
    """Objects as files; a write becomes visible as a whole or not at all."""

    # A file is mostly in memory: more threads would only wait for each other's turn at Python.
    concurrency = 2

    def __init__(self, folder: str) -> None:
        self._folder = Path(folder).resolve()
        self.root = f"file://{self._folder}"

    def find(self, key: str) -> ObjectInfo | None:
        try:
            stat = self._path(key).stat()
        except (FileNotFoundError, NotADirectoryError):
            return None
        return ObjectInfo(key, stat.st_size, _etag(stat))

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        folder = prefix.rpartition("/")[0]
        return self._walk(self._path(folder), f"{folder}/" if folder else "", prefix)

    def _walk(self, folder: Path, base: str, prefix: str) -> Iterator[ObjectInfo]:
        """The files below ``folder``, whose keys start with ``base``; links to folders are not followed."""
        try:
            with os.scandir(folder) as entries:
                found = {
                    base + entry.name + ("/" if entry.is_dir(follow_symlinks=False) else ""): entry
                    for entry in entries
                    if _UNFINISHED not in entry.name
                }
        except (FileNotFoundError, NotADirectoryError):
            return
        # A folder sorts as its keys do: "a.b" before "a/b".
        for key in sorted(key for key in found if key.startswith(prefix)):
            if key.endswith("/"):
                yield from self._walk(folder / found[key].name, key, prefix)
                continue
            try:
                stat = found[key].stat()
            except FileNotFoundError:
                continue
            if S_ISREG(stat.st_mode):
                yield ObjectInfo(key, stat.st_size, _etag(stat))

    def read_range(self, info: ObjectInfo, start: int, size: int) -> bytes:
        if self.find(info.key) != info:
            raise ObjectChangedError(f"{self.uri(info.key)} changed while it was read: run the task again")
        with self._path(info.key).open("rb") as stream:
            stream.seek(start)
            return stream.read(size)

    def read(self, key: str) -> bytes:
        try:
            return self._path(key).read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            raise self.missing(key) from None

    def write(self, key: str, data: bytes) -> None:
        self._publish(key, lambda path: path.write_bytes(data), os.replace)

    def write_if_absent(self, key: str, data: bytes) -> bool:
        try:
            self._publish(key, lambda path: path.write_bytes(data), os.link)
        except FileExistsError:
            return False
        return True

    def upload(self, key: str, path: Path) -> None:
        self._publish(key, lambda target: shutil.copyfile(path, target), os.replace)

    def download(self, key: str, path: Path) -> None:
        try:
            shutil.copyfile(self._path(key), path)
        except FileNotFoundError:
            raise self.missing(key) from None

    def _path(self, key: str) -> Path:
        path = self._folder / key
        if ".." in Path(key).parts:
            raise InputError(f"key {key!r} leaves the storage root")
        return path

    def _publish(
        self, key: str, fill: Callable[[Path], object], finish: Callable[[Path, Path], None]
    ) -> None:
        target = self._path(key)
        unfinished = target.with_name(f"{_UNFINISHED}{uuid.uuid4().hex}")
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            fill(unfinished)
            with unfinished.open("rb") as stream:
                os.fsync(stream.fileno())
            finish(unfinished, target)
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise TransientError(
                    f"no space left to write {self.uri(key)}: free space, then retry"
                ) from error
            raise
        finally:
            unfinished.unlink(missing_ok=True)


def _etag(stat: os.stat_result) -> str:
    return f"{stat.st_size:x}-{stat.st_mtime_ns:x}"
