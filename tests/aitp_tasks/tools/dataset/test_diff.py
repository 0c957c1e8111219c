"""diff: compared with a plain comparison of all rows of both versions."""

import json
import random
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from aitp_tasks.config import RunConfig
from aitp_tasks.dataset.export import Export
from aitp_tasks.records import conversations, pairs
from aitp_tasks.tools.dataset import diff, leaving
from tests.aitp_tasks.conftest import Configure
from tests.aitp_tasks.tools.dataset.made_line import LINE, MadeLine


@pytest.fixture
def line(root: Path) -> MadeLine:
    return MadeLine(root)


@pytest.fixture
def config(configure: Configure) -> RunConfig:
    return configure()


def pair(question: str = "?", answer: str = "!", source: str = "s", dump: str = "d") -> dict[str, Any]:
    return {
        "question": question, "answer": answer, "source": source, "dump": dump,
        "doc_id": "0" * 32, "quality": 7, "difficulty": 5,
    }  # fmt: skip


def rows_of(line: MadeLine, name: str) -> list[dict[str, Any]]:
    return list(pq.read_table(line.root / f"datasets/{LINE}/{name}/data").to_pylist())


def said(row: dict[str, Any]) -> str:
    turns, tools = conversations.read(row["messages"], row.get("tools"))
    return json.dumps([turns, tools], sort_keys=True)


def set_sft(line: MadeLine, name: str, examples: list[dict[str, Any]]) -> None:
    """Write a version's rows anew, with these SFT examples."""
    folder = line.root / f"datasets/{LINE}/{name}"
    held = [
        {k: v for k, v in row.items() if v is not None}
        for row in rows_of(line, name)
        if row["origin"] == "aitp"
    ]
    for path in [*folder.glob("data/*"), folder / "data"]:
        path.unlink() if path.is_file() else path.rmdir()
    with Export(folder) as export:
        export.write([*({"origin": "sft", **example} for example in examples), *held])
        export.close(LINE)


@pytest.mark.parametrize("seed", range(3))
def test_it_tells_what_comparing_all_rows_tells(line: MadeLine, config: RunConfig, seed: int) -> None:
    random.seed(seed)
    every = [f"{number:032x}-{number:016x}-{number:016x}" for number in range(60)]
    held = {key: pair(key[:40], key, f"s{random.randrange(4)}", f"d{random.randrange(3)}") for key in every}
    first, second = (dict(random.sample(sorted(held.items()), 30)) for _ in range(2))
    gone = [key for key in first if key not in second]
    left = {key: random.choice(["marked_bad", "sft_twin"]) for key in gone if random.random() < 0.7}
    line.add("v1", first, sft_rows=5)
    line.add("v2", second, "v1", sft_rows=6, left=left)
    for name in ("v1", "v2"):
        # With repeats, so that how often counts.
        questions = [random.choice("abc") for _ in range(8)]
        set_sft(line, name, [{"messages": turns(question)} for question in questions])
    found = diff.execute(config, "v1", "v2")
    both = [[row for row in rows_of(line, name) if row["origin"] == "aitp"] for name in ("v1", "v2")]
    ids = [{row["pair_id"] for row in rows} for rows in both]
    assert found["added"]["ids"] == sorted(ids[1] - ids[0])
    assert found["removed_pairs"] == len(ids[0] - ids[1])
    assert found["unchanged_pairs"] == len(ids[0] & ids[1])
    reasons: dict[str, list[str]] = {}
    for key in sorted(ids[0] - ids[1]):
        reasons.setdefault(left.get(key, leaving.NOT_ON_RECORD), []).append(key)
    assert {reason: one["ids"] for reason, one in found["removed"].items()} == reasons
    for name in ("source", "dump"):
        counts = [Counter(row[name] for row in rows) for rows in both]
        wanted = {key: [count[key] / 30 for count in counts] for key in {**counts[0], **counts[1]}}
        assert found[f"share_by_{name}"] == {
            key: pytest.approx(value, abs=1e-6) for key, value in wanted.items()
        }
    sft = [
        Counter(said(row) for row in rows_of(line, name) if row["origin"] == "sft") for name in ("v1", "v2")
    ]
    assert found["sft"]["added"] == (sft[1] - sft[0]).total()
    assert sum(found["sft"]["removed"].values()) == (sft[0] - sft[1]).total()
    shown = [one for example in found["examples"] for one in example.values() if one]
    assert {one["pair_id"] for one in shown} <= ids[0] ^ ids[1]
    # The same ones each time.
    assert diff.execute(config, "v1", "v2") == found


def turns(question: str, **more: Any) -> list[dict[str, Any]]:
    return [{"role": "user", "content": question}, {"role": "assistant", "content": "!", **more}]


def test_an_example_is_the_same_in_whichever_form_its_file_has_turns(
    line: MadeLine, config: RunConfig
) -> None:
    plain, call = turns("a"), turns("b", reasoning_content="because")
    for name, base, examples in (("v1", None, [plain]), ("v2", "v1", [plain, call])):
        line.add(name, {}, base, sft_rows=len(examples))
        set_sft(line, name, [{"messages": example} for example in examples])
    types = [pq.read_schema(next((line.root / f"datasets/{LINE}/{v}/data").glob("*"))) for v in ("v1", "v2")]
    assert types[0].field("messages").type != types[1].field("messages").type
    found = diff.execute(config, "v1", "v2")["sft"]
    assert (found["added"], found["removed"]) == (1, {})


def test_of_sft_examples_that_a_gate_may_have_left_out_no_reason_is_guessed(
    line: MadeLine, config: RunConfig
) -> None:
    line.add("v1", {}, sft_rows=3)
    line.add("v2", {}, "v1", sft_rows=2)
    assert diff.execute(config, "v1", "v2")["sft"]["removed"] == {"sft_example_gone": 1}
    path = line.root / "runs/dump/v2/assemble/manifest.json"
    told = json.loads(path.read_text())
    told["figures"]["removed"] = {"held_out": {"new": 0, "earlier": 0, "sft": 1}}
    path.write_text(json.dumps(told))
    found = diff.execute(config, "v1", "v2")["sft"]
    assert found["removed"] == {"not_on_record": 1}
    assert found["left_out_by_gates"] == {"held_out": 1}


def test_a_question_with_another_answer_stands_side_by_side(
    line: MadeLine, config: RunConfig, capsys: pytest.CaptureFixture[str]
) -> None:
    question = "f" * 32 + "-" + "e" * 16
    before, after = f"{question}-{'0' * 16}", f"{question}-{'1' * 16}"
    others = {f"{number:032x}-{number:016x}-{number:016x}": pair() for number in range(20)}
    line.add("v1", {before: pair("Why?", "So.")} | dict(list(others.items())[:10]))
    line.add("v2", {after: pair("Why?", "Otherwise.")} | dict(list(others.items())[10:]), "v1")
    found = diff.execute(config, "v1", "v2")["examples"]
    assert (found[0]["before"]["answer"], found[0]["after"]["answer"]) == ("So.", "Otherwise.")
    assert len(found) == 4
    printed = capsys.readouterr().err
    assert "A: So." + " " * 62 + " | A: Otherwise." in printed


def test_a_version_whose_run_was_deleted_and_one_of_an_earlier_release(
    line: MadeLine, config: RunConfig
) -> None:
    line.add("v1", {"a" * 32: pair(), "b" * 32: pair()})
    line.add("v2", {"b" * 32: pair()}, "v1", left={"a" * 32: "marked_bad"})
    (line.root / "runs/dump/v2/assemble/manifest.json").unlink()
    folder = line.root / f"datasets/{LINE}/v1"
    (path,) = (folder / "data").glob("*.parquet")
    pq.write_table(pq.read_table(path).drop_columns(["version", "source"]), folder / "data.parquet")
    told = json.loads((folder / "version.json").read_text())
    (folder / "version.json").write_text(json.dumps(told | {"contents": None}))
    found = diff.execute(config, "v1", "v2")
    assert found["removed"] == {"not_on_record": {"pairs": 1, "ids": ["a" * 32]}}
    # Its dump stands for the source, as where no source is configured.
    assert found["share_by_source"] == {"d": [1.0, 0.0], "s": [0.0, 1.0]}
    assert found["changed_figures"]["rows"] == [102, 101]
    assert diff.execute(config, "v2", "v1")["added"]["came_with"] == {"not_on_record": 1}


def test_marks_of_people_are_counted_on_both_sides(line: MadeLine, config: RunConfig) -> None:
    line.add("v1", {"a" * 32: pair(), "b" * 32: pair()})
    line.add("v2", {"b" * 32: pair()}, "v1", left={"a" * 32: "marked_bad"})
    for key, mark in (("a", "bad"), ("b", "good"), ("c", "bad")):
        pairs.mark(line.storage, LINE, key * 32, pairs.Mark.model_validate({"mark": mark}))
    found = diff.execute(config, "v1", "v2")["changed_figures"]
    assert found["marked_bad"] == [1, 0]
    assert "marked_good" not in found
