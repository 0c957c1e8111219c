"""The digest of a folder: another reading of its rule, and files that change."""

import hashlib
import json
import os
import shutil
from pathlib import Path

import pytest

from aitp_tasks.records import digest


def plainly(folder: Path) -> str:
    """The digest by its description: names and digests of files, as canonical JSON."""
    files = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    rows = [[name, hashlib.blake2b((folder / name).read_bytes()).hexdigest()] for name in files]
    return hashlib.blake2b(json.dumps(rows, separators=(",", ":")).encode(), digest_size=16).hexdigest()


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Files that count as old."""
    monkeypatch.setattr(digest, "_SETTLING", -1)
    made = tmp_path / "model"
    (made / "sub").mkdir(parents=True)
    for name in ("config.json", "\u00fc b.bin", "sub/a"):
        (made / name).write_text(name)
    return made


def test_it_is_of_names_and_contents(folder: Path) -> None:
    assert digest.of_folder(folder) == plainly(folder)


def test_what_is_written_in_place_replaced_or_renamed_is_another_folder(folder: Path) -> None:
    told = {digest.of_folder(folder)}
    path, times = folder / "config.json", os.stat(folder / "config.json")
    with path.open("r+") as stream:
        stream.write("CONFIG")
    # Whoever restores the times of a file cannot restore that of its change.
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert digest.of_folder(folder) == plainly(folder)
    told.add(digest.of_folder(folder))
    shutil.copy2(folder / "sub/a", folder / "new")
    os.replace(folder / "new", path)
    assert digest.of_folder(folder) == plainly(folder)
    told.add(digest.of_folder(folder))
    (folder / "sub/a").rename(folder / "sub/b")
    assert digest.of_folder(folder) == plainly(folder)
    told.add(digest.of_folder(folder))
    assert len(told) == 4


def test_a_file_is_read_once_and_one_that_was_just_written_each_time(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = []
    really = digest._read
    monkeypatch.setattr(digest, "_read", lambda path: read.append(path) or really(path))
    for _ in range(3):
        digest.of_folder(folder)
    assert len(read) == 3
    monkeypatch.setattr(digest, "_SETTLING", 60)
    digest.of_folder(folder)
    assert len(read) == 6
