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


def test_files_of_one_name_that_lie_apart_are_never_two_half_rows() -> None:
    data = tar(("a.txt", b"1"), ("b.txt", b"2"), ("a.json", b"{}"))
    with pytest.raises(ValueError, match=r"the files of a do not lie behind one another: sort them"):
        read(data)
    # What has no value is of the row, too.
    with pytest.raises(ValueError, match="the files of a "):
        read(tar(("a.jpg", b"1"), ("b.txt", b"2"), ("a.txt", b"3")))
    assert len(read(tar(("a/1.txt", b"1"), ("b/1.txt", b"2"), ("c/1.txt", b"2")))) == 3


@pytest.mark.parametrize("kind", [tarfile.LNKTYPE, tarfile.SYMTYPE])
def test_a_link_costs_its_row_and_is_named(kind: bytes) -> None:
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w") as archive:
        for name, target in (
            ("a.txt", ""),
            ("b.json", ""),
            ("b.txt", "a.txt"),
            ("c.jpg", "a.txt"),
            ("c.txt", ""),
        ):
            member = tarfile.TarInfo(name)
            member.type, member.linkname = (kind, target) if target else (tarfile.REGTYPE, "")
            member.size = 0 if target else 2
            archive.addfile(member, io.BytesIO(b"{}"))
    rows = list(tar_rows.rows(BufferedReader(io.BytesIO(sink.getvalue()))))
    assert rows[0] == {"__key__": "a", "txt": "{}"}
    assert isinstance(rows[1], Refusal)
    assert rows[1].message.startswith("b.txt is a link to a.txt")
    assert rows[2:] == [{"__key__": "c", "jpg": None, "txt": "{}"}]


MEMBERS = [(f"{number}.txt", b"text") for number in range(4)]


def damaged(at: int, data: bytes) -> bytes:
    whole = tar(*MEMBERS)
    return whole[:at] + data + whole[at + len(data) :]


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(damaged(2048, b"!"), id="a name without its checksum"),
        pytest.param(damaged(2048 + 124, b"zzzz"), id="a size that is none"),
        pytest.param(damaged(2048 + 124, b"77777777777"), id="a size of 8 GiB"),
        pytest.param(damaged(2048, bytes(512)), id="one empty header"),
        pytest.param(damaged(2048, bytes(1024)), id="an empty member"),
        pytest.param(damaged(2048, bytes(1536)), id="more than a member"),
        pytest.param(tar(*MEMBERS) * 2, id="two archives"),
        pytest.param(tar(*MEMBERS).rstrip(b"\0") + bytes(508 + 1024) + tar(*MEMBERS), id="without padding"),
        pytest.param(tar(*MEMBERS) + b"junk", id="junk"),
        pytest.param(
            tar(*MEMBERS).rstrip(b"\0") + bytes(508) + b"junk" * 128 + bytes(1024), id="junk within"
        ),
    ],
)
def test_damage_in_the_middle_is_no_end(data: bytes) -> None:
    found = tar_rows.rows(BufferedReader(io.BytesIO(data)))
    with pytest.raises(
        ValueError, match="damaged member|data follows its end|ends too early|ends within|unexpected end"
    ):
        list(found)


def test_every_bit_of_a_header_counts() -> None:
    whole = tar(*MEMBERS)
    # But for what divides the checksum from the next field.
    for at in {*range(2048, 2048 + 345)} - {2048 + 154, 2048 + 155}:
        flipped = whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :]
        with pytest.raises(ValueError, match=r"."):
            read(flipped)


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
