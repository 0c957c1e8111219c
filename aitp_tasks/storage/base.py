"""What a storage offers, whichever kind it is."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from io import RawIOBase
from pathlib import Path
from typing import BinaryIO, cast

from aitp_tasks.errors import InputError, TransientError


class ObjectChangedError(TransientError):
    """An object was replaced while it was being read."""


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    """One object: its key, its size in bytes and its entity tag."""

    key: str
    size: int
    etag: str


@dataclass(frozen=True, slots=True)
class Tagged:
    """A small object as it was read, and the tag by which ``write_if_matches`` knows it again."""

    data: bytes
    tag: str


class Storage(ABC):
    """Objects under one root. All keys are relative to it and use ``/``."""

    #: The URI that ``open_storage`` was given, without a trailing slash.
    root: str
    #: How many small reads at the same time pay off.
    concurrency: int

    def uri(self, key: str) -> str:
        """The full URI of ``key``."""
        return f"{self.root}/{key}"

    @abstractmethod
    def find(self, key: str) -> ObjectInfo | None:
        """The object's size and tag, or None when there is none."""

    @abstractmethod
    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """All objects whose key starts with ``prefix``, in the order of their keys."""

    def unlisted(self, prefix: str) -> Iterator[str]:
        """Keys below ``prefix`` where something stands that ``list`` passes over; a bucket has none.

        In a folder of a machine these are links to folders, and links to what is not there.
        """
        return iter(())

    @abstractmethod
    def list_dated(self, prefix: str) -> Iterator[tuple[ObjectInfo, float]]:
        """The same, each with the time at which it was written, in seconds since 1970."""

    @abstractmethod
    def folders(self, prefix: str) -> tuple[str, ...]:
        """Names of the folders directly below ``prefix``, which ends with ``/``; sorted.

        A store is asked for the names alone, however many objects lie below them. Some stores (SeaweedFS)
        go on telling one whose objects are all deleted.
        """

    @abstractmethod
    def now(self) -> float:
        """The time by the clock that dates the objects, in seconds since 1970.

        Their age is told by it, and not by the clock of a machine, which may jump.
        """

    @abstractmethod
    def read_range(self, info: ObjectInfo, start: int, size: int) -> bytes:
        """``size`` bytes from ``start``.

        Raises:
            ObjectChangedError: the object no longer has the tag ``info.etag``.
        """

    @abstractmethod
    def read(self, key: str) -> bytes:
        """A whole (small) object.

        Raises:
            InputError: there is no such object.
        """

    @abstractmethod
    def write(self, key: str, data: bytes) -> None:
        """Write an object as a whole, replacing what was there."""

    @abstractmethod
    def write_if_absent(self, key: str, data: bytes) -> bool:
        """Write an object unless the key exists; False when it did (``If-None-Match: *``).

        After True or False the key holds an object: this one or another.

        Raises:
            TransientError: other writers held the key for so long that neither is known.
        """

    @abstractmethod
    def read_tagged(self, key: str) -> Tagged | None:
        """A whole (small) object with its tag, or None when there is none."""

    @abstractmethod
    def write_if_matches(self, key: str, data: bytes, tag: str) -> bool:
        """Replace an object that still is as ``read_tagged`` has read it (``If-Match``).

        False when it is another one by now, or gone: read it again. Of several
        writers that have read the same object, one wins. ``write`` takes no part in
        that: it replaces whatever is there.

        Raises:
            TransientError: as ``write_if_absent``.
        """

    @abstractmethod
    def upload(self, key: str, path: Path) -> None:
        """Write an object from a file, however large."""

    @abstractmethod
    def download(self, key: str, path: Path) -> None:
        """Write an object's content to a file.

        Raises:
            InputError: there is no such object.
        """

    @abstractmethod
    def copy(self, source: str, target: str) -> None:
        """Write an object with the content of another, without reading it here.

        Raises:
            InputError: there is no object ``source``.
        """

    @abstractmethod
    def delete(self, keys: Iterable[str]) -> None:
        """Delete objects; those that are not there are no error."""

    @abstractmethod
    def require_conditional_writes(self) -> None:
        """Make sure that ``write_if_absent`` and ``write_if_matches`` hold here.

        Raises:
            InputError: the storage writes although the condition does not hold.
        """

    def stat(self, key: str) -> ObjectInfo:
        """Like ``find``.

        Raises:
            InputError: there is no such object.
        """
        info = self.find(key)
        if info is None:
            raise self.missing(key)
        return info

    def open(self, info: ObjectInfo) -> BinaryIO:
        """A seekable stream of one version of an object, read by ranges as needed."""
        return cast(BinaryIO, _RangeStream(self, info))

    def missing(self, key: str) -> InputError:
        """The error for an object that should be there."""
        return InputError(f"{self.uri(key)} does not exist: restore it, or correct what names it")


class _RangeStream(RawIOBase):
    """Seekable reads of one object version; each read is one ranged request."""

    def __init__(self, storage: Storage, info: ObjectInfo) -> None:
        self._storage = storage
        self._info = info
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = 0) -> int:
        base = (0, self._position, self._info.size)[whence]
        self._position = base + offset
        return self._position

    def read(self, size: int = -1) -> bytes:
        left = max(self._info.size - self._position, 0)
        size = left if size is None or size < 0 else min(size, left)
        if size == 0:
            return b""
        data = self._storage.read_range(self._info, self._position, size)
        self._position += len(data)
        return data

    def size(self) -> int:
        return self._info.size
