"""Real files of every form and compression, whole and damaged, read row by row."""

import gzip
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from aitp_tasks.config import RunConfig, SftText
from aitp_tasks.errors import InputError
from aitp_tasks.inputs import json_rows, shards, streams, tables
from aitp_tasks.inputs.examples import Example, Rejection
from aitp_tasks.inputs.files import UnreadableError
from aitp_tasks.inputs.rows import Refusal
from aitp_tasks.inputs.shards import Corpus, Sft
from aitp_tasks.storage import ObjectChangedError, open_storage
from tests.aitp_tasks.conftest import Configure
from tests.aitp_tasks.inputs.packed import PACKED

SFT_ENDINGS = [".parquet", *(kind + packed for kind in (".json", ".jsonl") for packed in ("", ".gz", ".zst"))]
#: Every character that a text may have: all planes, no surrogates.
TEXTS = st.text(max_size=12)
#: The fixture only names a folder; and a busy machine is no fault.
_UNCHECKED = (HealthCheck.function_scoped_fixture, HealthCheck.too_slow)


class Files:
    """Writes input files below one root and opens their readers."""

    def __init__(self, root: Path, configure: Configure) -> None:
        self._root = root
        self._configure = configure
        self.storage = open_storage(f"file://{root}")

    def write(self, name: str, data: bytes) -> Path:
        path = self._root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        return path

    def config(self, **changes: Any) -> RunConfig:
        return self._configure(**changes)

    def corpus(self, table: pa.Table, row_group_size: int | None = None, **changes: Any) -> Corpus:
        path = self.write("corpus/news/shard.parquet", b"")
        pq.write_table(table, path, row_group_size=row_group_size)
        return Corpus(
            self.storage, self.storage.stat("corpus/news/shard.parquet"), self.config(**changes).text_columns
        )

    def sft(self, ending: str, data: bytes, **changes: Any) -> Sft:
        self.write(f"sft/sums/shard{ending}", data)
        return Sft(
            self.storage, self.storage.stat(f"sft/sums/shard{ending}"), self.config(**changes).sft_text
        )

    def sft_rows(self, ending: str, rows: list[Any], **changes: Any) -> Sft:
        """A shard of these rows, whatever its ending."""
        if ending == ".parquet":
            sink = pa.BufferOutputStream()
            pq.write_table(pa.Table.from_pylist(rows), sink, row_group_size=2)
            return self.sft(ending, sink.getvalue().to_pybytes(), **changes)
        kind, _, packed = ending[1:].partition(".")
        text = json.dumps(rows) if kind == "json" else "\n".join(map(json.dumps, rows))
        return self.sft(ending, PACKED[f".{packed}" if packed else ""](text.encode()), **changes)


@pytest.fixture
def files(root: Path, configure: Configure) -> Files:
    return Files(root, configure)


def outcome(found: Iterator[Any]) -> list[Any]:
    """Texts as they are, of examples the turns, of all else the class or reason in brackets."""
    return [
        f"<{item.error_class}>"
        if isinstance(item, Refusal)
        else f"<{item.reason}>"
        if isinstance(item, Rejection)
        else item.messages
        if isinstance(item, Example)
        else item
        for item in found
    ]


def in_form(form: str, question: str, answer: str) -> dict[str, Any]:
    if form == "alpaca":
        return {"instruction": question, "input": None, "output": answer}
    column, role, content, user, assistant = {
        "messages": ("messages", "role", "content", "user", "assistant"),
        "sharegpt": ("conversations", "from", "value", "human", "gpt"),
    }[form]
    return {column: [{role: user, content: question}, {role: assistant, content: answer}]}


@settings(max_examples=40, suppress_health_check=_UNCHECKED)
@given(st.lists(st.tuples(TEXTS, TEXTS), min_size=1, max_size=5), st.sampled_from(SftText))
def test_every_form_ending_and_compression_gives_the_same(
    files: Files, examples: list[tuple[str, str]], rule: SftText
) -> None:
    seen = set()
    for form in ("messages", "sharegpt", "alpaca"):
        rows = [in_form(form, *example) for example in examples]
        for ending in SFT_ENDINGS:
            reader = files.sft_rows(ending, rows, sft_text=rule)
            assert reader.form == f"{ending[1:]} {form}"
            texts, turns = outcome(reader.texts()), outcome(reader.examples())
            assert len(texts) == len(turns) == len(examples)
            assert [str(text)[:1] == "<" for text in turns] == [isinstance(turn, str) for turn in turns]
            examples_read = [getattr(turn, "messages", turn) for turn in turns]
            seen.add(json.dumps([texts, examples_read]))
    assert len(seen) == 1
    (texts, _) = json.loads(seen.pop())
    for text, (question, answer) in zip(texts, examples, strict=True):
        if question.strip().isprintable() and question.strip() and answer.strip():
            assert text == (question if rule is SftText.USER_TURNS else f"{question}\n{answer}")


@pytest.mark.parametrize("ending", SFT_ENDINGS)
@pytest.mark.parametrize("start", range(7))
def test_sft_texts_from_a_row_on_are_the_end_of_all_texts(files: Files, ending: str, start: int) -> None:
    rows = [in_form("messages", f"q{row}" if row % 2 else "", f"a{row}") for row in range(5)]
    reader = files.sft_rows(ending, rows)
    whole = outcome(reader.texts())
    assert whole == ["<no_user_turn>", "q1\na1", "<no_user_turn>", "q3\na3", "<no_user_turn>"]
    assert outcome(reader.texts(start)) == whole[start:]
    assert outcome(iter([reader.text_at(start)])) == (whole[start:] or [None])[:1]


@settings(max_examples=60, suppress_health_check=_UNCHECKED)
@given(
    st.lists(st.none() | st.text(max_size=30), min_size=1, max_size=30),
    st.integers(1, 12),
    st.integers(1, 200),
    st.integers(0, 32),
    st.sets(st.integers(0, 29)),
)
def test_corpus_texts_are_the_rows_in_order(
    files: Files, values: list[str | None], group: int, batch: int, start: int, wanted: set[int]
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tables, "_BATCH_BYTES", batch)
        reader = files.corpus(pa.table({"text": pa.array(values, pa.string())}), row_group_size=group)
        whole = list(reader.texts())
        assert (reader.rows, len(whole)) == (len(values), len(values))
        assert all(isinstance(text, Refusal) or text == values[row] for row, text in enumerate(whole))
        assert list(reader.texts(start)) == whole[start:]
        good = {row: text for row, text in enumerate(whole) if isinstance(text, str) and row in wanted}
        assert dict(reader.pick(set(good))) == good


def test_text_columns_are_joined_without_blanks(files: Files) -> None:
    table = pa.table(
        {
            "body": ["b", "", None, "b", " ", "\x00", "b"],
            "meta": [
                {"title": "t", "other": 1},
                {"title": "t", "other": 1},
                None,
                {"title": None, "other": 2},
                None,
                {"title": "\u3000", "other": 1},
                {"title": "t", "other": 1},
            ],
        }
    )
    reader = files.corpus(table, text_columns=["meta.title", "body"])
    assert reader.form == "parquet"
    expected = ["t\nb", "t", "<null>", "b", "<empty>", "<control_characters>", "t\nb"]
    assert outcome(reader.texts()) == expected
    assert dict(reader.pick({6, 0})) == {0: "t\nb", 6: "t\nb"}
    with pytest.raises(InputError, match=r"row 2 of .*shard.parquet had a text when it was embedded: .*null"):
        list(reader.pick({2}))


def test_one_column_that_is_not_utf8_refuses_the_row(files: Files) -> None:
    bad = pa.Array.from_buffers(pa.string(), 2, pa.array([b"\xff", b"good"], pa.binary()).buffers())
    reader = files.corpus(pa.table({"title": ["t", "t"], "text": bad}), text_columns=["title", "text"])
    assert outcome(reader.texts()) == ["<not_utf8>", "t\ngood"]


def test_row_groups_before_the_start_and_without_wanted_rows_are_not_read(
    files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    groups: list[int] = []
    plain = tables.Parquet._batches_of

    def counted(self: Any, file: Any, group: int, columns: Any) -> Any:
        groups.append(group)
        return plain(self, file, group, columns)

    monkeypatch.setattr(tables.Parquet, "_batches_of", counted)
    reader = files.corpus(pa.table({"text": [str(row) for row in range(50)]}), row_group_size=10)
    assert next(reader.texts(20)) == "20"
    assert groups == [2]
    groups.clear()
    assert list(reader.pick({49, 10, 19})) == [(10, "10"), (19, "19"), (49, "49")]
    assert groups == [1, 4]
    assert list(reader.texts(50)) == []
    assert list(reader.pick(set())) == []


@pytest.mark.parametrize("ending", [".parquet", *SFT_ENDINGS])
def test_an_empty_file_has_no_rows(files: Files, ending: str) -> None:
    if ending == ".parquet":
        schema = pa.schema([("messages", pa.null()), ("text", pa.string())])
        assert list(files.corpus(schema.empty_table()).texts()) == []
        sink = pa.BufferOutputStream()
        pq.write_table(schema.empty_table(), sink)
        reader = files.sft(ending, sink.getvalue().to_pybytes())
        assert (reader.form, reader.rows, list(reader.texts())) == ("parquet messages", 0, [])
        return
    if ending.count(".") == 2:
        with pytest.raises(UnreadableError, match="it is empty"):
            list(files.sft(ending, b"").texts())
    for data in (
        b"" if ending.count(".") == 1 else PACKED[Path(ending).suffix](b""),
        b"\n \n",
        PACKED[Path(ending).suffix if ending.count(".") == 2 else ""](b"\n"),
    ):
        if ending.count(".") == 2 and data.isspace():
            continue
        reader = files.sft(ending, data)
        assert (reader.rows, list(reader.texts()), list(reader.examples())) == (None, [], [])
        assert reader.form.startswith("jsonl")


GOOD = {"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]}
BAD_LINES = {
    b"{": "not_json",
    b"nonsense": "not_json",
    b'"\xff"': "not_utf8",
    b"[]": "not_an_example",
    b"7": "not_an_example",
    b"null": "not_an_example",
    b"{}": "not_an_example",
    b'{"messages": null}': "null",
    b'{"messages": []}': "no_turns",
    b'{"messages": "q"}': "not_json",
    b'{"messages": ["q"]}': "no_answer",
    b'{"messages": [null]}': "null",
    b'{"messages": [{"content": "q"}]}': "not_an_example",
    b'{"messages": [{"role": 7, "content": "q"}]}': "not_text",
    b'{"messages": [{"role": "user", "content": 7}]}': "not_text",
    b'{"messages": [{"role": "user", "content": {"a": "b"}}]}': "not_text",
    b'{"messages": [{"role": "user", "content": "\\ud800"}]}': "not_utf8",
    b'{"messages": [{"role": "user", "content": null}]}': "no_user_turn",
    b'{"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": "x"}]}]}': "multimodal",
}


@pytest.mark.parametrize("ending", [".jsonl", ".json", ".jsonl.gz", ".jsonl.zst"])
def test_a_bad_line_is_refused_with_its_class(files: Files, ending: str) -> None:
    good = json.dumps(GOOD | {"extra": [1, {}]}).encode()
    data = b"\r\n".join([good, *BAD_LINES, b'{"messages": 7, ' + good[1:]])
    reader = files.sft(ending, PACKED[Path(ending).suffix if ending.count(".") == 2 else ""](data))
    expected = ["q\na", *(f"<{refused}>" for refused in BAD_LINES.values()), "q\na"]
    assert outcome(reader.texts()) == expected
    assert [item if isinstance(item, str) else "q\na" for item in outcome(reader.examples())] == expected


def test_a_bad_item_of_an_array_is_refused_alone(files: Files) -> None:
    items = [line for line, refused in BAD_LINES.items() if refused != "not_json"]
    good = json.dumps(GOOD).encode()
    reader = files.sft(".json", b"[" + b",\n".join([good, *items, good]) + b"]")
    refused = [f"<{BAD_LINES[item]}>" for item in items]
    # The text that is no UTF-8 is a JSON string, and thus no object, too.
    assert outcome(reader.texts()) == ["q\na", "<not_an_example>", *refused[1:], "q\na"]


def test_each_row_decides_its_form(files: Files) -> None:
    alpaca = in_form("alpaca", "q", "a")
    reader = files.sft(".jsonl", b"oops\n" + json.dumps(GOOD).encode() + b"\n" + json.dumps(alpaca).encode())
    assert reader.form == "jsonl messages+alpaca"
    assert outcome(reader.texts()) == ["<not_json>", "q\na", "q\na"]
    nothing = files.sft(".jsonl", b"oops\n7\n")
    assert nothing.form == "jsonl"
    assert outcome(nothing.texts()) == ["<not_json>", "<not_an_example>"]


def test_what_is_no_sft_set_is_named(files: Files) -> None:
    reader = files.sft_rows(".parquet", [{"body": "t", "id": 1}])
    message = r"shard\..* is no SFT set: it needs one of messages, .*it has body, id"
    with pytest.raises(InputError, match=message):
        _ = reader.form
    with pytest.raises(InputError, match=message):
        next(reader.texts())
    (refused,) = files.sft_rows(".jsonl", [{"body": "t", "id": 1}]).texts()
    assert isinstance(refused, Refusal)
    assert "of no form that is known (messages, " in refused.message
    assert "it has body, id" in refused.message


@pytest.mark.parametrize("name", ["sft/sums/a.txt", "sft/sums/a.parquet.gz", "corpus/news/jsonl"])
def test_another_ending_is_named(files: Files, name: str) -> None:
    files.write(name, b"")
    role = name.partition("/")[0]
    with pytest.raises(InputError, match=rf"{name} is not read: its name must end in \.parquet"):
        shards.reader(files.storage, files.storage.stat(name), role, files.config())


WHOLE = json.dumps([GOOD] * 2000).encode()
LINES = b"\n".join([json.dumps(GOOD).encode()] * 2000)


@pytest.mark.parametrize(
    ("ending", "data", "message"),
    [
        (".json", WHOLE[:-50], r"JSON \(item 1999, byte \d+: "),
        (".json", WHOLE.replace(b"}]}, {", b"}]} {", 1), r"JSON \(item 0, byte \d+: neither a comma"),
        (".json", b"a,b\n1,2\n", r"JSON \(it starts with neither \[ nor \{\)"),
        (".json.gz", gzip.compress(WHOLE)[:-100], r"JSON.gz \(Truncated compressed stream\)"),
        (".jsonl.gz", gzip.compress(LINES)[:-100], r"JSON Lines.gz \(Truncated compressed stream\)"),
        (".jsonl.gz", gzip.compress(LINES)[:-8] + bytes(8), r"JSON Lines.gz \(.*incorrect data check\)"),
        (".jsonl.zst", PACKED[".zst"](LINES)[:-5], r"JSON Lines.zst \(Truncated compressed stream\)"),
        (".jsonl.zst", PACKED[".zst"](LINES)[:-4] + bytes(4), r"JSON Lines.zst \(ZSTD decompress failed"),
        (".parquet", b"PAR1", r"Parquet \("),
    ],
)
def test_a_damaged_file_is_named_with_its_place(files: Files, ending: str, data: bytes, message: str) -> None:
    with pytest.raises(
        UnreadableError,
        match=rf"shard{ending} is not readable as {message}.*: replace it, then clear its task",
    ):
        list(files.sft(ending, data).texts())


@pytest.mark.parametrize("place", [0.1, 0.5, 0.9])
def test_a_damaged_page_is_named(files: Files, place: float) -> None:
    table = pa.table({"text": [f"{row} " * 200 for row in range(3000)]})
    reader = files.corpus(table)
    path = Path(files.storage.root.removeprefix("file://")) / "corpus/news/shard.parquet"
    data = bytearray(path.read_bytes())
    at = int(len(data) * place)
    data[at : at + 400] = bytes(400)
    path.write_bytes(data)
    info = files.storage.stat("corpus/news/shard.parquet")
    with pytest.raises(UnreadableError, match=r"shard.parquet is not readable as Parquet"):
        list(Corpus(files.storage, info, files.config().text_columns).texts())
    # The first reader's version of the file is gone, which is another thing.
    with pytest.raises(ObjectChangedError):
        list(reader.texts())


@pytest.mark.parametrize("ending", SFT_ENDINGS)
def test_a_file_that_changes_is_no_damage(files: Files, ending: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "BUFFER", 64)
    monkeypatch.setattr(json_rows, "BUFFER", 64)
    random = Random(0)
    reader = files.sft_rows(
        ending, [in_form("alpaca", random.randbytes(500).hex(), "a") for _ in range(1000)]
    )
    texts = reader.texts()
    next(texts)
    files.sft_rows(ending, [in_form("alpaca", "q", "a")])
    with pytest.raises(ObjectChangedError):
        list(texts)


def test_a_disk_that_fails_is_no_damage(files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    reader = files.sft_rows(".jsonl.gz", [GOOD])

    def fails(*_: Any) -> bytes:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(type(files.storage), "read_range", fails)
    with pytest.raises(OSError, match="Input/output error"):
        list(reader.texts())


@pytest.mark.parametrize("ending", SFT_ENDINGS)
def test_rows_of_fifty_megabytes(files: Files, ending: str) -> None:
    long = "0123456789" * 5_000_000
    rows = [in_form("messages", "q", "a"), in_form("messages", long, "a"), in_form("messages", "q", "a")]
    lengths = [len(text) for text in files.sft_rows(ending, rows).texts() if isinstance(text, str)]
    assert lengths == [3, 50_000_002, 3]


_MEASURE = """
import resource, sys
from aitp_tasks.config import RunConfig
from aitp_tasks.inputs import shards
from aitp_tasks.storage import open_storage

config = RunConfig.model_validate_json(sys.argv[1])
storage = open_storage(config.root)
reader = shards.reader(storage, storage.stat(sys.argv[2]), sys.argv[3], config)
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
before = peak()
rows = sum(isinstance(text, str) for text in reader.texts())
print(rows, peak() - before)
"""


@pytest.mark.parametrize("name", ["corpus/news/big.parquet", "sft/sums/big.parquet", "sft/sums/big.json.zst"])
def test_memory_does_not_grow_with_the_file(files: Files, name: str) -> None:
    """A row group, or an array, of 200 MB."""
    texts = [f"{row} {'x' * 2500} {row}" for row in range(80_000)]
    role = name.partition("/")[0]
    path = files.write(name, b"")
    if name.endswith("zst"):
        rows = ({"instruction": text, "output": "a"} for text in texts)
        with zstandard.open(path, "wt") as stream:
            stream.write("[" + ",".join(map(json.dumps, rows)) + "]")
    else:
        names = ["text"] if role == "corpus" else ["instruction", "output"]
        table = pa.Table.from_arrays([pa.array(texts)] * len(names), names)
        pq.write_table(table, path, row_group_size=len(texts), use_dictionary=False, compression="none")
        assert pq.read_metadata(path).num_row_groups == 1
    config = files.config().model_dump_json()
    result = subprocess.run(
        [sys.executable, "-c", _MEASURE, config, name, role], check=True, capture_output=True, text=True
    )
    found, grown = map(int, result.stdout.split())
    assert found == len(texts)
    assert grown < 120


@pytest.mark.parametrize("ending", [".parquet", ".jsonl"])
def test_rows_without_a_source_are_counted_in_the_log(
    root: Path, ending: str, caplog: pytest.LogCaptureFixture
) -> None:
    rows = [{"text": "a", "site": site} for site in ("x", None, "", "y")]
    path = root / f"corpus/news/sites{ending}"
    if ending == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in [*rows, {"text": "b", "site": 1}]))
    storage = open_storage(f"file://{root}")
    reader = Corpus(storage, storage.stat(f"corpus/news/sites{ending}"), ["text"])
    count = 4 + (ending == ".jsonl")
    assert reader.sources("site") == ["x", "", "", "y", ""][:count]
    assert f"difference.source_column=site: {count - 2} of {count} rows have no text there" in caplog.text
    caplog.clear()
    reader.sources("text")
    assert not caplog.text


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("a.csv", b"text\nab\xe9c\n", "byte 0xe9, which is not UTF-8, at character 2 of 4"),
        ("a.json", b'[{"text": "ab\xe9c"}]', "byte 0xe9, which is not UTF-8, at character 2 of 4"),
        ("a.json", b'[{"text": "a\\ud800"}]', "lone surrogate at character 1 of 2"),
    ],
)
def test_bytes_that_are_not_utf8_are_told_as_such(root: Path, name: str, data: bytes, message: str) -> None:
    (root / "corpus/news" / name).write_bytes(data)
    storage = open_storage(f"file://{root}")
    (text,) = Corpus(storage, storage.stat(f"corpus/news/{name}"), ["text"]).texts()
    assert text == Refusal("not_utf8", message)


def test_the_first_row_of_json_that_is_cut_costs_itself_only(files: Files) -> None:
    for cut in (b'{"instruction": "cut', b'{"instruction": "cut",', b"{"):
        rows = [cut, json.dumps(in_form("alpaca", "q", "a")).encode()]
        assert outcome(files.sft(".json", b"\n".join(rows)).texts()) == ["<not_json>", "q\na"]


def test_pairs_of_earlier_versions_are_read_as_they_were_written(files: Files) -> None:
    mapping = {"formatting": "alpaca", "columns": {"prompt": "asked", "response": "said"}}
    config = files.config(examples={"mapping": mapping})
    rows = {
        "sft/sums/set.parquet": {"asked": "q", "said": "a"},
        "datasets/aitp/v/pairs.parquet": in_form("messages", "p", "b"),
    }
    texts = []
    for key, row in rows.items():
        pq.write_table(pa.Table.from_pylist([row]), files.write(key, b""))
        texts += shards.reader(files.storage, files.storage.stat(key), "sft", config).texts()
    assert texts == ["q\na", "p\nb"]
