"""Content identities: every key that AITP writes is derived from one of these.

All digests are BLAKE2b in hexadecimal. Structured values are hashed through
canonical JSON, so that key order and white space never matter.
"""

import hashlib
import json
import time
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

DIGEST_BYTES = 16
#: Seconds for which a file that was just written is read each time: within one tick of the clock of a
#: file system, or by the clock of a server that is late, it could change and look the same.
_SETTLING = 60


def of_bytes(data: bytes, size: int = DIGEST_BYTES) -> str:
    """Digest of raw bytes, ``2 * size`` hexadecimal characters."""
    return hashlib.blake2b(data, digest_size=size).hexdigest()


def of_text(text: str) -> str:
    """Identity of a document, question or answer: the digest of its UTF-8 text."""
    return of_bytes(text.encode("utf-8"))


def of_value(value: Mapping[str, Any] | list[Any]) -> str:
    """Digest of a JSON-serialisable value through its canonical form."""
    canonical = json.dumps(value, sort_keys=True, ensure_ascii=True, separators=(",", ":"))
    return of_bytes(canonical.encode("ascii"))


def of_file(path: Path) -> str:
    """Digest of a file's bytes, as ``of_bytes`` makes it."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, lambda: hashlib.blake2b(digest_size=DIGEST_BYTES)).hexdigest()


def of_folder(folder: Path) -> str:
    """Digest of all files below ``folder``: their relative names and their content.

    Those that links lead to count as well, since whoever loads the folder reads them. Without ``.cache``,
    where the hub's client notes when it has downloaded what.
    """
    found = ((path.relative_to(folder), path) for path in _files(folder))
    files = sorted((name.as_posix(), path) for name, path in found if name.parts[0] != ".cache")
    return of_value([[name, _of_all(path)] for name, path in files])


def _files(folder: Path, inside: tuple[Path, ...] = ()) -> Iterator[Path]:
    """The files below a folder; ``inside``: the folders on the way to it, as they really are."""
    inside = (*inside, folder.resolve())
    for path in folder.iterdir():
        if path.is_file():
            yield path
        # A link to a folder on the way, or around one, would lead on without end.
        elif path.is_dir() and not any(one.is_relative_to(path.resolve()) for one in inside):
            yield from _files(path, inside)


def _of_all(path: Path) -> str:
    """Digest of a file; read once in a process, as two settings often name the same model."""
    found = path.stat()
    if time.time() - found.st_ctime < _SETTLING:
        return _read(path)
    return _of_settled(
        path, (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)
    )


@lru_cache(maxsize=4096)
def _of_settled(path: Path, looks: tuple[int, ...]) -> str:
    return _read(path)


def _read(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "blake2b").hexdigest()
