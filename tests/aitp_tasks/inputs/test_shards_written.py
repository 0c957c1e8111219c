"""Files as other programs write them: what went in, as plain Python has it, is what is read."""

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import duckdb
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from aitp_tasks.config import SftText
from aitp_tasks.inputs import listing
from aitp_tasks.inputs.examples import Example
from aitp_tasks.inputs.rows import Refusal
from aitp_tasks.inputs.shards import Corpus, Sft
from aitp_tasks.storage import ObjectInfo, Storage, open_storage

TEXTS = [
    *("a\u2028b\u0085c\x0bd", "  lead and trail \r\n", "نص عربي \u200f test", "e\u0301 vs \u00e9"),
    *("👩\u200d👩\u200d👧 \ufeff x", "\ue000 \U0010fffd", "0", "null", "NaN", "007", "2024-01-01"),
    'a "quoted", text',
]
#: DuckDB is given them by a frame, so that it names what it reads.
_FRAME = pd.DataFrame({"text": TEXTS})
WRITERS: dict[str, Callable[[Path], Any]] = {
    "polars.parquet": lambda path: pl.DataFrame({"text": TEXTS}).write_parquet(path),
    "polars_categorical.parquet": lambda path: pl.DataFrame(
        {"text": TEXTS}, schema={"text": pl.Categorical}
    ).write_parquet(path),
    "polars.arrow": lambda path: pl.DataFrame({"text": TEXTS}).write_ipc(path, compression="zstd"),
    "polars_stream.arrow": lambda path: pl.DataFrame({"text": TEXTS}).write_ipc_stream(path),
    "polars.ndjson": lambda path: pl.DataFrame({"text": TEXTS}).write_ndjson(path),
    "polars.csv": lambda path: pl.DataFrame({"text": TEXTS}).write_csv(path, include_bom=True),
    "pandas.parquet": lambda path: pd.DataFrame({"text": TEXTS}, index=range(5, 17)).to_parquet(path),
    "pandas.json": lambda path: _FRAME.to_json(path, orient="records"),
    "pandas.tsv.gz": lambda path: _FRAME.to_csv(path, sep="\t"),
    "pandas.feather": lambda path: _FRAME.to_feather(path),
    "zero_groups.parquet": lambda path: _with_groups_of_none(path),
    **{
        f"duckdb_{codec}.parquet": lambda path, codec=codec: duckdb.from_df(_FRAME).write_parquet(
            str(path), compression=codec
        )
        for codec in ("uncompressed", "snappy", "gzip", "zstd", "brotli", "lz4_raw")
    },
    "duckdb.csv": lambda path: duckdb.from_df(_FRAME).write_csv(str(path)),
    **{
        f"{encoding}_{version}.parquet": lambda path, encoding=encoding, version=version: pq.write_table(
            pa.table({"text": TEXTS}),
            path,
            use_dictionary=False,
            column_encoding={"text": encoding},
            data_page_version=version,
        )
        for encoding in ("DELTA_BYTE_ARRAY", "DELTA_LENGTH_BYTE_ARRAY")
        for version in ("1.0", "2.0")
    },
}


def _with_groups_of_none(path: Path) -> None:
    table = pa.table({"text": TEXTS})
    with pq.ParquetWriter(path, table.schema) as writer:
        for part in (table[:0], table[:5], table[:0], table[:0], table[5:], table[:0]):
            writer.write_table(part)


def of(root: Path, folder: str, name: str, write: Callable[[Path], Any]) -> tuple[Storage, list[ObjectInfo]]:
    """The shards of a folder that a program has written."""
    path = root / folder / name
    path.parent.mkdir(parents=True)
    write(path)
    storage = open_storage(f"file://{root}")
    return storage, listing.of(storage, f"{folder}/").shards


@pytest.mark.parametrize("name", WRITERS)
def test_texts_are_read_as_they_were_written(tmp_path: Path, name: str) -> None:
    storage, (shard,) = of(tmp_path, "corpus/new", name, WRITERS[name])
    reader = Corpus(storage, shard, ["text"])
    assert list(reader.texts()) == TEXTS
    assert list(reader.texts(7)) == TEXTS[7:]
    assert list(reader.pick([1, 6, 11])) == [(row, TEXTS[row]) for row in (1, 6, 11)]


def _turns(*contents: str) -> list[dict[str, str]]:
    return [{"role": ("user", "assistant")[at % 2], "content": text} for at, text in enumerate(contents)]


CONVERSATIONS = [_turns(text, other) for text, other in zip(TEXTS, reversed(TEXTS), strict=True)]
CONVERSATIONS += [_turns("1", "2", "3", "4"), [{"role": "system", "content": " s\n"}, *_turns("a", "b")]]
_SET = [{"messages": turns} for turns in CONVERSATIONS]
SET_WRITERS: dict[str, Callable[[Path], Any]] = {
    "polars.parquet": lambda path: pl.DataFrame(_SET).write_parquet(path),
    "polars.ndjson": lambda path: pl.DataFrame(_SET).write_ndjson(path),
    "pandas.parquet": lambda path: pd.DataFrame(_SET).to_parquet(path),
    "pandas.csv": lambda path: pd.DataFrame({"messages": map(json.dumps, CONVERSATIONS)}).to_csv(path),
    "duckdb.json": lambda path: duckdb.from_arrow(pa.Table.from_pylist(_SET)).query(
        "made", f"copy made to '{path}' (array true)"
    ),
    "datasets": lambda path: datasets.DatasetDict(
        {
            "train": datasets.Dataset.from_list(_SET).select(range(9)),
            "test": datasets.Dataset.from_list(_SET).select(range(9, len(_SET))),
        }
    ).save_to_disk(path),
    "nested.parquet": lambda path: pq.write_table(
        pa.table({"messages": [json.dumps(turns) for turns in CONVERSATIONS]}).cast(
            pa.schema([("messages", pa.json_())])
        ),
        path,
    ),
}


@pytest.mark.parametrize("name", SET_WRITERS)
def test_conversations_are_read_as_they_were_written(tmp_path: Path, name: str) -> None:
    storage, shards = of(tmp_path, "sft/new", name, SET_WRITERS[name])
    found = [item for shard in shards for item in Sft(storage, shard, SftText.FIRST_TURNS).examples()]
    said = [item.messages for item in found if isinstance(item, Example)]
    assert sorted(map(json.dumps, said)) == sorted(map(json.dumps, CONVERSATIONS))
    assert len(found) == len(CONVERSATIONS)


@pytest.mark.parametrize("seed", range(20))
def test_parts_have_the_rows_of_the_whole_wherever_it_is_cut(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    lines = ['{"text": "ü\u2028b"}', '{"text": "x\\r"}', "", "  ", "{broken", '{"text": null}', "\t"]
    end, mark = chance.choice(["\n", "\r\n"]), chance.choice(["", "\ufeff"])
    data = (mark + end.join(chance.choices(lines, k=15)) + chance.choice(["", end, 2 * end])).encode()
    storage, (shard,) = of(tmp_path, "corpus/new", "a.jsonl", lambda path: path.write_bytes(data))

    def read(info: ObjectInfo) -> list[str]:
        items = Corpus(storage, info, ["text"]).texts()
        return [item.error_class if isinstance(item, Refusal) else item for item in items]

    whole = read(shard)
    for size in (1, 2, 3, 5, 8, 13, 34, 1000):
        cuts = [(first, min(first + size, len(data)) - 1) for first in range(0, len(data), size)]
        parts = [
            ObjectInfo(f"{shard.key}#bytes={first}-{last}", last - first + 1, shard.etag)
            for first, last in cuts
        ]
        assert [item for part in parts for item in read(part)] == whole
