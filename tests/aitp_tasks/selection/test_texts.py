"""Texts of sampled documents over many shards, kept or not, whole, damaged and replaced."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from aitp_tasks.errors import InputError
from aitp_tasks.inputs.files import UnreadableError
from aitp_tasks.records import digest
from aitp_tasks.records.kept import Keeper
from aitp_tasks.records.manifest import Manifest
from aitp_tasks.selection.texts import Texts
from aitp_tasks.storage import ObjectInfo, Storage, open_storage

SHARDS, ROWS = 13, 40


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    return open_storage(f"file://{tmp_path}")


def key(number: int) -> str:
    return f"corpus/news/{number:05d}.parquet"


def text(number: int, row: int) -> str:
    return f"{number} text {row} " + "ä" * row


@pytest.fixture
def drawn(storage: Storage, tmp_path: Path) -> pa.Table:
    """Some rows of all shards, in no order."""
    (tmp_path / "corpus/news").mkdir(parents=True)
    for number in range(SHARDS):
        columns = {
            "text": [text(number, row) for row in range(ROWS)],
            "more": [f"more {row}" if row % 2 else None for row in range(ROWS)],
        }
        # Every third shard has an index of its pages.
        pq.write_table(
            pa.table(columns),
            tmp_path / key(number),
            row_group_size=1 + number * 5,
            write_page_index=number % 3 == 0,
        )
    random = np.random.default_rng(0)
    places = random.permutation([number * ROWS + row for number in range(SHARDS) for row in (0, 7, 21, 39)])
    infos = [storage.stat(key(number)) for number in range(SHARDS)]
    return pa.table(
        {
            "shard": [infos[place // ROWS].key for place in places],
            "etag": [infos[place // ROWS].etag for place in places],
            "row": [int(place % ROWS) for place in places],
        }
    )


def expected(drawn: pa.Table) -> list[str]:
    return [text(int(row["shard"][-13:-8]), row["row"]) for row in drawn.to_pylist()]


def embedded(storage: Storage, share: float) -> list[Manifest]:
    """What embed leaves of all shards but the last."""
    made = []
    for number in range(SHARDS - 1):
        keeper = Keeper(0, share)
        for row in range(ROWS):
            keeper.see(row, text(number, row))
        outputs = keeper.write(storage, f"embeddings/x/{number}")
        info = storage.stat(key(number))
        figures = {"shard": info.key, "etag": info.etag}
        made.append(Manifest(stage="embed", label="x", outputs=outputs, figures=figures))
    return made


def everything(storage: Storage, drawn: pa.Table, made: list[Manifest] | None = None) -> list[str]:
    with Texts(storage, ["text"], drawn, made or []) as texts:
        found: list[str] = texts.take(np.arange(len(drawn))).to_pylist()
    return found


def test_every_position_has_its_own_text(storage: Storage, drawn: pa.Table) -> None:
    with Texts(storage, ["text"], drawn) as texts:
        assert texts.take(np.arange(len(drawn))).to_pylist() == expected(drawn)
        assert texts.take(np.array([5, 0, 5])).to_pylist() == [expected(drawn)[place] for place in (5, 0, 5)]
        assert texts.take(np.array([], np.int64)).type == pa.large_string()


def test_of_no_document_nothing_is_read(storage: Storage, drawn: pa.Table) -> None:
    assert everything(storage, drawn.slice(0, 0)) == []


def test_several_columns_are_joined(storage: Storage, drawn: pa.Table) -> None:
    with Texts(storage, ["text", "more"], drawn) as texts:
        found = texts.take(np.arange(len(drawn))).to_pylist()
    rows = drawn["row"].to_pylist()
    assert found == [
        f"{whole}\nmore {row}" if row % 2 else whole for whole, row in zip(expected(drawn), rows, strict=True)
    ]


@pytest.mark.parametrize("share", [1.0, 0.5, 0.05, 0.0])
def test_whatever_was_kept_the_texts_are_the_same(storage: Storage, drawn: pa.Table, share: float) -> None:
    assert everything(storage, drawn, embedded(storage, share)) == expected(drawn)


def test_a_shard_whose_wanted_texts_were_all_kept_is_not_read(
    storage: Storage, drawn: pa.Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = embedded(storage, 1.0)
    read: set[str] = set()
    plain = storage.read_range

    def counted(info: ObjectInfo, start: int, size: int) -> bytes:
        read.add(info.key)
        return plain(info, start, size)

    monkeypatch.setattr(storage, "read_range", counted)
    assert everything(storage, drawn, made) == expected(drawn)
    assert read == {key(SHARDS - 1)}


def test_kept_texts_that_were_deleted_are_read_from_their_shard(
    storage: Storage, drawn: pa.Table, tmp_path: Path
) -> None:
    made = embedded(storage, 1.0)
    for number, path in enumerate(sorted((tmp_path / "embeddings").rglob("*.parquet"))):
        if number % 2:
            path.unlink()
        else:
            path.write_bytes(path.read_bytes()[:-9])
    assert everything(storage, drawn, made) == expected(drawn)


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_a_shard_that_was_replaced_is_noticed(
    storage: Storage, drawn: pa.Table, tmp_path: Path, share: float
) -> None:
    made = embedded(storage, share)
    pq.write_table(pa.table({"text": ["another"] * ROWS}), tmp_path / key(4))
    with pytest.raises(InputError, match=f"{key(4)} changed after it was embedded: start a new run"):
        everything(storage, drawn, made)


@pytest.mark.operation("shard-deleted")
def test_a_shard_that_was_deleted_is_named(storage: Storage, drawn: pa.Table, tmp_path: Path) -> None:
    (tmp_path / key(6)).unlink()
    with pytest.raises(InputError, match=f"{key(6)} is not there any more, .* upload it again"):
        everything(storage, drawn)


def test_a_text_that_is_not_the_documents_is_refused(storage: Storage, drawn: pa.Table) -> None:
    ids = [digest.of_text(whole) for whole in expected(drawn)]
    table = drawn.append_column("doc_id", pa.array(ids))
    assert everything(storage, table, embedded(storage, 0.5)) == expected(drawn)
    (place,) = (
        place for place, row in enumerate(drawn.to_pylist()) if (row["shard"], row["row"]) == (key(2), 21)
    )
    ids[place] = digest.of_text("another")
    table = drawn.append_column("doc_id", pa.array(ids))
    with pytest.raises(InputError, match=rf"row 21 of .*{key(2)} is damaged: it has another text"):
        everything(storage, table, embedded(storage, 1.0))


def test_a_kept_text_that_is_not_the_documents_is_not_used(storage: Storage, drawn: pa.Table) -> None:
    table = drawn.append_column("doc_id", pa.array([digest.of_text(whole) for whole in expected(drawn)]))
    made = embedded(storage, 1.0)
    swapped = [one.model_copy(update={"outputs": two.outputs}) for one, two in pairwise([*made, made[0]])]
    assert everything(storage, table, swapped) == expected(drawn)


def test_of_several_damaged_shards_the_first_is_named(
    storage: Storage, drawn: pa.Table, tmp_path: Path
) -> None:
    rows = drawn.to_pylist()
    for number in (9, 3):
        data = bytearray((tmp_path / key(number)).read_bytes())
        data[4 : len(data) // 2] = bytes(len(data) // 2 - 4)
        (tmp_path / key(number)).write_bytes(data)
        etag = storage.stat(key(number)).etag
        rows = [row | {"etag": etag} if row["shard"] == key(number) else row for row in rows]
    with pytest.raises(UnreadableError, match=f"{key(3)} is not readable as Parquet"):
        everything(storage, pa.Table.from_pylist(rows))
