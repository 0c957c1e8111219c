"""The index stage after the stages before it: both kinds, repeats, reuse, damage."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from aitp_tasks.errors import InputError
from aitp_tasks.records import indexed, projected, vectors
from aitp_tasks.records.run import Run
from aitp_tasks.stages import density, embed, index, plan
from aitp_tasks.vector_index import quantiser
from aitp_tasks.vector_index.opened import OpenIndex
from tests.aitp_tasks import made
from tests.aitp_tasks.conftest import Configure, alpaca, write_shard

pytestmark = pytest.mark.slow

MakeRun = Callable[..., Run]
SHARDS = 3


def texts_of(shard: int) -> list[str]:
    """Two thirds of a shard's texts are its own."""
    return [f"c{row % 5} own {shard} {row}" for row in range(100)] + [
        f"c{row % 5} common {row}" for row in range(50)
    ]


@pytest.fixture
def make_run(root: Path, configure: Configure, monkeypatch: pytest.MonkeyPatch) -> MakeRun:
    """Takes three shards up to density; ``lists`` forces an index of so few lists."""
    monkeypatch.setattr(embed, "open_encoder", lambda *_: made.encoder())
    for shard in range(SHARDS):
        write_shard(
            root / f"corpus/news/news-{shard:05d}.parquet", [{"text": text} for text in texts_of(shard)]
        )
    write_shard(root / "sft/sums/sums-00000.parquet", alpaca(60))

    def make(lists: bool = False, **changes: Any) -> Run:
        if lists:
            monkeypatch.setattr(quantiser, "FLAT_VECTORS", 50)
            monkeypatch.setattr(quantiser, "_MOST_LISTS", 8)
        config = configure(plan={"group_bytes": 1}, **changes)
        return made.through(Run.open(plan.execute(config)["run"]), "density")

    return make


@pytest.mark.parametrize(("lists", "kind"), [(False, "flat"), (True, "inverted_lists")])
def test_texts_are_found_where_they_lie(make_run: MakeRun, root: Path, lists: bool, kind: str) -> None:
    import pyarrow.parquet as pq

    run = make_run(lists)
    result = index.execute(run)
    expected = {"kind": kind, "documents": 350, "repeated": 100, "collisions": 0}
    assert {name: result[name] for name in expected} == expected
    texts = sorted({text for shard in range(SHARDS) for text in texts_of(shard)})
    with OpenIndex(run.storage, indexed.keys(run, "corpus"), "corpus") as found:
        similarities, ids = found.search(np.stack([made.vector(text) for text in texts]), 5)
        places = found.places(ids[:, 0]).to_pylist()
    assert similarities[:, 0].min() > 0.97
    lying = [pq.read_table(root / place["shard"])["text"][place["row"]].as_py() for place in places]
    assert lying == texts


@pytest.mark.parametrize("lists", [False, True])
def test_the_sft_set_has_an_index_of_its_own(make_run: MakeRun, lists: bool) -> None:
    run = make_run(lists)
    done = run.require_manifest("merge")
    assert done.figures["sft_index"]["kind"] == ("inverted_lists" if lists else "flat")
    with OpenIndex(run.storage, indexed.keys(run, "sft"), "sft") as found:
        similarities, ids = found.search(made.vector("Add 7 and one.\nThe sum is 8.")[None], 3)
        (first, *_) = found.places(ids[0]).to_pylist()
    assert (first["shard"], first["row"]) == ("sft/sums/sums-00000.parquet", 7)
    assert similarities[0, 0] > 0.97


def test_without_density_units_there_is_no_index(make_run: MakeRun, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(density, "execute", lambda *_: None)
    run = make_run()
    with pytest.raises(InputError, match="density of .* has not been done"):
        index.execute(run)
    with pytest.raises(InputError, match="index has not been done .* run `aitp index` first"):
        OpenIndex(run.storage, indexed.keys(run, "corpus"), "corpus")


def test_a_second_run_reads_no_vector(make_run: MakeRun, monkeypatch: pytest.MonkeyPatch) -> None:
    first = make_run(True)
    index.execute(first)
    monkeypatch.setattr(vectors, "read", None)
    again = make_run(True, difference={"seed": 5})
    assert again.digest != first.digest
    assert index.execute(again)["documents"] == 350


def test_the_stage_reads_no_vector_where_codes_lie(
    make_run: MakeRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_run(True)
    monkeypatch.setattr(vectors, "read", None)
    assert index.execute(run)["documents"] == 350


def test_codes_outlive_another_geometry(make_run: MakeRun, monkeypatch: pytest.MonkeyPatch) -> None:
    first = make_run(True)
    keys = [key for group in first.plan.groups for key in projected.keys(first, group, "encoded")]
    assert [key is None for key in keys] == [False] * SHARDS + [True]
    times = [first.storage.stat(key).etag for key in keys if key]
    again = make_run(True, density={"components": 1})
    assert [key for group in again.plan.groups for key in projected.keys(again, group, "encoded")] == keys
    assert [first.storage.stat(key).etag for key in keys if key] == times


def test_codes_that_were_deleted_are_named(make_run: MakeRun) -> None:
    run = make_run(True)
    (key,) = projected.keys(run, run.plan.groups[0], "encoded")
    assert key is not None
    run.storage._path(key).unlink()  # type: ignore[attr-defined]
    with pytest.raises(InputError, match=f"{key} does not exist: .* run `aitp density` again"):
        index.execute(run)


def test_the_ledger_counts_every_row(make_run: MakeRun) -> None:
    run = make_run()
    index.execute(run)
    done = run.require_manifest("index")
    assert done.ledger is not None
    assert (done.ledger.rows_in, done.ledger.rows_out) == (450, 350)
    assert done.ledger.rejected == {"repeated_text": 100, "id_collision": 0}


@pytest.mark.parametrize("lists", [False, True])
def test_a_shard_without_texts_has_no_part_in_it(make_run: MakeRun, root: Path, lists: bool) -> None:
    write_shard(root / "corpus/news/news-00009.parquet", [{"text": " "}, {"text": ""}])
    run = make_run(lists, failure_budget=1.0)
    assert index.execute(run)["documents"] == 350


def test_a_deleted_density_comes_back_by_the_remedy_that_is_named(make_run: MakeRun, root: Path) -> None:
    run = make_run()
    group = next(group for group in run.plan.groups if group.role == "corpus")
    unit = run.manifest_key("density", group.digest)
    (deleted, *_) = (
        key for name, key in run.require_manifest("density", group.digest).outputs.items() if "shard-" in name
    )
    (root / deleted).unlink()
    with pytest.raises(InputError) as raised:
        index.execute(run)
    assert f"delete {run.storage.uri(unit)} and clear the density task of {group.label}" in str(raised.value)
    (root / unit).unlink()
    density.execute(run, run.plan.groups.index(group))
    assert index.execute(run)["documents"] == 350
