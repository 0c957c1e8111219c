"""What a file is that its ending does not say: it is named with the remedy, and whole files are right."""

import bz2
import gzip
import io
import json
import lzma
import re
import tarfile
import zipfile

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from aitp_tasks.inputs import formats, mistakes
from aitp_tasks.inputs.formats import Format
from tests.aitp_tasks.inputs.packed import PACKED

ROWS = [{"text": "one"}, {"text": "two, with [brackets] {and braces}"}]
LINES = "".join(json.dumps(row) + "\n" for row in ROWS).encode()


def parquet() -> bytes:
    sink = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(ROWS), sink)
    return sink.getvalue()


def arrow(stream: bool) -> bytes:
    sink = io.BytesIO()
    table = pa.Table.from_pylist(ROWS)
    with (pa.ipc.new_stream if stream else pa.ipc.new_file)(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue()


def tar() -> bytes:
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w") as archive:
        member = tarfile.TarInfo("a.txt")
        member.size = 3
        archive.addfile(member, io.BytesIO(b"one"))
    return sink.getvalue()


def zipped() -> bytes:
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w") as archive:
        archive.writestr("a.jsonl", LINES)
    return sink.getvalue()


CONTENTS = {
    ".parquet": parquet(),
    ".jsonl": LINES,
    ".json": json.dumps(ROWS, indent=1).encode(),
    ".csv": b"id,text\n1,one\n",
    ".tsv": b"id\ttext\n1\tone\n",
    ".arrow": arrow(True),
    ".feather": arrow(False),
    ".tar": tar(),
}


def told(name: str, data: bytes) -> str:
    """What is said of a file, as its reader says it: of its bytes, then of its text."""
    kind = formats.of(name)
    assert kind is not None
    found = mistakes.of_bytes(data[: mistakes.LOOKED_AT], kind)
    if found is None and not kind.is_table:
        text = data
        if kind.packed and data:
            text = {".gz": gzip, ".bz2": bz2, ".xz": lzma}[kind.packed].decompress(data)
        found = mistakes.of_text(text[: mistakes.LOOKED_AT], kind)
    return f"{found.reason}: {found.remedy}" if found else ""


@pytest.mark.parametrize("ending", CONTENTS)
@pytest.mark.parametrize("packed", [packed for packed in PACKED if packed != ".zst"])
def test_what_its_ending_says_is_no_mistake(ending: str, packed: str) -> None:
    if formats.of(f"a{ending}{packed}") is not None:
        assert told(f"a{ending}{packed}", PACKED[packed](CONTENTS[ending])) == ""
        assert told(f"a{ending}", b"") == ""


@pytest.mark.parametrize("packed", [packed for packed in PACKED if packed])
@pytest.mark.parametrize("ending", CONTENTS)
def test_a_compression_without_its_ending_is_named_and_the_reverse(ending: str, packed: str) -> None:
    name = formats.COMPRESSIONS[packed]
    found = told(f"a{ending}", PACKED[packed](CONTENTS[ending]))
    assert f"compressed by {name}" in found
    kind = formats.of(f"a{ending}")
    assert kind is not None
    if not kind.is_table:
        assert f"let its name end in .{kind.format}{packed}" in found
        found = told(f"a{ending}{packed}", CONTENTS[ending])
        assert found == f"it is not compressed by {name}: let its name end in .{kind.format}"


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("a.jsonl", LINES.decode().encode("utf-16"), "it is in UTF-16, not UTF-8: convert it"),
        ("a.jsonl", LINES.decode().encode("utf-16-le"), "it is in UTF-16"),
        ("a.csv", b"id,text\n1,one\n".decode().encode("utf-16-be"), "it is in UTF-16"),
        ("a.json", LINES.decode().encode("utf-32"), "it is in UTF-32"),
        ("a.json", LINES.decode().encode("utf-32-be"), "it is in UTF-32"),
        ("a.jsonl.gz", gzip.compress(LINES.decode().encode("utf-16")), "it is in UTF-16"),
        ("a.parquet", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n", "git lfs pull"),
        ("a.jsonl", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n", "git lfs pull"),
        ("a.jsonl.gz", b"<!DOCTYPE html><html></html>", "it is HTML or XML"),
        ("a.parquet", b'<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>', "it is HTML or XML"),
        ("a.jsonl", zipped(), "it is a zip archive: unpack it"),
        ("a.jsonl", json.dumps(ROWS).encode(), "it is one array: let its name end in .json"),
        ("a.ndjson", json.dumps(ROWS, indent=1).encode(), "it is one array"),
        ("a.jsonl", json.dumps(ROWS[0], indent=1).encode(), "not a whole object.*one object a line"),
        ("a.jsonl", parquet(), "it is Parquet: let its name end in .parquet"),
        ("a.csv", arrow(True), "it is Arrow IPC: let its name end in .arrow"),
        ("a.parquet", arrow(False), "it is Arrow IPC"),
        ("a.arrow", parquet(), "it is Parquet"),
        ("a.parquet", LINES, "it is JSON: let its name end in .jsonl"),
        ("a.jsonl", tar(), "it is tar: let its name end in .tar"),
        ("a.jsonl.gz", gzip.compress(gzip.compress(LINES)), "compressed twice.*gzip: decompress it once"),
        ("a.jsonl.gz", gzip.compress(parquet()), "it is Parquet, compressed"),
        ("a.jsonl.gz", b"\x00\x01\x02", "it does not begin as gzip does: upload it again"),
        ("a.json", json.dumps(ROWS[0], indent=1).encode(), "not a whole object.*a line, or one array"),
        ("a.json.gz", gzip.compress(json.dumps(ROWS[0], indent=1).encode()), "not a whole object"),
        ("a.json", b'{"a": [\n1]}', "not a whole object"),
        ("a.json", b"{\n}", "not a whole object"),
        ("a.jsonl", bytes(4096), "nothing but zero bytes: upload it again"),
        ("a.parquet", bytes(4096), "nothing but zero bytes"),
        ("a.csv", bytes(100_000) + LINES, "nothing but zero bytes"),
        ("a.feather", b"FEA1" + bytes(100) + b"FEA1", "Feather of version 1.*version 2"),
        ("a.csv", b"id;text\n1;one, two\n", "semicolons instead of commas.*: write it with commas"),
        ("a.csv", b'\xef\xbb\xbf"id";"text, as it is"\r\n', "semicolons instead of commas"),
        ("a.csv", b"id|text\r1|one", "vertical bars instead of commas"),
        ("a.csv", b"id\ttext\n1\tone, two\n", "tabs instead of commas.*: let its name end in .tsv"),
        ("a.tsv", b"id,text\n1,one\n", "commas instead of tabs.*: let its name end in .csv"),
        ("a.tsv.gz", gzip.compress(b"id;text\n"), "semicolons instead of tabs.*: write it with tabs"),
    ],
)
def test_a_mistake_is_named_with_its_remedy(name: str, data: bytes, message: str) -> None:
    assert re.search(message, told(name, data)), told(name, data)


@pytest.mark.parametrize(
    "data",
    [
        b'{"text": "cut off\n{"text": "two"}\n',
        b"{\n{}\n",
        b"[1, 2]\n{}\n",
        b"[]\n[]\n",
        b'["a", "b"]\n',
        b"oops\n{}\n",
        b'\xef\xbb\xbf{"text": "one"}\n',
        b"\n\n",
    ],
)
def test_one_bad_row_does_not_make_a_mistake_of_a_file(data: bytes) -> None:
    assert told("a.jsonl", data) == ""


@pytest.mark.parametrize(
    ("name", "data"),
    [
        # A file whose end was not written has whole rows before.
        ("a.jsonl", LINES + bytes(4096)),
        ("a.csv", b"id,text\n1,one\n" + bytes(4096)),
        ("a.jsonl", b'{"text": "a' + bytes(3000) + b'"}\n' + LINES),
        ("a.jsonl", b'{"text": "a\0b\0\0"}\n'),
        ("a.csv", b"text\none; two\n"),
        ("a.csv", b'"text; or what is left"\none\n'),
        ("a.csv", b"id;no,text\n1,one\n"),
        ("a.tsv", b"text\none, two\n"),
        ("a.tar", bytes(10240)),
    ],
)
def test_what_only_looks_like_a_mistake_is_none(name: str, data: bytes) -> None:
    assert told(name, data) == ""


def test_every_format_has_a_label() -> None:
    assert len({kind.label for kind in Format}) == len(Format)
