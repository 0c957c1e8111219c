"""Parts of JSON Lines: wherever a file is cut, each row is of just one part."""

from itertools import chain
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from aitp_tasks.errors import InputError
from aitp_tasks.inputs import parts
from aitp_tasks.inputs.rows import Refusal
from aitp_tasks.inputs.shards import Corpus
from aitp_tasks.storage import ObjectInfo, Storage, open_storage

KEY = "corpus/news/a.jsonl"
LINES = st.sampled_from(
    [
        b'{"text": "one"}',
        b'{"text": "' + b"long " * 20 + b'"}',
        '{"text": "ü, 橋"}'.encode(),
        b"",
        b" ",
        b"broken",
        b'{"text": "\xff"}',
        b"\xef\xbb\xbf",
        b'\xef\xbb\xbf{"text": "marked"}',
    ]
)


def texts(storage: Storage, info: ObjectInfo) -> list[str]:
    found = Corpus(storage, info, ["text"]).texts()
    return [f"<{text.error_class}>" if isinstance(text, Refusal) else text for text in found]


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(st.lists(LINES, max_size=6), st.sampled_from([b"\n", b"\r\n"]), st.booleans(), st.integers(1, 200))
@example([b'{"text": "one"}'] * 3, b"\n", True, 16)
def test_wherever_a_file_is_cut_each_row_is_there_once(
    root: Path, lines: list[bytes], end: bytes, ended: bool, size: int
) -> None:
    (root / KEY).write_bytes(end.join(lines) + (end if ended else b""))
    storage = open_storage(f"file://{root}")
    whole = storage.stat(KEY)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parts, "_SMALLEST", 1)
        cut = list(parts.cut(whole, size))
    assert sum(part.size for part in cut) == whole.size
    assert [part for part in cut if part != parts.stat(storage, part.key)] == []
    assert [text for part in cut for text in texts(storage, part)] == texts(storage, whole)


def test_each_byte_of_a_file_may_be_where_it_is_cut(root: Path) -> None:
    data = b'\xef\xbb\xbf{"text": "one"}\r\n\n{"text": "two"}\n{"text": "three"}'
    (root / KEY).write_bytes(data)
    storage = open_storage(f"file://{root}")
    whole = storage.stat(KEY)
    for place in range(1, len(data)):
        ranges = (range(place), range(place, len(data)))
        cut = [f"{KEY}#bytes={part.start}-{part.stop - 1}" for part in ranges]
        found = [texts(storage, parts.stat(storage, key)) for key in cut]
        assert list(chain(*found)) == ["one", "two", "three"] == texts(storage, whole), place
        reader = Corpus(storage, parts.stat(storage, cut[1]), ["text"])
        assert [text for _, text in reader.pick(range(len(found[1])))] == found[1]
        assert list(reader.texts(1)) == found[1][1:]


def test_only_plain_json_lines_are_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts, "_SMALLEST", 1)
    cut = {
        name: [part.key for part in parts.cut(ObjectInfo(name, 10, "e"), 4)]
        for name in ("a.jsonl", "a.NDJSON", "a.json", "a.jsonl.gz", "a.csv", "a.parquet", "a.txt")
    }
    assert cut.pop("a.jsonl") == ["a.jsonl#bytes=0-3", "a.jsonl#bytes=4-7", "a.jsonl#bytes=8-9"]
    assert len(cut.pop("a.NDJSON")) == 3
    assert cut == {name: [name] for name in cut}
    assert [part.key for part in parts.cut(ObjectInfo("a.jsonl", 10, "e"), 10)] == ["a.jsonl"]


def test_a_part_of_a_file_that_was_replaced_is_refused() -> None:
    part = ObjectInfo(f"{KEY}#bytes=0-9", 10, "new")
    parts.require_planned(part, "new", "where")
    parts.require_planned(ObjectInfo(KEY, 10, "new"), "old", "where")
    with pytest.raises(InputError, match="where changed after it was planned.*start a new run"):
        parts.require_planned(part, "old", "where")


def test_what_looks_like_a_part_is_no_file_that_is_read(root: Path) -> None:
    storage = open_storage(f"file://{root}")
    name = f"{KEY}#bytes=0-9"
    (root / name).write_bytes(b"x")
    assert parts.find(storage, name) is None
    with pytest.raises(InputError, match=r"a\.jsonl does not exist"):
        parts.stat(storage, name)
