"""Tar files as WebDataset has them, whole and damaged."""

import io
import tarfile
from io import BufferedReader
from typing import Any

import pytest

from aitp_tasks.inputs import tar_rows
from aitp_tasks.inputs.rows import Refusal


def tar(*members: tuple[str, bytes], format: int = tarfile.PAX_FORMAT) -> bytes:
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w", format=format) as archive:
        for name, data in members:
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return sink.getvalue()


def read(data: bytes, start: int = 0) -> list[Any]:
    found = tar_rows.rows(BufferedReader(io.BytesIO(data), 512), start)
    return [f"<{row.error_class}>" if isinstance(row, Refusal) else row for row in found]


@pytest.mark.parametrize("format", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
def test_files_of_one_name_are_a_row(format: int) -> None:
    long = "deep/" * 30 + "c"
    data = tar(
        ("./a/1.txt", "ü".encode()),
        ("./a/1.json", b'{"text": "t", "txt": "not this one"}'),
        ("a/1.v2.jpg", b"\xff\xd8"),
        ("b.TXT", b"b"),
        ("__index__/x.txt", b"hidden"),
        (".b.txt", b"hidden"),
        (f"{long}.txt", b"c"),
        ("d.json", b"[1]"),
        ("e.json", b"{"),
        ("f.txt", b"\xff"),
        format=format,
    )
    rows = [
        {
            "__key__": "a/1",
            "txt": "ü",
            "json": {"text": "t", "txt": "not this one"},
            "text": "t",
            "v2.jpg": None,
        },
        {"__key__": "b", "txt": "b"},
        {"__key__": long, "txt": "c"},
        {"__key__": "d", "json": [1]},
        "<not_json>",
        {"__key__": "f", "txt": "\udcff"},
    ]
    assert read(data) == rows
    assert read(data, 4) == rows[4:]


def test_a_name_that_is_there_twice_refuses_its_row() -> None:
    assert read(tar(("a.txt", b"1"), ("a.txt", b"2"), ("b.txt", b"3"))) == [
        "<not_a_row>",
        {"__key__": "b", "txt": "3"},
    ]


def test_a_cut_archive_is_noticed_wherever_it_is_cut() -> None:
    data = tar(*((f"{number}.txt", b"text" * 200) for number in range(3)))
    whole = read(data)
    assert len(whole) == 3
    # Two empty blocks end an archive; where they have begun, nothing of it is lost.
    end = len(data.rstrip(b"\0")) // 512 * 512 + 512
    for length in range(1, end + 1, 128):
        with pytest.raises(ValueError, match=r"."):
            read(data[:length])
    assert read(data[: end + 1024]) == whole
    assert read(tar()) == []
