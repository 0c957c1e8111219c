"""A version's own files as they are handed on: as they were made, the card finished.

Which files are its own, ``version.json`` says with their sizes and digests; nothing else that
lies in its folder is handed on, and nothing that has changed since.
"""

import hashlib
from collections.abc import Callable
from pathlib import Path

from aitp_tasks.config import Assemble
from aitp_tasks.dataset import card, croissant
from aitp_tasks.errors import InputError
from aitp_tasks.records import data_files, evaluated, versions
from aitp_tasks.records.contents import StoredFile, of_file
from aitp_tasks.storage import Storage

#: Says what all the others are: whoever writes them one by one writes it last.
LAST = "version.json"
#: What a person reads in the folder of a version that is not all there yet; the last but one.
_CARD = card.NAME


class Finished:
    """The files of one version.

    Attributes:
        name: of the version.
        files: sizes and digests by path, in the order in which they are to be written.
    """

    def __init__(self, storage: Storage, settings: Assemble, name: str) -> None:
        """
        Args:
            storage: that the line of versions is in.
            settings: name the line, and the licence.
            name: of the version; ``latest`` is the one that is.

        Raises:
            InputError: there is no such version, an earlier release has made it, or a file is not as it was.
        """
        found = _version(storage, settings.dataset, name)
        self.name, self._storage = found.name, storage
        self._prefix = versions.prefix(settings.dataset, found.name)
        stored = dict(found.contents.files) if found.contents else {}
        if not stored:
            raise InputError(
                f"{storage.uri(self._prefix)} was made by an earlier release, which did not write down which "
                "files are its own: hand on a later version"
            )
        for path in stored:
            if path.startswith("/") or ".." in path.split("/"):
                raise self._changed(path)
        self._stored = stored
        measured = evaluated.of_version(storage, settings.dataset, found.name)
        self._texts = {
            LAST: storage.read(f"{self._prefix}/{LAST}"),
            **self._text(card.NAME, lambda text: card.finished(text, settings, measured)),
            **self._text(croissant.NAME, lambda text: croissant.relicensed(text, settings)),
        }
        told = stored | {path: _of_bytes(text) for path, text in self._texts.items()}
        self.files = {path: told[path] for path in sorted(told, key=_order)}

    def require_whole(self) -> None:
        """See that all files are there.

        Raises:
            InputError: one is not, or has another size.
        """
        for path, stored in self._stored.items():
            found = self._storage.find(f"{self._prefix}/{path}")
            if found is None or found.size != stored.bytes:
                raise self._changed(path)

    def fetch(self, path: str, folder: Path) -> Path:
        """Write one of the files into a folder; where it lies there.

        Raises:
            InputError: it is not as it was made.
        """
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        if path in self._texts:
            target.write_bytes(self._texts[path])
            return target
        self._storage.download(f"{self._prefix}/{path}", target)
        if of_file(target) != self.files[path]:
            raise self._changed(path)
        return target

    def _text(self, path: str, finish: Callable[[str], str]) -> dict[str, bytes]:
        if path not in self._stored:
            return {}
        data = self._storage.read(f"{self._prefix}/{path}")
        if _of_bytes(data) != self._stored[path]:
            raise self._changed(path)
        return {path: finish(data.decode("utf-8")).encode("utf-8")}

    def _changed(self, path: str) -> InputError:
        return InputError(
            f"{self._storage.uri(f'{self._prefix}/{path}')} is not as {LAST} says it was made: restore it, "
            "or hand on another version"
        )


def _version(storage: Storage, line: str, name: str) -> versions.Version:
    latest = name == versions.LATEST
    there = latest or storage.find(f"{versions.prefix(line, name)}/{LAST}") is not None
    found = versions.named(storage, line, name) if there else None
    if found is None:
        raise InputError(
            f"{storage.uri(versions.source(line))} has no version {name}: name one that is there"
        )
    return found


def _order(path: str) -> tuple[bool, bool, bool, str]:
    """Rows first, then what describes them."""
    return path == LAST, path == _CARD, not path.startswith(f"{data_files.FOLDER}/"), path


def _of_bytes(data: bytes) -> StoredFile:
    return StoredFile(bytes=len(data), sha256=hashlib.sha256(data).hexdigest())
