"""The rows of a tar as WebDataset has them: files of one name and several endings are one row.

``a/0001.txt`` and ``a/0001.json`` are a row with the columns ``__key__``
(``a/0001``), ``txt``, a text, and ``json``, an object: Hugging Face's names. What
the object holds are columns as well, where no other has the name. Files with
other endings are columns without a value, and so are links: what they lead to
has gone by, or is elsewhere.

Python's library takes a bad header or an empty block for the end of an archive.
Here that is damage, unless nothing but zero bytes follows.
"""

import codecs
import io
import logging
import tarfile
from collections.abc import Iterator
from io import BufferedReader
from itertools import groupby
from typing import IO, Any, cast

from aitp_tasks.inputs import json_rows
from aitp_tasks.inputs.forms.table import KEY
from aitp_tasks.inputs.rows import Refusal

log = logging.getLogger(__name__)

_BLOCK = 512
#: Bytes read at a time behind the end.
_READ = 2**20


def rows(stream: BufferedReader, start: int = 0) -> Iterator[dict[str, Any] | Refusal]:
    """The rows from row ``start`` on; hidden files and what is no file are left out, and counted.

    Raises:
        ValueError: the archive is damaged, ends too early or goes on behind its end; or the files of one
            name do not lie behind one another.
    """
    # Of the names only hashes are kept: an archive may have millions.
    met: set[int] = set()
    for row, (key, members) in enumerate(groupby(_members(stream), key=lambda member: member[0])):
        if hash(key) in met:
            raise ValueError(
                f"the files of {key} do not lie behind one another: sort them (tar --sort=name) and upload "
                "it again"
            )
        met.add(hash(key))
        found = _row(key, [(column, value) for _, column, value in members])
        if row >= start:
            yield found


def _row(key: str, members: list[tuple[str, Any]]) -> dict[str, Any] | Refusal:
    row: dict[str, Any] = {KEY: key}
    for column, value in members:
        if isinstance(value, Refusal):
            return value
        if column in row:
            return Refusal("not_a_row", f"{key} has {column} twice")
        row[column] = value
    held = row.get("json")
    return held | row if isinstance(held, dict) else row


def _members(stream: BufferedReader) -> Iterator[tuple[str, str, Any]]:
    """Key, column and value of each file."""
    watched = _Watched(stream)
    left_out = 0
    try:
        with tarfile.open(fileobj=cast(IO[bytes], watched), mode="r|", tarinfo=_Header) as archive:
            for member in archive:
                is_link = member.islnk() or member.issym()
                if not (member.isfile() or is_link) or _is_hidden(member.name):
                    left_out += not member.isdir()
                    continue
                folder, slash, name = member.name.removeprefix("./").rpartition("/")
                stem, _, column = name.partition(".")
                yield folder + slash + stem, column.lower(), _value(archive, member, column.lower())
                # The library remembers every file that it has met.
                archive.members = []  # type: ignore[attr-defined]
            _require_nothing_behind(archive)
    except tarfile.TarError as error:
        raise ValueError(str(error)) from None
    if not watched.ended:
        raise ValueError("it ends too early: the end of an archive is two empty blocks")
    if left_out:
        log.info("tar: %d members are not read: hidden files, or devices", left_out)


def _require_nothing_behind(archive: tarfile.TarFile) -> None:
    """Make sure that the empty block which the library took for the end is the end."""
    assert archive.fileobj is not None
    while block := archive.fileobj.read(_READ):
        if block.strip(b"\0"):
            raise tarfile.ReadError(
                "data follows its end: a part of it was lost, or it is several archives, one behind the "
                "other, which are to be uploaded one by one"
            )


class _Header(tarfile.TarInfo):
    """A header whose damage is no end."""

    @classmethod
    def fromtarfile(cls, archive: tarfile.TarFile) -> "_Header":
        try:
            return super().fromtarfile(archive)
        # Errors of classes that the library does not know how to pass over; they have no public names.
        except tarfile.HeaderError as error:
            if type(error).__name__ in ("EOFHeaderError", "EmptyHeaderError"):
                raise
            raise tarfile.ReadError(f"a damaged member: {error}") from None


def _is_hidden(name: str) -> bool:
    parts = name.removeprefix("./").split("/")
    return any(part.startswith((".", "_")) and part not in (".", "..") for part in parts)


def _value(archive: tarfile.TarFile, member: tarfile.TarInfo, column: str) -> Any:
    ending = column.rpartition(".")[2]
    if ending not in ("txt", "json"):
        return None
    if not member.isfile():
        return Refusal(
            "not_a_row",
            f"{member.name} is a link to {member.linkname}: write the archive with --dereference "
            "--hard-dereference",
        )
    if member.size > json_rows.LONGEST_ROW:
        return Refusal(
            "too_long", f"{member.name} has {member.size} bytes: the most are {json_rows.LONGEST_ROW}"
        )
    file = archive.extractfile(member)
    data = file.read() if file is not None else b""
    if len(data) < member.size:
        raise tarfile.ReadError(f"it ends within {member.name}")
    data = data.removeprefix(codecs.BOM_UTF8)
    if ending == "txt":
        return data.decode(errors="surrogateescape")
    return json_rows.value(data)


class _Watched(io.RawIOBase):
    """A stream that knows whether it has ended as an archive should."""

    def __init__(self, stream: BufferedReader) -> None:
        self._stream = stream
        self._last = b""

    def read(self, size: int = -1) -> bytes:
        data = self._stream.read(size)
        self._last = (self._last + data)[-_BLOCK:]
        return data

    @property
    def ended(self) -> bool:
        """Whether what was read last is an empty block."""
        return self._last == bytes(_BLOCK)
