"""A version's folder as other programs load it: each row once, nothing else, in the columns that it has."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import get_dataset_config_names, load_dataset

from aitp_tasks.dataset import card, sections, shards
from aitp_tasks.dataset.export import SCHEMA, Export
from aitp_tasks.dataset.shards import Shards
from tests.aitp_tasks import handed
from tests.aitp_tasks.dataset.test_sharegpt import CALLING, of

#: Pairs and examples: enough for several row groups.
PAIRS, EXAMPLES = 1500, 2500
LARGE = 2**53 + 1
Reader = Callable[[Path], pd.DataFrame]


def pair(number: int) -> dict[str, Any]:
    return {
        "messages": [of("user", f"Question {number}?"), of("assistant", f"Answer {number}. " * 20)],
        "origin": "aitp",
        "pair_id": f"pair-{number}",
        "dump": "news",
        "row": LARGE + number,
        "quality": 1 + number % 10,
        "density_ratio": number / 7,
        "prompts": ["rewrite@1", "answer@2"],
    }


def example(number: int) -> dict[str, Any]:
    return {"messages": [of("user", f"Add {number}."), of("assistant", str(number))], "origin": "sft"}


@pytest.fixture(scope="module", params=["plain", "with tools"])
def version(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A version in several shards, with its card."""
    folder = tmp_path_factory.mktemp("version")
    further = [CALLING | {"origin": "sft"}] if request.param == "with tools" else []
    with pytest.MonkeyPatch.context() as patched, Export(folder) as export:
        patched.setattr(shards, "MOST_BYTES", 10_000)
        export.write(pair(number) for number in range(PAIRS))
        export.write([*map(example, range(EXAMPLES)), *further])
        export.close("aitp")
    card.write_texts(folder, handed.facts(export.told))
    (folder / sections.PICTURE).write_bytes(b"in the place of a picture")
    (folder / "version.json").write_text(json.dumps({"name": "news-1", "rows": export.told.rows}))
    (folder / "trained").mkdir()
    (folder / "trained/settings.json").write_text("{}")
    return folder


def stated(version: Path) -> int:
    rows: dict[str, int] = json.loads((version / "version.json").read_text())["rows"]
    return sum(count for name, count in rows.items() if name.endswith(".parquet"))


def by_datasets(folder: Path) -> pd.DataFrame:
    assert get_dataset_config_names(str(folder)) == ["default"]
    found = load_dataset(str(folder), cache_dir=str(folder.parent / f"cache-{folder.name}"))
    assert list(found) == ["train"]
    # As it gives rows to whoever trains: whole numbers, and None.
    return pd.DataFrame(list(found["train"]), dtype=object)


def by_datasets_without_the_card(folder: Path) -> pd.DataFrame:
    bare = folder.parent / f"{folder.name}-without-card"
    shutil.copytree(folder, bare, dirs_exist_ok=True)
    (bare / "README.md").unlink()
    return by_datasets(bare)


def by_pandas(folder: Path) -> pd.DataFrame:
    found = pd.read_parquet(folder / "data")
    assert {str(found[name].dtype) for name in ("row", "quality", "difficulty", "cut_characters")} == {
        "Int64"
    }
    return found.astype(object).where(found.notna(), None)


def by_pandas_file_by_file(folder: Path) -> pd.DataFrame:
    frames = [pd.read_parquet(path) for path in sorted(folder.glob("**/*.parquet"))]
    assert all(str(frame["row"].dtype) == "Int64" for frame in frames)
    found = pd.concat(frames).astype(object)
    return found.where(found.notna(), None)


def by_polars(folder: Path) -> pd.DataFrame:
    found = pl.read_parquet(f"{folder}/**/*.parquet")
    assert found.schema["row"] == pl.Int64
    return pd.DataFrame(found.to_dicts(), dtype=object)


def by_duckdb(folder: Path) -> pd.DataFrame:
    read = duckdb.sql(f"select * from read_parquet('{folder}/**/*.parquet')")
    return pd.DataFrame(read.fetchall(), columns=read.columns, dtype=object)


READERS: list[Reader] = [
    by_datasets,
    by_datasets_without_the_card,
    by_pandas,
    by_pandas_file_by_file,
    by_polars,
    by_duckdb,
]


@pytest.mark.parametrize("read", READERS, ids=lambda read: read.__name__)
def test_every_reader_finds_each_row_once(version: Path, read: Reader) -> None:
    found = read(version)
    assert len(found) == stated(version) >= PAIRS + EXAMPLES
    assert len(list((version / "data").iterdir())) > 2
    tools = {"tools"} & set(found.columns)
    assert list(found.columns) == ["messages", *sorted(tools), *SCHEMA.names[1:]]
    pairs = found[found["origin"] == "aitp"]
    assert sorted(pairs["pair_id"]) == sorted(f"pair-{number}" for number in range(PAIRS))
    assert found["pair_id"].notna().sum() == PAIRS
    for name in ("row", "quality", "density_ratio"):
        assert dict(zip(pairs["pair_id"], pairs[name], strict=True)) == {
            f"pair-{number}": pair(number)[name] for number in range(PAIRS)
        }
    first = next(row for row in pairs.to_dict("records") if row["pair_id"] == "pair-7")
    turns = [json.loads(turn) if isinstance(turn, str) else turn for turn in first["messages"]]
    assert turns == pair(7)["messages"]
    examples = found[found["origin"] == "sft"]
    assert examples["row"].isna().all()


@pytest.mark.parametrize("name", ["sharegpt.json", "alpaca.json"])
def test_the_json_files_have_the_ids_and_the_order_of_the_rows(version: Path, name: str) -> None:
    rows = json.loads((version / name).read_text())
    ids = pq.read_table(version / "data", columns=["pair_id"])["pair_id"].to_pylist()
    if len(rows) == len(ids):
        assert [row["pair_id"] or None for row in rows] == ids
    assert [row["pair_id"] for row in rows if row["pair_id"]] == [key for key in ids if key]
    # Every row has the same keys: readers that take columns from the first rows find them all.
    assert len({tuple(row) for row in rows}) == 1


def test_pairs_and_examples_are_mixed(version: Path) -> None:
    origins = pq.read_table(version / "data", columns=["origin"])["origin"].to_pylist()
    for start in range(0, len(origins) - 400, 400):
        share = origins[start : start + 400].count("aitp") / 400
        assert 0.25 < share < 0.5


def test_no_shard_is_larger_than_it_may_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shards, "MOST_BYTES", 400_000)
    made = Shards(tmp_path, SCHEMA)
    for number in range(40 * 1024):
        made.write(pair(number), 1)
    rows = made.close()
    sizes = [(tmp_path / name).stat().st_size for name in rows]
    # The last byte of a file is its footer's: a few thousand here.
    assert max(sizes) < 400_000 + 20_000
    assert sum(rows.values()) == 40 * 1024
    assert list(rows) == [f"data/train-{n:05}-of-{len(rows):05}.parquet" for n in range(len(rows))]
    assert [pq.read_metadata(tmp_path / name).num_rows for name in rows] == list(rows.values())
    read = pa.concat_tables([pq.read_table(tmp_path / name) for name in rows])
    assert read["row"].to_pylist() == [LARGE + number for number in range(40 * 1024)]


def test_a_row_larger_than_a_shard_has_one_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shards, "MOST_BYTES", 1)
    made = Shards(tmp_path, SCHEMA)
    for number in range(3):
        made.write(pair(number), 64 * 2**20 if number == 1 else 1)
    assert list(made.close().values()) == [2, 1]


def test_nothing_is_one_shard_without_rows(tmp_path: Path) -> None:
    assert Shards(tmp_path, SCHEMA).close() == {"data/train-00000-of-00001.parquet": 0}
    assert pq.read_table(tmp_path / "data").schema == SCHEMA


def test_equal_rows_give_equal_bytes_whatever_their_order(tmp_path: Path) -> None:
    rows = [*map(pair, range(20)), *map(example, range(20)), example(3)]
    written = []
    for number, order in enumerate((rows, rows[::-1])):
        folder = tmp_path / str(number)
        folder.mkdir()
        with Export(folder) as export:
            export.write(order)
            export.close("aitp")
        written.append({path.name: path.read_bytes() for path in folder.rglob("*") if path.is_file()})
    assert written[0] == written[1]
    assert set(written[0]) == {
        "train-00000-of-00001.parquet",
        "sharegpt.json",
        "alpaca.json",
        "dataset_info.json",
    }
