"""Storage in a folder of this machine, for tests and small local use."""

import errno
import fcntl
import hashlib
import os
import shutil
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from stat import S_ISREG

from aitp_tasks.errors import InputError, TransientError
from aitp_tasks.storage.base import ObjectChangedError, ObjectInfo, Storage, Tagged

#: Marks files that are still being written; never listed.
_UNFINISHED = ".unfinished-"
#: Held while an object of a folder is compared and replaced; never listed, and never removed.
_LOCK = f"{_UNFINISHED}lock"


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

    def unlisted(self, prefix: str) -> Iterator[str]:
        for folder, folders, files in os.walk(self._path(prefix.rpartition("/")[0])):
            for path in (Path(folder, name) for name in (*folders, *files)):
                if path.is_symlink() and not path.is_file():
                    key = path.relative_to(self._folder).as_posix()
                    if key.startswith(prefix):
                        yield key

    def list_dated(self, prefix: str) -> Iterator[tuple[ObjectInfo, float]]:
        for info in self.list(prefix):
            with suppress(FileNotFoundError):
                # A copy keeps the times of what it was copied from, but not this one.
                yield info, self._path(info.key).stat().st_ctime

    def folders(self, prefix: str) -> tuple[str, ...]:
        try:
            with os.scandir(self._path(prefix)) as entries:
                # A link to a folder is one where it is named, though a listing from above ends at it.
                names = [entry.name for entry in entries if entry.is_dir()]
        except (FileNotFoundError, NotADirectoryError):
            return ()
        return tuple(name for name in sorted(names) if next(self.list(f"{prefix}{name}/"), None) is not None)

    def now(self) -> float:
        # A folder that is mounted has the clock of its server.
        path = self._path(f"{_UNFINISHED}{uuid.uuid4().hex}")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        try:
            return path.stat().st_ctime
        finally:
            path.unlink()

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
        absent = True

        def link(unfinished: Path, target: Path) -> None:
            nonlocal absent
            try:
                os.link(unfinished, target)
            except FileExistsError:
                absent = False

        self._publish(key, lambda path: path.write_bytes(data), link)
        return absent

    def read_tagged(self, key: str) -> Tagged | None:
        try:
            data = self._path(key).read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            return None
        return Tagged(data, _content_tag(data))

    def write_if_matches(self, key: str, data: bytes, tag: str) -> bool:
        if self.find(key) is None:
            return False
        with self._only_one(key):
            found = self.read_tagged(key)
            if found is None or found.tag != tag:
                return False
            self.write(key, data)
            return True

    def upload(self, key: str, path: Path) -> None:
        self._publish(key, lambda target: shutil.copyfile(path, target), os.replace)

    def download(self, key: str, path: Path) -> None:
        try:
            shutil.copyfile(self._path(key), path)
        except FileNotFoundError:
            raise self.missing(key) from None

    def copy(self, source: str, target: str) -> None:
        # With its times, so that a copy made twice has the same tag.
        try:
            self._publish(target, lambda path: shutil.copy2(self._path(source), path), os.replace)
        except FileNotFoundError:
            raise self.missing(source) from None

    def delete(self, keys: Iterable[str]) -> None:
        for key in keys:
            # The folder stays: somebody may be about to write there.
            self._path(key).unlink(missing_ok=True)

    def require_conditional_writes(self) -> None:
        """A file system keeps them."""

    @contextmanager
    def _only_one(self, key: str) -> Iterator[None]:
        """Hold the lock of the object's folder; it ends with this process at the latest."""
        with self._path(key).with_name(_LOCK).open("ab") as stream:
            fcntl.flock(stream, fcntl.LOCK_EX)
            yield

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


def _content_tag(data: bytes) -> str:
    # Not the time: of two versions written within one tick of the file system's clock it says nothing.
    return hashlib.blake2b(data, digest_size=16).hexdigest()
