"""A version's rows, read a row group at a time: compared with pyarrow's reading of all of them."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from aitp_tasks.dataset.export import SCHEMA, Export
from aitp_tasks.errors import InputError
from aitp_tasks.records import version_rows
from aitp_tasks.storage import Storage, open_storage

LINE, NAME = "line", "v1"
CALL: list[dict[str, Any]] = [
    {"role": "user", "content": "?"},
    {"role": "assistant", "content": "", "tool_calls": [{"function": {"name": "f", "arguments": {}}}]},
]


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    return open_storage(f"file://{tmp_path}")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "datasets" / LINE / NAME
    made.mkdir(parents=True)
    return made


def pair(number: int) -> dict[str, Any]:
    said = [{"role": "user", "content": f"q{number}"}, {"role": "assistant", "content": f"a{number}"}]
    return {
        "messages": said,
        "origin": "aitp",
        "pair_id": f"{number:08x}",
        "dump": "d",
        "source": f"s{number % 3}",
    }


def shards(folder: Path, rows: list[dict[str, Any]], count: int) -> None:
    """Rows in so many shards, in row groups of three."""
    (folder / "data").mkdir()
    for number in range(count):
        path = folder / f"data/train-{number:05}-of-{count:05}.parquet"
        pq.write_table(pa.Table.from_pylist(rows[number::count], SCHEMA), path, row_group_size=3)


@pytest.mark.parametrize(("count", "parts"), [(0, 1), (1, 1), (20, 1), (20, 3)])
def test_columns_and_rows_are_those_of_the_files(
    storage: Storage, folder: Path, count: int, parts: int
) -> None:
    sft = {"messages": CALL[:1], "origin": "sft"}
    shards(folder, [*map(pair, range(count)), sft], parts)
    wanted = pq.read_table(folder / "data").to_pylist()
    found = list(version_rows.columns(storage, LINE, NAME, ["pair_id", "source", "nobody's"]))
    assert [row for table in found for row in table.to_pylist()] == [
        {name: row[name] for name in ("pair_id", "source")} for row in wanted
    ]
    ids = [row["pair_id"] for row in wanted if row["pair_id"]]
    assert list(version_rows.pair_ids(storage, LINE, NAME)) == ids
    some = [*ids[::7], "nobody"]
    rows = version_rows.rows(storage, LINE, NAME, some)
    assert rows == {row["pair_id"]: row | {"tools": []} for row in wanted if row["pair_id"] in some}
    assert version_rows.rows(storage, LINE, NAME, []) == {}


def test_ids_are_found_by_their_beginning_letter_by_letter(storage: Storage, folder: Path) -> None:
    shards(folder, [pair(number) for number in range(300)], 2)
    ids = sorted(f"{number:08x}" for number in range(300))
    for beginning in ("", "0000001", "00000010", "000000100", "_", "%", ".*", "0000.0", "f"):
        wanted = [key for key in ids if key.startswith(beginning)]
        assert version_rows.starting_with(storage, LINE, NAME, beginning) == wanted


def test_turns_are_given_as_they_were_in_whichever_form_they_lie(storage: Storage, folder: Path) -> None:
    with Export(folder) as export:
        export.write([pair(1) | {"messages": CALL, "tools": [{"type": "function"}]}, pair(2)])
        export.close(LINE)
    found = version_rows.rows(storage, LINE, NAME, ["00000001", "00000002"])
    assert found["00000001"]["messages"] == CALL
    assert found["00000001"]["tools"] == [{"type": "function"}]
    assert found["00000002"]["messages"] == pair(2)["messages"]


def test_a_version_of_an_earlier_release_is_read(storage: Storage, folder: Path) -> None:
    table = pa.Table.from_pylist([pair(1)], SCHEMA).drop_columns(["version", "source", "prompts"])
    pq.write_table(table, folder / "data.parquet")
    (found,) = version_rows.columns(storage, LINE, NAME, ["pair_id", "source"])
    assert found.to_pylist() == [{"pair_id": "00000001"}]
    assert version_rows.rows(storage, LINE, NAME, ["00000001"])["00000001"]["dump"] == "d"


def test_what_is_damaged_or_missing_is_named(storage: Storage, folder: Path) -> None:
    shards(folder, [pair(number) for number in range(20)], 2)
    second = folder / "data/train-00001-of-00002.parquet"
    data = second.read_bytes()
    for broken in (b"", b"PAR1", data[:-40], data[:60] + b"\xff" * 200 + data[260:]):
        second.write_bytes(broken)
        with pytest.raises(InputError, match=r"train-00001-of-00002.parquet is damaged \(.*\): restore it"):
            for _ in version_rows.columns(storage, LINE, NAME, list(SCHEMA.names)):
                pass
    second.unlink()
    with pytest.raises(InputError, match="does not hold all shards of one dataset"):
        list(version_rows.pair_ids(storage, LINE, NAME))
