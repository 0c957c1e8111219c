"""The beginning of a corpus file: about how many rows it has, and what plan refuses by it."""

import json
from pathlib import Path
from random import Random
from typing import Any

import pytest
import zstandard

from aitp_tasks.errors import InputError
from aitp_tasks.inputs import heads
from aitp_tasks.inputs.files import File, MistakenError, UnreadableError
from aitp_tasks.storage import ObjectInfo, Storage, open_storage
from tests.aitp_tasks.inputs.packed import PACKED


def read(storage: Storage, root: Path, name: str, data: bytes) -> heads.Head:
    (root / "corpus/news" / name).write_bytes(data)
    return heads.read(File(storage, storage.stat(f"corpus/news/{name}")))


@pytest.fixture
def storage(root: Path) -> Storage:
    return open_storage(f"file://{root}")


def lines(count: int) -> list[dict[str, Any]]:
    random = Random(0)
    return [
        {"id": number, "text": random.randbytes(random.randint(20, 400)).hex()} for number in range(count)
    ]


@pytest.mark.parametrize("packed", PACKED)
@pytest.mark.parametrize("ending", [".jsonl", ".json", ".csv"])
def test_rows_are_estimated_by_the_bytes_of_the_first_ones(
    storage: Storage, root: Path, ending: str, packed: str
) -> None:
    rows = lines(6_000)
    text = {
        ".jsonl": "".join(json.dumps(row) + "\n" for row in rows),
        ".json": json.dumps(rows),
        ".csv": "id,text\n" + "".join(f'{row["id"]},"{row["text"]}"\n' for row in rows),
    }[ending]
    head = read(storage, root, f"a{ending}{packed}", PACKED[packed](text.encode()))
    assert head.estimated
    # Bzip2 works in blocks of 900 kB, so that little is known after two.
    assert 0.8 * len(rows) < head.rows < (1.6 if packed == ".bz2" else 1.2) * len(rows)
    assert set(json.loads(head.shape)["fields"]) == {"id", "text"}


@pytest.mark.parametrize("packed", PACKED)
def test_rows_of_a_small_file_are_counted(storage: Storage, root: Path, packed: str) -> None:
    data = b'{"text": "one"}\n\nbroken\n{"text": "two"}'
    head = read(storage, root, f"a.jsonl{packed}", PACKED[packed](data))
    assert (head.rows, head.estimated) == (3, False)
    if packed:
        assert read(storage, root, f"a.jsonl{packed}", PACKED[packed](b"")).rows == 0
        with pytest.raises(UnreadableError, match="Truncated"):
            read(storage, root, f"a.jsonl{packed}", PACKED[packed](data)[:-3])


def test_a_first_row_that_is_longer_than_the_head_tells_nothing(storage: Storage, root: Path) -> None:
    head = read(storage, root, "a.jsonl", b'{"body": "' + b"x" * 3_000_000 + b'"}\n' * 2)
    assert (head.rows, head.estimated) == (1, True)
    assert json.loads(head.shape) == {}


def test_a_quote_that_the_head_cuts_is_no_damage(storage: Storage, root: Path) -> None:
    row = '"' + "one line of a text\n" * 20_000 + '"\n'
    head = read(storage, root, "a.csv", ("text\n" + row * 20).encode())
    assert 15 < head.rows < 25


def test_no_more_than_the_beginning_is_read(
    storage: Storage, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (root / "corpus/news/a.jsonl").write_bytes(b'{"text": "one"}\n' * 1_000_000)
    sizes: list[int] = []
    plain = type(storage).read_range

    def counted(self: Storage, info: ObjectInfo, start: int, size: int) -> bytes:
        sizes.append(size)
        return plain(self, info, start, size)

    monkeypatch.setattr(type(storage), "read_range", counted)
    head = heads.read(File(storage, storage.stat("corpus/news/a.jsonl")))
    assert head.rows == pytest.approx(1_000_000, rel=0.001)
    assert sum(sizes) <= 2**20


def test_a_file_that_is_neither_array_nor_lines_is_told(storage: Storage, root: Path) -> None:
    with pytest.raises(InputError, match="it starts with neither"):
        read(storage, root, "a.json", b"id,text\n")


def test_a_window_of_zstd_that_is_too_long_is_told_however_large_the_file(
    storage: Storage, root: Path
) -> None:
    parameters = zstandard.ZstdCompressionParameters.from_level(1, window_log=28)
    packer = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    noise = Random(1).randbytes(600_000).hex().encode()
    for text in (b'{"text": "one"}\n', b'{"text": "' + noise + b'"}\n'):
        data = packer.compress(text) + packer.flush()
        packer = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
        with pytest.raises(
            MistakenError, match=r"a window of more than 128 MiB\): compress it again without --long"
        ):
            read(storage, root, "a.jsonl.zst", data)
