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


@pytest.mark.parametrize(
    ("links", "read"),
    [
        ({"sub/up": ".."}, ["sub/a"]),
        ({"sub/around": "../.."}, ["sub/a"]),
        ({"sub/itself": "itself"}, ["sub/a"]),
        ({"sub/gone": "nothing"}, ["sub/a"]),
        # Each leads into the other.
        ({"sub/x": "../other", "other/y": "../sub"}, ["sub/a", "sub/x/b", "other/b", "other/y/a"]),
        ({"twice": "sub"}, ["sub/a", "twice/a"]),
    ],
)
def test_links_are_followed_as_far_as_they_lead_on(
    folder: Path, links: dict[str, str], read: list[str]
) -> None:
    (folder / "other").mkdir()
    (folder / "other/b").write_text("b")
    for name, target in links.items():
        (folder / name).symlink_to(target)
    found = {path.relative_to(folder).as_posix() for path in digest._files(folder)}
    assert found == {"config.json", "\u00fc b.bin", "other/b", *read}
