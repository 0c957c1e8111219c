"""The dataset version: rows, provenance, ShareGPT and the pointer."""

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from aitp_tasks.records.run import Run
from aitp_tasks.stages import answer, assemble, rewrite, score
from tests.aitp_tasks.conftest import Configure, write_shard
from tests.aitp_tasks.generation import test_part as test_generation
from tests.aitp_tasks.generation.test_part import SELECT_ALL, StandIn, run_stage, up_to_difference

engine = test_generation.engine
small_models = test_generation.small_models


#: The stand-in's answers are all alike.
NOT_COMPARED = {"max_similarity": 1.0}


def assembled(config: Any) -> tuple[Run, dict[str, Any]]:
    run = up_to_difference(config)
    for stage in (rewrite, score, answer):
        run_stage(stage, run)
    return run, assemble.execute(run)


def test_every_pair_traces_back_to_its_document(
    configure: Configure, root: Path, engine: type[StandIn]
) -> None:
    run, result = assembled(configure(**SELECT_ALL, assemble=NOT_COMPARED | {"max_rewritten_share": 1.0}))
    rows = pq.read_table(root / assemble.version_key(run) / "data.parquet").to_pylist()
    pairs = [row for row in rows if row["origin"] == "aitp"]
    assert (result["pairs"], result["sft_examples"], len(rows)) == (24, 8, 32)
    for pair in pairs:
        text = pq.read_table(root / pair["shard"])["text"][pair["row"]].as_py()
        question, reply = (turn["content"] for turn in pair["messages"])
        assert text[:13] in question or question == "Which rivers are meant?"
        assert reply == f"Because of {question}"
        assert (pair["dump"], pair["quality"], pair["difficulty"]) == ("news", 8, 5)
        assert pair["prompt_digest"] == run.plan.prompts["answer"].digest
        assert pair["density_ratio"] > 0
        assert pair["cut_characters"] == 0


def test_sft_examples_keep_their_turns(configure: Configure, root: Path, engine: type[StandIn]) -> None:
    run, _ = assembled(configure(**SELECT_ALL))
    row = pq.read_table(root / assemble.version_key(run) / "data.parquet").to_pylist()[0]
    assert row["messages"] == [
        {"role": "user", "content": "Add 0 and one."},
        {"role": "assistant", "content": "The sum is 1."},
    ]
    assert (row["origin"], row["doc_id"]) == ("sft", None)


def test_sharegpt_holds_the_same_rows(configure: Configure, root: Path, engine: type[StandIn]) -> None:
    run, _ = assembled(configure(**SELECT_ALL))
    folder = root / assemble.version_key(run)
    rows = pq.read_table(folder / "data.parquet").to_pylist()
    shared = json.loads((folder / "sharegpt.json").read_text())
    assert [[turn["value"] for turn in row["conversations"]] for row in shared] == [
        [turn["content"] for turn in row["messages"]] for row in rows
    ]
    assert {turn["from"] for row in shared for turn in row["conversations"]} == {"human", "gpt"}
    info = json.loads((folder / "dataset_info.json").read_text())
    assert (folder / info["aitp"]["file_name"]).exists()
    latest = json.loads((folder.parent / "latest.json").read_text())
    assert latest["version"] == assemble.version(run)


@pytest.mark.parametrize(("share", "kept"), [(0.0, 0), (0.2, 2), (0.5, 8), (1.0, 24)])
def test_rewritten_pairs_keep_to_their_share(
    configure: Configure, engine: type[StandIn], share: float, kept: int
) -> None:
    run, result = assembled(configure(**SELECT_ALL, assemble=NOT_COMPARED | {"max_rewritten_share": share}))
    done = run.require_manifest("assemble")
    assert done.ledger is not None
    assert result["pairs"] == kept
    assert done.ledger.rejected == {
        "in_an_earlier_version": 0,
        "near_duplicate": 0,
        "over_rewritten_share": 24 - kept,
    }


def test_near_duplicates_are_left_out_and_told(
    configure: Configure, root: Path, engine: type[StandIn]
) -> None:
    run, result = assembled(configure(**SELECT_ALL, assemble={"max_rewritten_share": 1.0}))
    done = run.require_manifest("assemble")
    assert done.ledger is not None
    assert (result["pairs"], done.ledger.rejected["near_duplicate"]) == (12, 12)
    left_out = pq.read_table(root / done.output("near_duplicates")).to_pylist()
    kept = {row["pair_id"] for row in pq.read_table(root / done.output("pairs")).to_pylist()}
    assert {row["nearest_pair_id"] for row in left_out} <= kept
    assert not kept & {row["pair_id"] for row in left_out}


def test_nothing_selected_gives_the_sft_set_alone(configure: Configure, engine: type[StandIn]) -> None:
    _, result = assembled(configure(**SELECT_ALL | {"difference": {"tau": 1e-300}}))
    assert (result["pairs"], result["sft_examples"]) == (0, 8)


def test_sft_rows_without_an_answer_are_counted(
    configure: Configure, root: Path, engine: type[StandIn]
) -> None:
    rows = [{"instruction": "q", "input": "", "output": ""}, {"instruction": "r", "input": "", "output": "a"}]
    write_shard(root / "sft/sums/sums-00001.parquet", rows)
    run, _ = assembled(configure(**SELECT_ALL, failure_budget=0.5))
    done = run.require_manifest("assemble")
    assert done.ledger is not None
    assert done.ledger.quarantined == {"not_an_example": 1}
