"""croissant.json: mlcroissant validates it, and reads through it what pyarrow reads."""

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import mlcroissant
import pyarrow.parquet as pq
import pytest
from datasets import load_dataset

from aitp_tasks.dataset import croissant, shards
from tests.aitp_tasks import handed
from tests.aitp_tasks.llama_factory import LlamaFactory

CALL = {"type": "function", "function": {"name": "f", "arguments": {"town": "Kiel"}}}


def made(folder: Path, given: list[dict[str, Any]], **changes: Any) -> Path:
    folder.mkdir()
    handed.version(folder, given, **changes)
    return folder


def opened(folder: Path) -> Any:
    found = mlcroissant.Dataset(jsonld=str(folder / croissant.NAME))
    assert not found.metadata.ctx.issues.errors
    return found


def read(folder: Path) -> list[dict[str, Any]]:
    """The records as mlcroissant gives them: texts as bytes, names with their record set's."""
    return [plain(record) for record in opened(folder).records("default")]


def plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {name.rpartition("/")[2]: plain(one) for name, one in value.items()}
    if isinstance(value, list):
        return [plain(one) for one in value]
    if isinstance(value, bytes):
        return value.decode()
    return value.item() if hasattr(value, "item") else value


def rows_of(folder: Path) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = pq.read_table(folder / "data").to_pylist()
    return rows


def in_order(rows: list[dict[str, Any]]) -> list[str]:
    return sorted(json.dumps(row, sort_keys=True) for row in rows)


def test_records_are_the_rows(tmp_path: Path) -> None:
    folder = made(tmp_path / "version", handed.rows(pairs=3, sft=2))
    found = read(folder)
    assert in_order(found) == in_order(rows_of(folder))
    # Whole numbers that no float holds, and what is absent.
    assert sorted(row["row"] for row in found if row["row"]) == [2**53 + 1, 2**53 + 2, 2**53 + 3]
    assert sum(row["doc_id"] is None for row in found) == 2


def test_all_shards_are_read_once_wherever_the_folder_lies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shards, "_GROUP_ROWS", 4)
    monkeypatch.setattr(shards, "MOST_BYTES", 1)
    folder = made(tmp_path / "version", handed.rows(pairs=4, sft=6))
    assert len(list((folder / "data").iterdir())) == 3
    moved = tmp_path / "moved"
    shutil.move(folder, moved)
    assert in_order(read(moved)) == in_order(rows_of(moved))
    told = json.loads((moved / croissant.NAME).read_text())
    digests = {one["contentUrl"]: one["sha256"] for one in told["distribution"] if "sha256" in one}
    assert digests == {
        path.relative_to(moved).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in (moved / "data").iterdir()
    }


def test_a_file_that_was_changed_is_found_out(tmp_path: Path) -> None:
    folder = made(tmp_path / "version", handed.rows())
    (path,) = (folder / "data").iterdir()
    data = path.read_bytes()
    (told,) = (
        one for one in json.loads((folder / croissant.NAME).read_text())["distribution"] if "sha256" in one
    )
    assert told["contentSize"] == f"{len(data)} B"
    path.write_bytes(data[:50] + bytes([data[50] ^ 1]) + data[51:])
    assert hashlib.sha256(path.read_bytes()).hexdigest() != told["sha256"]


def test_the_sft_set_alone_and_turns_as_json_are_read(tmp_path: Path) -> None:
    alone = made(tmp_path / "alone", handed.rows(pairs=0, sft=5))
    assert in_order(read(alone)) == in_order(rows_of(alone))
    given = handed.rows(pairs=1, sft=1)
    turns = [*given[1]["messages"], {"role": "assistant", "content": "", "tool_calls": [CALL]}]
    given[1] = given[1] | {"messages": turns, "tools": [CALL]}
    folder = made(tmp_path / "tools", given)
    found = read(folder)
    assert in_order(found) == in_order(rows_of(folder))
    (row,) = (row for row in found if row["tools"])
    assert ([json.loads(turn) for turn in row["messages"]], json.loads(row["tools"])) == (turns, [CALL])


def test_no_rows_are_no_error(tmp_path: Path) -> None:
    assert opened(made(tmp_path / "version", [], languages={}))


@pytest.mark.parametrize(
    ("assemble", "licence"),
    [
        ({}, None),
        ({"license": "cc-by-4.0"}, "Creative Commons Attribution 4.0"),
        ({"license": "other"}, "Other"),
        ({"license": "other", "license_name": "acme-1"}, "acme-1"),
        ({"license": "other", "license_link": "https://acme.example/terms"}, "https://acme.example/terms"),
    ],
)
def test_the_licence_is_the_configured_one(
    tmp_path: Path, assemble: dict[str, str], licence: str | None
) -> None:
    folder = made(tmp_path / "version", handed.rows(), config=handed.config(**assemble))
    text = (folder / croissant.NAME).read_text()
    assert json.loads(text).get("license") == licence
    opened(folder)
    assert croissant.relicensed(text, handed.settings(**assemble)) == text
    other = croissant.relicensed(text, handed.settings(license="mit"))
    assert json.loads(other)["license"] == "MIT"
    assert croissant.relicensed(other, handed.settings(**assemble)) == text


def test_nothing_beside_the_rows_is_taken_for_rows(tmp_path: Path) -> None:
    folder = made(tmp_path / "version", handed.rows())
    # With the card, and by the names alone.
    for number in range(2):
        found = load_dataset(str(folder), cache_dir=str(tmp_path / f"cache{number}"))
        assert {split: len(rows) for split, rows in found.items()} == {"train": 5}
        (folder / "README.md").unlink(missing_ok=True)


def test_llama_factory_reads_its_own_files_beside_it(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = made(tmp_path / "version", handed.rows())
    factory = LlamaFactory(tmp_path_factory.mktemp("llama-factory"))
    assert [len(factory.read(folder, name)) for name in ("aitp", "aitp_alpaca")] == [5, 5]


def test_each_split_has_records_of_its_own(tmp_path: Path) -> None:
    given = handed.rows(pairs=3, sft=4)
    folder = made(tmp_path / "version", given[1:], validation=given[:1])
    found = opened(folder)
    rows = {"default": "train", "validation": "validation"}
    assert [records.id for records in found.metadata.record_sets] == list(rows)
    for name, split in rows.items():
        table = pq.read_table(folder / f"data/{split}-00000-of-00001.parquet")
        assert in_order([plain(record) for record in found.records(name)]) == in_order(table.to_pylist())
