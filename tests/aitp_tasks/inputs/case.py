"""The form of a case, and small builders of files (standard library, pyarrow and zstandard only)."""

from __future__ import annotations

import bz2
import csv
import gzip
import io
import json
import lzma
import tarfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import zstandard


@dataclass(frozen=True)
class Case:
    name: str
    files: Callable[[], dict[str, bytes]]
    settings: dict[str, Any] = field(default_factory=dict)
    refused: tuple[str, ...] = ()
    texts: list[str | None] | None = None
    sources: list[str] | None = None
    examples: list[dict | str | None] | None = None
    compared: list[str] | None = None
    unknown: tuple[str, ...] = ()
    hidden: int = 0
    why: str = ""


def line(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)


def jsonl(rows: Iterable[object]) -> bytes:
    return "".join(line(r) + "\n" for r in rows).encode("utf-8")


def array(rows: Sequence[object], indent: int | None = 2) -> bytes:
    return json.dumps(list(rows), ensure_ascii=False, indent=indent).encode("utf-8")


def gz(data: bytes) -> bytes:
    return gzip.compress(data, mtime=0)


def zst(data: bytes) -> bytes:
    return zstandard.ZstdCompressor().compress(data)


def bz(data: bytes) -> bytes:
    return bz2.compress(data)


def xz(data: bytes) -> bytes:
    return lzma.compress(data)


def pieces(data: bytes, n: int) -> list[bytes]:
    """`data` cut into `n` pieces at places that respect neither lines nor characters."""
    step = len(data) // n + 1
    return [data[i : i + step] for i in range(0, len(data), step)]


def parquet(rows: Sequence[dict] | pa.Table, **options: Any) -> bytes:
    table = rows if isinstance(rows, pa.Table) else pa.Table.from_pylist(list(rows))
    sink = io.BytesIO()
    pq.write_table(table, sink, **options)
    return sink.getvalue()


def ipc_stream(
    table: pa.Table, options: pa.ipc.IpcWriteOptions | None = None, rows_a_batch: int | None = None
) -> bytes:
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, table.schema, options=options) as writer:
        writer.write_table(table, max_chunksize=rows_a_batch)
    return sink.getvalue()


def ipc_file(table: pa.Table, options: pa.ipc.IpcWriteOptions | None = None) -> bytes:
    sink = io.BytesIO()
    with pa.ipc.new_file(sink, table.schema, options=options) as writer:
        writer.write_table(table)
    return sink.getvalue()


def csv_bytes(
    rows: Sequence[Sequence[str]], delimiter: str = ",", end: str = "\n", quoting: int = csv.QUOTE_MINIMAL
) -> bytes:
    out = io.StringIO(newline="")
    csv.writer(out, delimiter=delimiter, lineterminator=end, quoting=quoting).writerows(rows)
    return out.getvalue().encode("utf-8")


def tar(members: Sequence[tuple[str, bytes]], mode: str = "w") -> bytes:
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode=mode, format=tarfile.USTAR_FORMAT) as archive:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return sink.getvalue()


LFS = (
    b"version https://git-lfs.github.com/spec/v1\n"
    b"oid sha256:4d7a214614ab2935c943f9e0ff69d22eadbb8f32b1258daaa5e2ca24d17e2393\n"
    b"size 73400320\n"
)
HTML = b"<!DOCTYPE html>\n<html><head><title>504 Gateway Time-out</title></head>\n<body>\n<h1>504</h1>\n</body></html>\n"
