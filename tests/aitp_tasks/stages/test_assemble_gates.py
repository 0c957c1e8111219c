"""Gates of assemble in a run: what holds evaluation items, what is near, long or crowded; and the reports."""

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from aitp_tasks.errors import InputError
from aitp_tasks.records import data_files, generated
from aitp_tasks.records.run import Run
from aitp_tasks.report import samples
from aitp_tasks.stages import assemble, plan
from tests.aitp_tasks import made
from tests.aitp_tasks.conftest import Configure, alpaca
from tests.aitp_tasks.generation import test_part as test_generation
from tests.aitp_tasks.generation.test_part import SELECT_ALL, StandIn, good
from tests.aitp_tasks.stages.test_assemble import NOT_COMPARED, answered

pytestmark = [pytest.mark.slow, pytest.mark.side_by_side]

engine = test_generation.engine
small_models = test_generation.small_models


@pytest.fixture(autouse=True)
def encoder(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("stages.embed", "selection.contest", "selection.incoming"):
        monkeypatch.setattr(f"aitp_tasks.{module}.open_encoder", lambda *_: made.encoder())


ITEMS = [
    {"question": "What of Document 0-3?", "answer": "Because"},
    {"question": "Add 3 and one.", "answer": "The sum is 4."},
    {"question": "Who has never been asked of here?", "answer": "Nobody"},
]
OPEN = NOT_COMPARED | {"max_rewritten_share": 1.0}


def write_items(root: Path, items: list[dict[str, str]] = ITEMS) -> None:
    path = root / "evaluation/asked/test.jsonl"
    path.parent.mkdir(parents=True)
    path.write_text("".join(f"{json.dumps(item)}\n" for item in items))


def rows_of(root: Path, run: Run) -> list[str]:
    """Questions in the dataset."""
    return [row["messages"][0]["content"] for row in data_of(root, run)]


def data_of(root: Path, run: Run) -> list[dict[str, Any]]:
    """The dataset's rows."""
    keys = data_files.keys(run.require_manifest("assemble"))
    return [row for key in keys for row in pq.read_table(root / key).to_pylist()]


def tsv(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream, delimiter="\t", quoting=csv.QUOTE_NONE))


def test_what_holds_an_item_is_left_out_and_told(
    configure: Configure, root: Path, engine: type[StandIn]
) -> None:
    write_items(root)
    config = configure(**SELECT_ALL, assemble=OPEN, contamination={"sets": ["evaluation/asked"]})
    run = answered(config)
    result = assemble.execute(run)
    done = run.require_manifest("assemble")
    assert done.ledger is not None
    assert (result["pairs"], done.ledger.rejected["contaminated"]) == (23, 1)
    questions = rows_of(root, run)
    assert len(questions) == 31
    assert "What of Document 0-3 ?" not in questions
    assert "Add 3 and one." in questions
    (left,) = pq.read_table(root / done.output("left_out")).to_pylist()
    assert (left["reason"], left["like"]) == ("contaminated", "evaluation/asked/test.jsonl:0 (whole, 100%)")
    summary = {row["dataset"]: row for row in tsv(root / done.output("contamination"))}
    assert summary.keys() == {"new_pairs", "sft"}
    assert {name: (row["rows"], row["hits"], row["whole"]) for name, row in summary.items()} == {
        "new_pairs": ("24", "1", "1"),
        "sft": ("8", "1", "1"),
    }
    assert {row["share_touched"] for row in summary.values()} == {"0.333333"}
    hits = {row["dataset"]: row for row in tsv(root / done.output("contamination_hits"))}
    assert hits["sft"]["row"] == "sft/sums/sums-00000.parquet:3"
    assert (hits["new_pairs"]["row"], hits["new_pairs"]["spans"]) == (left["pair_id"], "0:0-5 1:2-7")
    (removed,) = json.loads((root / done.output("removals")).read_text())
    assert (removed["rule"], removed["new"], removed["sft"]) == ("contaminated", 1, 0)
    assert removed["examples"] == [
        {"id": left["pair_id"], "excerpt": "What of Document 0-3 ?", "like": left["like"], "similarity": None}
    ]
    assert done.figures["contamination"]["sets"] == {
        "evaluation/asked": {"items": 3, "layouts": ["GSM8K"], "refused": {}}
    }
    # A file that was replaced is another input.
    (root / "evaluation/asked/test.jsonl").write_text(json.dumps(ITEMS[2]) + "\n")
    assert plan.execute(config)["run"] != run.uri


def test_gates_of_texts_and_crowds_close_in_their_order(
    configure: Configure, root: Path, engine: type[StandIn]
) -> None:
    write_items(root)
    gates = {"max_text_similarity": 0.9, "min_question_words": 5, "max_pairs_per_source": 10, "mask": "email"}
    engine.respond = staticmethod(
        lambda stage, values: good(stage, values).replace("Because of", "Because, says a@b.org, of")
    )
    run = answered(
        configure(
            **SELECT_ALL,
            assemble=OPEN | gates,
            contamination={"sets": ["evaluation/asked"], "sft": "drop"},
        )
    )
    result = assemble.execute(run)
    done = run.require_manifest("assemble")
    assert done.ledger is not None
    rejected = {name: count for name, count in done.ledger.rejected.items() if count}
    # Twelve questions of four words; a pair and an example that hold an item; one more than ten of a source.
    assert rejected == {"question_too_short": 12, "contaminated": 2, "over_source_cap": 1}
    assert (result["pairs"], result["sft_examples"]) == (10, 7)
    assert "Add 3 and one." not in rows_of(root, run)
    answers = [row["messages"][1]["content"] for row in data_of(root, run) if row["origin"] == "aitp"]
    # What the report shows is what the dataset has.
    answers += [pair["answer"] for pair in samples.read(run, done, 12)]
    assert len(answers) > 10
    assert all(answer.startswith("Because, says [EMAIL], of") for answer in answers)
    assert done.figures["personal_data"]["new_pairs"] == {"email": {"found": 24, "masked": 24, "rows": 24}}
    told: list[dict[str, Any]] = json.loads((root / done.output("removals")).read_text())
    assert [(one["rule"], one["settings"]) for one in told] == [
        ("question_too_short", {"assemble.min_question_words": 5}),
        (
            "contaminated",
            {
                "contamination.ngram": 13,
                "contamination.min_share": 0.0,
                "contamination.max_similarity": 1.0,
            },
        ),
        ("over_source_cap", {"assemble.max_pairs_per_source": 10}),
    ]
    assert [len(one["examples"]) for one in told] == [10, 2, 1]


def test_what_says_the_same_is_found_in_the_index_and_among_new_pairs(
    configure: Configure, root: Path, engine: type[StandIn]
) -> None:
    items = [
        {"question": "Add up and down.", "answer": "No."},
        {"question": "What of it all?", "answer": "A"},
    ]
    write_items(root, items)
    compared = {"sets": "evaluation/asked", "max_similarity": 0.92}
    run = answered(configure(**SELECT_ALL, assemble=OPEN, contamination=compared))
    result = assemble.execute(run)
    done = run.require_manifest("assemble")
    hits = tsv(root / done.output("contamination_hits"))
    sought = [made.vector(f"{item['question']}\n{item['answer']}") for item in items]

    def nearest(text: str) -> float:
        values = made.vector(text)
        return max(float(one @ values / np.linalg.norm(one) / np.linalg.norm(values)) for one in sought)

    near = {
        f"sft/sums/sums-00000.parquet:{number}"
        for number, row in enumerate(alpaca(8))
        if nearest(f"{row['instruction']}\n{row['output']}") > 0.92
    }
    assert 0 < len(near) < 8
    assert {row["row"] for row in hits if row["dataset"] == "sft"} == near
    assert {row["rule"] for row in hits} == {"similar"}
    said = [(question, f"Because of {question}") for question in questions_of(run)]
    close = sum(nearest("\n".join(pair)) > 0.92 for pair in said)
    assert 0 < close < 24
    assert result["pairs"] == 24 - close
    assert sum(row["dataset"] == "new_pairs" for row in hits) == close


def questions_of(run: Run) -> list[str]:
    """Questions of all answers."""
    return [row["question"] for part in run.parts for row in generated.kept_rows(run, "answer", part)]


def test_what_is_no_evaluation_set_is_refused_at_plan(configure: Configure, root: Path) -> None:
    write_items(root, [{"frage": "Was?"}])
    (root / "evaluation/empty.jsonl").write_text("")
    (root / "evaluation/own.parquet").write_bytes((root / "sft/sums/sums-00000.parquet").read_bytes())
    for path, message in (
        ("evaluation/asked", "test.jsonl is of no layout that is known: it has frage"),
        ("evaluation/none", "evaluation/none is no file that is read"),
        ("evaluation/empty.jsonl", "has no row that is an object"),
        ("sft/sums", "is the SFT set's .*sft/sums/sums-00000.parquet"),
    ):
        with pytest.raises(InputError, match=message):
            plan.execute(configure(contamination={"sets": path}), check=True)


def test_a_set_that_says_what_the_sft_set_says_is_refused(
    configure: Configure, root: Path, engine: type[StandIn]
) -> None:
    write_items(root, [{"question": row["instruction"], "answer": row["output"]} for row in alpaca(8)])
    run = answered(configure(**SELECT_ALL, assemble=OPEN, contamination={"sets": "evaluation/asked"}))
    with pytest.raises(InputError, match="evaluation/asked says what the SFT set says: all its 8 items"):
        assemble.execute(run)


def test_earlier_pairs_leave_once_a_set_is_named_that_they_hold(
    configure: Configure, root: Path, engine: type[StandIn]
) -> None:
    first = assemble.execute(answered(configure(**SELECT_ALL, assemble=OPEN)))
    write_items(root)
    second = answered(configure(**SELECT_ALL, assemble=OPEN, contamination={"sets": "evaluation/asked"}))
    result = assemble.execute(second)
    done = second.require_manifest("assemble")
    assert (first["pairs"], result["pairs"], result["earlier_pairs"]) == (24, 0, 23)
    assert not result["unchanged"]
    assert done.figures["left"] == {"contaminated": 1}
    assert "What of Document 0-3 ?" not in rows_of(root, second)
    (left,) = pq.read_table(root / done.output("left_out")).to_pylist()
    assert (left["earlier"], left["reason"]) == (True, "contaminated")
    (removed,) = json.loads((root / done.output("removals")).read_text())
    assert (removed["new"], removed["earlier"]) == (0, 1)
