"""What the page shows as pairs of the dataset is what the dataset holds."""

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from aitp_tasks.records import data_files
from aitp_tasks.report import samples
from tests.aitp_tasks.report.conftest import FinishRun


def test_pairs_that_were_answered_and_left_out_are_not_shown(finish_run: FinishRun) -> None:
    run = finish_run(selected=12)
    done = run.require_manifest("assemble")
    (key,) = data_files.keys(done)
    path = f"{run.storage.root}/{key}".removeprefix("file://")
    rows = pq.read_table(path)
    held = sorted(rows["pair_id"].to_pylist())[1::4]
    # Of an earlier version, with a smaller id than any.
    other = pa.table({**rows.slice(0, 1).to_pydict(), "pair_id": ["0"], "version": ["before"]}, rows.schema)
    kept = rows.filter(pc.is_in(rows["pair_id"], pa.array(held)))
    pq.write_table(pa.concat_tables([other, kept]), path)
    shown = samples.read(run, done, 12)
    assert [sample["pair_id"] for sample in shown] == held
    texts = {row["pair_id"]: row["messages"] for row in kept.to_pylist()}
    for sample in shown:
        assert [sample["question"], sample["answer"]] == [
            turn["content"] for turn in texts[sample["pair_id"]]
        ]
        assert sample["text"] == f"Document {int(sample['doc_id'], 16)} tells of rivers."
        assert sample["shard"] == "corpus/web/0.parquet"
    assert [sample["pair_id"] for sample in samples.read(run, done, 2)] == held[:2]


def test_a_run_without_pairs_shows_none(finish_run: FinishRun) -> None:
    run = finish_run(selected=0)
    assert samples.read(run, run.require_manifest("assemble"), 12) == []
