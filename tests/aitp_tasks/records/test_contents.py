"""What a version's files are known by."""

import subprocess
from pathlib import Path

from aitp_tasks.records import contents


def test_files_have_the_digests_that_sha256sum_prints(tmp_path: Path) -> None:
    made = {"a.json": b"{}", "data/train-00000-of-00001.parquet": b"\0" * 100_000, "empty": b""}
    for name, data in made.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(data)
    printed = subprocess.run(
        ["sha256sum", *made], cwd=tmp_path, capture_output=True, text=True, check=True
    ).stdout.splitlines()
    wanted = {line.split("  ", 1)[1]: line.split("  ", 1)[0] for line in printed}
    found = contents.files(tmp_path)
    assert {name: one.sha256 for name, one in found.items()} == wanted
    assert {name: one.bytes for name, one in found.items()} == {
        name: len(data) for name, data in made.items()
    }


def test_an_empty_folder_has_none(tmp_path: Path) -> None:
    assert contents.files(tmp_path) == {}
