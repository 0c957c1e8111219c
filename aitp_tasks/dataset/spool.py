"""Rows on disk, given back in the order of a hash of each.

The order of a version follows from its rows alone, neither from where they come from nor
from when: SFT examples and pairs are mixed, and whoever takes the first rows has a fair
sample. Rows lie in as many files as their digests have first bytes, so that one of these is
in memory at a time.
"""

import json
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from hashlib import blake2b
from pathlib import Path
from typing import Any

_FILES = 256


class Spool:
    """Rows that are added one by one and read once, in their order."""

    def __init__(self, folder: Path) -> None:
        """``folder``: an existing one, where the files are until they are read."""
        self._stack = ExitStack()
        self._paths = [folder / f"rows-{number:02x}.jsonl" for number in range(_FILES)]
        self._files = [self._stack.enter_context(path.open("wb")) for path in self._paths]

    def close(self) -> None:
        """Close and delete the files that were not read."""
        self._stack.close()
        for path in self._paths:
            path.unlink(missing_ok=True)

    def add(self, row: Mapping[str, Any]) -> None:
        """Add a row of JSON's values."""
        line = json.dumps(row).encode("ascii")
        self._files[_digest(line)[0]].write(line + b"\n")

    def rows(self) -> Iterator[dict[str, Any]]:
        """All rows; each file is deleted when its rows have been read."""
        self._stack.close()
        for path in self._paths:
            # Equal rows come one after the other, and are the same whichever is first.
            for line in sorted(path.read_bytes().splitlines(), key=_digest):
                yield json.loads(line)
            path.unlink()


def _digest(line: bytes) -> bytes:
    return blake2b(line, digest_size=16).digest()
