"""Planning: identity, packing, and clear refusals."""

from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aitp_tasks import plan
from aitp_tasks.config import RunConfig
from aitp_tasks.errors import InputError
from aitp_tasks.plan import UNREADABLE, pack
from aitp_tasks.run import Run, Shard
from tests.aitp_tasks.conftest import Configure, write_shard


def opened(config: RunConfig) -> Run:
    return Run.open(plan.execute(config)["run"])


def test_the_same_inputs_lead_to_the_same_run(configure: Configure, root: Path) -> None:
    first = plan.execute(configure())
    files = {path: path.stat().st_mtime_ns for path in root.rglob("plan.json")}
    assert plan.execute(configure())["run"] == first["run"]
    assert {path: path.stat().st_mtime_ns for path in root.rglob("plan.json")} == files
    assert (first["documents"], first["embed_units"]) == (12, 2)


def test_other_inputs_lead_to_another_run(configure: Configure, root: Path) -> None:
    runs = {plan.execute(configure())["run"], plan.execute(configure(difference={"tau": 0.5}))["run"]}
    write_shard(root / "corpus/news/news-00002.parquet", [{"text": "one more"}])
    runs.add(plan.execute(configure())["run"])
    assert len(runs) == 3


def test_a_run_of_several_dumps_labels_units_by_what_they_hold(configure: Configure, root: Path) -> None:
    write_shard(root / "corpus/books/books-00000.parquet", [{"text": "a book"}])
    run = opened(configure(dump="news+books"))
    assert [group.label for group in run.plan.groups] == [
        "books books-00000",
        "news news-00000–news-00001",
        "sums sums-00000",
    ]


def test_one_unreadable_shard_is_planned_and_left_to_its_unit(configure: Configure, root: Path) -> None:
    (root / "corpus/news/news-00001.parquet").write_bytes(b"PAR1 broken")
    run = opened(configure(plan={"group_bytes": 1}))
    rows = {shard.name: shard.rows for group in run.plan.groups for shard in group.shards}
    assert rows == {"news-00000": 6, "news-00001": UNREADABLE, "sums-00000": 8}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"dump": "olds"}, r"corpus/olds/ holds no .parquet shards: name one of \['news'\]"),
        ({"sft": "none"}, r"sft/none/ holds no .parquet shards: name one of \['sums'\]"),
        ({"text_columns": "body"}, r"news-0000.\.parquet has no column 'body' \(it has text\)"),
        ({"encoder": {"model": "/no/model"}}, "model folder /no/model does not exist"),
        (
            {"prompts": {"folder": "/no/prompts"}},
            "prompt /no/prompts/rewrite_shift_question.yaml cannot be read",
        ),
        ({"plan": {"max_fanout": 1}}, "max_fanout=1 is less than the 2 sources"),
    ],
)
def test_wrong_input_is_named(configure: Configure, changes: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        plan.execute(configure(**changes))


def test_an_empty_dump_is_named(configure: Configure, root: Path) -> None:
    for shard in (root / "corpus/news").iterdir():
        shard.unlink()
    with pytest.raises(InputError, match="none yet"):
        plan.execute(configure())


def test_a_shard_of_another_type_is_named(configure: Configure, root: Path) -> None:
    write_shard(root / "corpus/news/news-00001.parquet", pa.table({"text": [1, 2]}))
    with pytest.raises(InputError, match="news-00001.parquet: text is of type int64, not text"):
        plan.execute(configure())


def test_a_run_that_was_not_planned_is_named(root: Path) -> None:
    for uri, message in (
        ("file:///x", "not of the form"),
        (f"file://{root}/runs/news/0", "there is no plan"),
    ):
        with pytest.raises(InputError, match=message):
            Run.open(uri)


@given(st.lists(st.integers(1, 1000), min_size=1, max_size=60), st.integers(1, 3000))
def test_packing_keeps_every_shard_once_and_in_order(sizes: list[int], group_bytes: int) -> None:
    shards = [
        Shard(role="corpus", source="d", key=f"corpus/d/{number:05d}.parquet", etag="e", size=size, rows=1)
        for number, size in enumerate(sizes)
    ]
    groups = pack(reversed(shards), group_bytes)
    assert [shard for group in groups for shard in group.shards] == shards
    assert all(len(group.shards) == 1 or sum(s.size for s in group.shards) <= group_bytes for group in groups)


@given(st.integers(3, 40))
def test_fanout_is_bounded(max_fanout: int) -> None:
    shards = [
        Shard(role="corpus", source="d", key=f"corpus/d/{number:05d}.parquet", etag="e", size=100, rows=1)
        for number in range(200)
    ]
    groups = plan._within_fanout(pack(shards, 100), max_fanout)
    assert len(groups) <= max_fanout
    assert sum(len(group.shards) for group in groups) == 200
