"""Parts of large files of JSON Lines: units of work that are cut without reading anything.

A part is named by the file's key with ``#bytes=<first>-<last>``, an ending that
no file that is read can have. A row is of the part in which its first byte lies.
"""

import re
from collections.abc import Iterator

from aitp_tasks.errors import InputError
from aitp_tasks.inputs import formats
from aitp_tasks.inputs.formats import Format, Kind
from aitp_tasks.storage import ObjectInfo, Storage

_PART = re.compile(r"(.+)#bytes=(\d+)-(\d+)", re.DOTALL)
#: No part is smaller, but for the last one.
_SMALLEST = 64 * 2**20


def cut(info: ObjectInfo, size: int) -> Iterator[ObjectInfo]:
    """The parts of a file, of ``size`` bytes each; the file itself where it cannot be cut or is no larger."""
    size = max(size, _SMALLEST)
    if formats.of(info.key) != Kind(Format.JSON_LINES) or info.size <= size:
        yield info
        return
    for first in range(0, info.size, size):
        last = min(first + size, info.size) - 1
        yield ObjectInfo(f"{info.key}#bytes={first}-{last}", last - first + 1, info.etag)


def split(key: str) -> tuple[str, range | None]:
    """The file's key, and which of its bytes a part is of; None for a whole file."""
    match = _PART.fullmatch(key)
    return (match[1], range(int(match[2]), int(match[3]) + 1)) if match else (key, None)


def find(storage: Storage, key: str) -> ObjectInfo | None:
    """``storage.find`` for a key that may be a part's: its size is the part's, its tag the file's."""
    whole, part = split(key)
    info = storage.find(whole)
    return info if info is None or part is None else ObjectInfo(key, len(part), info.etag)


def stat(storage: Storage, key: str) -> ObjectInfo:
    """Like ``find``.

    Raises:
        InputError: there is no such object.
    """
    info = find(storage, key)
    if info is None:
        raise storage.missing(split(key)[0])
    return info


def require_planned(info: ObjectInfo, etag: str, where: str) -> None:
    """Make sure that a part is of the version of the file that was cut.

    Raises:
        InputError: the file was replaced, and nobody has cut the new one.
    """
    if split(info.key)[1] is not None and info.etag != etag:
        raise InputError(
            f"{where} changed after it was planned, and this is a part of it only: start a new run, "
            "which reuses all that is unchanged"
        )
