"""Arrow IPC and Parquet: types that are read as others, checksums, and memory."""

import io
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from aitp_tasks.errors import InputError
from aitp_tasks.inputs import footers, tables
from aitp_tasks.inputs.files import File, UnreadableError
from aitp_tasks.inputs.shards import Corpus
from aitp_tasks.storage import ObjectInfo, Storage, open_storage

TEXTS = [f"text {number}" for number in range(2500)]


def written(root: Path, name: str, data: bytes) -> tuple[Storage, ObjectInfo]:
    (root / "corpus/news" / name).write_bytes(data)
    storage = open_storage(f"file://{root}")
    return storage, storage.stat(f"corpus/news/{name}")


def parquet(table: pa.Table, **options: object) -> bytes:
    sink = io.BytesIO()
    pq.write_table(table, sink, **options)
    return sink.getvalue()


def ipc(table: pa.Table, stream: bool, rows: int = 1000, codec: str | None = None) -> bytes:
    sink = io.BytesIO()
    options = pa.ipc.IpcWriteOptions(compression=codec)
    with (pa.ipc.new_stream if stream else pa.ipc.new_file)(sink, table.schema, options=options) as writer:
        writer.write_table(table, max_chunksize=rows)
    return sink.getvalue()


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("codec", [None, "zstd"])
def test_arrow_is_read_from_any_row_on(root: Path, stream: bool, codec: str | None) -> None:
    table = pa.table({"id": range(len(TEXTS)), "text": TEXTS})
    storage, info = written(root, "a.arrow", ipc(table, stream, codec=codec))
    reader = Corpus(storage, info, ["text"])
    assert (reader.form, reader.rows, list(reader.texts())) == ("arrow", None, TEXTS)
    for start in (1, 999, 1000, 1500, 2499, 2500, 9999):
        assert list(reader.texts(start)) == TEXTS[start:]
    assert dict(reader.pick([0, 1000, 2499])) == {row: TEXTS[row] for row in (0, 1000, 2499)}
    assert File(storage, info).count() == 2500


@pytest.mark.parametrize("stream", [True, False])
def test_rows_of_arrow_are_estimated_from_its_first_batch(root: Path, stream: bool) -> None:
    storage, info = written(root, "a.arrow", ipc(pa.table({"text": TEXTS}), stream, rows=100))
    (footer,) = footers.read(storage, "corpus", "a", [info])
    assert footer is not None
    assert footer.estimated
    assert 2000 < footer.rows < 3000


def test_a_stream_of_arrow_that_is_cut_is_noticed_even_between_batches(root: Path) -> None:
    sink = io.BytesIO()
    table = pa.table({"text": TEXTS})
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
        whole_batches = sink.tell()
    for length in (8, 100, whole_batches, len(sink.getvalue()) - 1):
        storage, info = written(root, "a.arrow", sink.getvalue()[:length])
        with pytest.raises(UnreadableError, match=r"a\.arrow is not readable as Arrow IPC"):
            list(Corpus(storage, info, ["text"]).texts())


@pytest.mark.parametrize("codec", [None, "zstd"])
def test_what_follows_a_stream_of_arrow_is_not_dropped_in_silence(root: Path, codec: str | None) -> None:
    one = ipc(pa.table({"id": range(2500), "text": TEXTS}), True, codec=codec)
    for more in (one, ipc(pa.table({"other": [1]}), True), b"junk" + bytes(4), b"junk", bytes(8)):
        storage, info = written(root, "a.arrow", one + more)
        for columns in (["text"], ["id"]):
            with pytest.raises(UnreadableError, match="data follows its end"):
                for _ in File(storage, info).batches(columns):
                    pass
        with pytest.raises(UnreadableError, match="data follows its end"):
            File(storage, info).count()
    # What ends in zero bytes is not what ends with the mark.
    table = pa.table({"text": TEXTS, "number": pa.array([0] * 2500)})
    storage, info = written(root, "a.arrow", ipc(table, True, codec=codec)[:-8])
    with pytest.raises(UnreadableError, match="ends too early"):
        list(Corpus(storage, info, ["text"]).texts())


def test_streams_without_rows_or_with_dictionaries_are_whole(root: Path) -> None:
    coded = pa.array(["a", "b", "a"] * 500).dictionary_encode()
    for table in (pa.table({"text": pa.array([], pa.string())}), pa.table({"text": coded, "n": range(1500)})):
        storage, info = written(root, "a.arrow", ipc(table, True, rows=100))
        assert list(Corpus(storage, info, ["text"]).texts()) == table["text"].to_pylist()


def test_a_column_of_nothing_but_nulls_is_filled_in_no_row(root: Path) -> None:
    table = pa.table(
        {"text": ["a", None], "nothing": pa.nulls(2), "empty": pa.array([None, None], pa.string())}
    )
    storage, info = written(root, "a.parquet", parquet(table))
    assert File(storage, info).table.filled == {"text": 1, "nothing": 0, "empty": 0}


def json_column(values: list[str | None]) -> pa.Array:
    return pa.ExtensionArray.from_storage(pa.json_(pa.string()), pa.array(values))


@pytest.mark.parametrize("write", [parquet, lambda table: ipc(table, True), lambda table: ipc(table, False)])
def test_extension_types_are_read_as_they_are_stored(root: Path, write: Callable[[pa.Table], bytes]) -> None:
    nested = pa.StructArray.from_arrays([json_column(['{"b": 1}', None])], ["a"])
    table = pa.table(
        {"doc": json_column(['"one"', None]), "nested": nested, "id": pa.array([b"0" * 16] * 2, pa.uuid())}
    )
    storage, info = written(root, "a.parquet" if write is parquet else "a.arrow", write(table))
    assert next(iter(Corpus(storage, info, ["doc"]).texts())) == '"one"'
    assert next(iter(Corpus(storage, info, ["nested.a"]).texts())) == '{"b": 1}'
    # plan and embed read one schema.
    (footer,) = footers.read(storage, "corpus", "a", [info])
    assert footer is not None
    assert pa.ipc.read_schema(pa.py_buffer(footer.schema)).equals(File(storage, info).schema)
    with pytest.raises(InputError, match="id is of type fixed_size_binary"):
        list(Corpus(storage, info, ["id"]).texts())


def test_a_binary_column_is_refused_with_what_helps(root: Path) -> None:
    storage, info = written(root, "a.parquet", parquet(pa.table({"text": [b"one"]})))
    with pytest.raises(InputError, match=r"text is of type binary, not text: .*cast\('string'\)"):
        list(Corpus(storage, info, ["text"]).texts())


def test_a_page_of_another_checksum_is_noticed(root: Path) -> None:
    data = parquet(pa.table({"text": ["marker " * 9]}), compression="none", write_page_checksum=True)
    assert data.count(b"marker") > 1
    storage, info = written(root, "a.parquet", data.replace(b"marker", b"Marker", 1))
    with pytest.raises(UnreadableError, match="CRC|checksum"):
        list(Corpus(storage, info, ["text"]).texts())


def test_names_with_dots_are_columns_of_their_own(root: Path) -> None:
    table = pa.table({"a.b": ["dotted"], "a": [{"b": "nested", "c[0]": ["odd"]}]})
    storage, info = written(root, "a.parquet", parquet(table))
    for path, text in (("`a.b`", "dotted"), ("a.b", "nested"), ("a.`c[0]`[0]", "odd")):
        assert list(Corpus(storage, info, [path]).texts()) == [text]
    storage, info = written(root, "b.parquet", parquet(pa.table({"a.b": ["dotted"]})))
    with pytest.raises(InputError, match=r"has no column 'a' \(it has a.b\): write `a.b` in backquotes, or"):
        list(Corpus(storage, info, ["a.b"]).texts())


@pytest.mark.parametrize(
    "kind", [pa.list_(pa.string(), 2), pa.list_(pa.string()), pa.large_list(pa.string())]
)
def test_an_item_of_any_list_is_a_text(root: Path, kind: pa.DataType) -> None:
    table = pa.table({"l": pa.array([["a", "b"], None, ["c", "d"]], kind)})
    for name, data in (("a.parquet", parquet(table)), ("a.arrow", ipc(table, True))):
        storage, info = written(root, name, data)
        assert [str(text)[:1] for text in Corpus(storage, info, ["l[1]"]).texts()] == ["b", "R", "d"]


def test_of_a_large_row_group_no_dictionary_grows(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = [f"{number} " * 300 for number in range(20_000)]
    storage, info = written(root, "a.parquet", parquet(pa.table({"text": texts})))
    monkeypatch.setattr(tables, "_DICTIONARY_BYTES", 2**20)
    before, most = pa.total_allocated_bytes(), 0
    for count, text in enumerate(Corpus(storage, info, ["text"]).texts()):
        assert text == texts[count]
        most = max(most, pa.total_allocated_bytes() - before)
    assert most < sum(map(len, texts)) / 2


def test_rows_that_share_a_text_do_not_take_its_memory_each(root: Path) -> None:
    text = "x" * 2**20
    table = pa.table({"text": pa.array([text] * 1000)})
    storage, info = written(root, "a.parquet", parquet(table, use_dictionary=True))
    del table
    reader = Corpus(storage, info, ["text"])
    before, most, count = pa.total_allocated_bytes(), 0, 0
    tracemalloc.start()
    try:
        for read in reader.texts():
            most = max(most, pa.total_allocated_bytes() - before)
            assert read == text
            count += 1
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert count == 1000
    assert peak + most < 100 * 2**20
