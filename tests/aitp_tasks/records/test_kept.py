"""Which texts embed keeps for the sample, and that they are those which it draws."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from aitp_tasks.config import Difference
from aitp_tasks.records import digest, kept
from aitp_tasks.records.kept import Keeper
from aitp_tasks.records.manifest import Manifest
from aitp_tasks.selection.sample import Sample
from aitp_tasks.storage import Storage, open_storage


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    return open_storage(f"file://{tmp_path}")


def written(storage: Storage, texts: list[str], share: float, seed: int = 0) -> Manifest:
    keeper = Keeper(seed, share)
    for row, text in enumerate(texts):
        keeper.see(row, text)
    return Manifest(stage="embed", label="x", outputs=keeper.write(storage, "embeddings/x"))


@pytest.mark.parametrize("seed", [0, 7])
def test_a_sample_draws_the_documents_whose_draws_are_smallest(storage: Storage, seed: int) -> None:
    texts = [f"text {row}" for row in range(500)]
    ids = [digest.of_text(text) for text in texts]
    sample = Sample(Difference(max_documents=20, seed=seed), 1.0)
    facts = {name: ["s"] * 500 for name in ("source", "dump", "shard", "etag")}
    sample.add(pa.table({"doc_id": ids, **facts, "row": range(500), "x": np.zeros(500)}))
    drawn = sample.documents()["doc_id"].to_pylist()
    assert drawn == sorted(sorted(ids, key=lambda doc_id: kept.draw(seed, doc_id))[:20])
    rows = kept.read(storage, written(storage, texts, 0.1, seed))
    assert {texts.index(text): text for text in rows.values()} == rows
    assert set(drawn) <= {digest.of_text(text) for text in rows.values()}


def test_the_share_is_kept(storage: Storage) -> None:
    texts = [f"text {row}" for row in range(4000)]
    assert 0.015 < len(kept.read(storage, written(storage, texts, 0.02))) / 4000 < 0.025
    assert kept.read(storage, written(storage, texts, 1.0)) == dict(enumerate(texts))


def test_nothing_is_written_where_nothing_is_kept(storage: Storage) -> None:
    for texts, share in (([], 0.05), (["one"], 0.0)):
        made = written(storage, texts, share)
        assert made.outputs == {}
        assert kept.read(storage, made) == {}
    assert list(storage.list("")) == []


def test_a_shard_of_long_texts_keeps_those_that_come_first(
    storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = [f"{row} ".ljust(100, "x") for row in range(1000)]
    monkeypatch.setattr(kept, "_MOST_BYTES", 5000)
    found = kept.read(storage, written(storage, texts, 1.0))
    assert 10 <= len(found) <= 50
    order = sorted(range(1000), key=lambda row: kept.draw(0, digest.of_text(texts[row])))
    assert set(found) == set(order[: len(found)])


@pytest.mark.parametrize(
    ("wanted", "documents", "share"),
    [(20_000, 20_000_000, 0.016), (10, 2560, 0.0625), (10, 2559, 0.0), (732_000, 1000, 0.0), (5, 0, 0.0)],
)
def test_of_shards_that_give_many_none_is_kept(wanted: int, documents: int, share: float) -> None:
    assert kept.share(wanted, documents) == pytest.approx(share)


def test_what_is_gone_or_damaged_is_as_if_it_had_not_been_kept(storage: Storage, tmp_path: Path) -> None:
    made = written(storage, ["one", "two"], 1.0)
    (path,) = (tmp_path / "embeddings").rglob("*.parquet")
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    assert kept.read(storage, made) == {}
    path.unlink()
    assert kept.read(storage, made) == {}
