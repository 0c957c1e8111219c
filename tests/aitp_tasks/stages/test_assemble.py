"""The dataset version: rows, provenance, ShareGPT and the pointer."""

import json
import shutil
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from aitp_tasks.records import conversations, published
from aitp_tasks.records.manifest import Manifest
from aitp_tasks.records.run import Run
from aitp_tasks.stages import answer, assemble, rewrite, score
from tests.aitp_tasks import tries
from tests.aitp_tasks.conftest import Configure, write_shard
from tests.aitp_tasks.generation import test_part as test_generation
from tests.aitp_tasks.generation.test_part import SELECT_ALL, StandIn, run_stage, up_to_difference

pytestmark = pytest.mark.slow

engine = test_generation.engine
small_models = test_generation.small_models


#: The stand-in's answers are all alike.
NOT_COMPARED = {"max_similarity": 1.0}


def assembled(config: Any) -> tuple[Run, dict[str, Any]]:
    run = answered(config)
    return run, assemble.execute(run)


def answered(config: Any) -> Run:
    run = up_to_difference(config)
    for stage in (rewrite, score, answer):
        run_stage(stage, run)
    return run


def test_every_pair_traces_back_to_its_document(
    configure: Configure, root: Path, engine: type[StandIn]
) -> None:
    run, result = assembled(configure(**SELECT_ALL, assemble=NOT_COMPARED | {"max_rewritten_share": 1.0}))
    rows = pq.read_table(root / assemble.version_key(run) / "data").to_pylist()
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
    rows = pq.read_table(root / assemble.version_key(run) / "data").to_pylist()
    (row,) = (row for row in rows if row["messages"][0]["content"] == "Add 0 and one.")
    assert row["messages"] == [
        {"role": "user", "content": "Add 0 and one."},
        {"role": "assistant", "content": "The sum is 1."},
    ]
    assert (row["origin"], row["doc_id"]) == ("sft", None)


def test_sharegpt_holds_the_same_rows(configure: Configure, root: Path, engine: type[StandIn]) -> None:
    run, _ = assembled(configure(**SELECT_ALL))
    folder = root / assemble.version_key(run)
    rows = pq.read_table(folder / "data").to_pylist()
    shared = json.loads((folder / "sharegpt.json").read_text())
    assert [[turn["value"] for turn in row["conversations"]] for row in shared] == [
        [turn["content"] for turn in row["messages"]] for row in rows
    ]
    assert {turn["from"] for row in shared for turn in row["conversations"]} == {"human", "gpt"}
    info = json.loads((folder / "dataset_info.json").read_text())
    assert (folder / info["aitp"]["file_name"]).exists()
    latest = json.loads((folder.parent / "latest.json").read_text())
    assert latest["version"] == assemble.version(run)


# Of eight examples; two pairs a document where half of one is expected.
@pytest.mark.parametrize(
    ("share", "documents", "kept"), [(0.0, 0, 0), (0.2, 5, 2), (0.5, 12, 8), (1.0, 12, 24)]
)
def test_rewritten_pairs_keep_to_their_share(
    configure: Configure, engine: type[StandIn], share: float, documents: int, kept: int
) -> None:
    run, result = assembled(configure(**SELECT_ALL, assemble=NOT_COMPARED | {"max_rewritten_share": share}))
    done = run.require_manifest("assemble")
    assert done.ledger is not None
    assert result["pairs"] == kept
    assert done.ledger.rejected == {
        "in_an_earlier_version": 0,
        "near_duplicate": 0,
        "over_rewritten_share": 2 * documents - kept,
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
    run, _ = assembled(configure(**SELECT_ALL))
    done = run.require_manifest("assemble")
    assert done.ledger is not None
    assert (done.ledger.quarantined, done.ledger.rejected["no_answer"]) == ({}, 1)


def test_all_that_an_example_says_is_in_the_version_and_told(
    configure: Configure, root: Path, engine: type[StandIn]
) -> None:
    call = {"id": "call_1", "type": "function", "function": {"name": "f", "arguments": '{"a": [1, null]}'}}
    turns = [
        {"role": "developer", "content": "Be brief."},
        {"role": "user", "content": "What is f?", "refusal": "none"},
        {"role": "assistant", "content": "I look.", "reasoning_content": "Hm.", "tool_calls": [call]},
        {"role": "tool", "content": "1", "tool_call_id": "call_1"},
        {"role": "assistant", "content": "One.", "weight": 0},
        {"role": "user", "content": "And now?"},
    ]
    tools = [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}]
    path = root / "sft/sums/more.jsonl"
    path.write_text(json.dumps({"messages": turns, "tools": tools, "rating": 5}) + "\n")
    run, _ = assembled(configure(**SELECT_ALL))
    folder = root / assemble.version_key(run)
    rows = pq.read_table(folder / "data").to_pylist()
    (found,) = [conversations.read(row["messages"], row["tools"]) for row in rows if row["tools"]]
    del turns[1]["refusal"]
    turns[2]["tool_calls"] = [call | {"function": {"name": "f", "arguments": {"a": [1, None]}}}]
    assert found == (turns, tools)
    figures = run.require_manifest("assemble").figures
    assert figures["not_kept"] == {"rating": 1, "messages[].refusal": 1}
    assert figures["examples"] == {
        "kept": dict.fromkeys(
            ["reasoning_content", "system", "tool_call_id", "tool_calls", "tools", "weight"], 1
        ),
        # It is in neither of the files that could lose something.
        "lost": {},
    }
    rows_in_all = len(rows)
    for name in ("sharegpt.json", "alpaca.json"):
        assert figures["contents"]["json_files"][name] == {
            "rows": rows_in_all - 1,
            "left_out": {"ends_without_assistant": 1},
        }
        card = (folder / "README.md").read_text()
        assert f"| `{name}` | {rows_in_all - 1} | 1 `ends_without_assistant` |" in card
    assert "| `reasoning_content` | 1 | 0 |" in card


#: Makes each try's pairs other ones.
_NAMED = "from aitp_tasks.stages import assemble as stage; stage.new_pairs.model_name = lambda run: name"
_SHARD = "data/train-00000-of-00001.parquet"
_FIXED = {
    *("README.md", _SHARD, "sharegpt.json", "alpaca.json", "dataset_info.json"),
    *("coverage.png", "croissant.json"),
}


def _check_version(root: Path, run: Run, name: str) -> None:
    """Each fixed name holds what the manifest's own try has written, byte for byte."""
    done = run.require_manifest("assemble")
    own, folder = root / done.output(published.ATTEMPT), root / assemble.version_key(run)
    files = _files(own)
    assert set(files) == _FIXED
    assert _files(folder) == files | {"version.json": (folder / "version.json").read_bytes()}
    told = json.loads((folder / "version.json").read_text())
    assert told["pairs"] == [done.output("pairs")]
    kept = pq.read_table(root / done.output("pairs"))
    assert set(kept["model"].to_pylist()) == {name}
    rows = pq.read_table(folder / "data").to_pylist()
    assert {row["model"] for row in rows if row["origin"] == "aitp"} == {name}
    assert json.loads((folder.parent / "latest.json").read_text())["version"] == assemble.version(run)


def _files(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()
    }


def _fixed(root: Path, run: Run) -> set[str]:
    return set(_files(root / assemble.version_key(run)))


def test_of_two_tries_one_is_the_version_whichever_dies_where(
    configure: Configure, root: Path, engine: type[StandIn], tmp_path: Path
) -> None:
    shares = [0.9, 0.8, 0.7, 0.6]
    runs = [answered(configure(**SELECT_ALL, assemble=NOT_COMPARED | {"dataset": f"line{number}",
            "max_rewritten_share": share})) for number, share in enumerate(shares)]  # fmt: skip
    # Both live: the second one to commit does not touch what the first has named.
    with tries.racing(runs[0].uri, tmp_path / "0", _NAMED) as (left, right):
        left.reach("commit")
        right.reach("commit")
        assert _fixed(root, runs[0]) == set()
        left.leave("commit")
        left.reach("committed")
        right.finish()
        _check_version(root, runs[0], "left")
        left.finish()
    _check_version(root, runs[0], "left")
    # One dies before it has committed: it never was.
    with tries.racing(runs[1].uri, tmp_path / "1", _NAMED) as (left, right):
        left.reach("commit")
        right.reach("commit")
        left.kill()
        assert _fixed(root, runs[1]) == set()
        right.finish()
    _check_version(root, runs[1], "right")
    # One dies when it has committed, and the other one's commit comes too late.
    with tries.racing(runs[2].uri, tmp_path / "2", _NAMED) as (left, right):
        right.reach("commit")
        left.leave("commit")
        left.reach("committed")
        left.kill()
        assert _fixed(root, runs[2]) == set()
        right.finish()
    _check_version(root, runs[2], "left")
    # Both die when the first file has its name: a third try finishes what was committed.
    with tries.racing(runs[3].uri, tmp_path / "3", _NAMED) as (left, right):
        left.leave("commit", "committed")
        left.reach("copied")
    assert len(_fixed(root, runs[3])) == 1
    assert assemble.execute(runs[3])["is_latest"]
    _check_version(root, runs[3], "left")


def test_a_version_of_an_earlier_release_is_done(
    configure: Configure, root: Path, engine: type[StandIn]
) -> None:
    run, result = assembled(configure(**SELECT_ALL))
    done = run.require_manifest("assemble")
    key = root / run.manifest_key("assemble")
    # As that release left it: the files under their names, and no try of which anything is told.
    outputs = {name: output for name, output in done.outputs.items() if name != published.ATTEMPT}
    key.write_text(Manifest(**done.model_dump() | {"outputs": outputs}).model_dump_json())
    shutil.rmtree(root / done.output(published.ATTEMPT))
    (root / run.key("assemble", "published")).unlink()
    before = {path: path.stat().st_mtime_ns for path in root.rglob("*") if path.is_file()}
    again = assemble.execute(Run.open(run.uri))
    assert {**again, "seconds": 0} == {**result, "seconds": 0}
    assert {path: path.stat().st_mtime_ns for path in root.rglob("*") if path.is_file()} == before
