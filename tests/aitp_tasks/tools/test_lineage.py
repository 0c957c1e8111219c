"""lineage: the way of a pair, from any version, with what is gone told as gone."""

import json
import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from aitp_tasks import cli
from aitp_tasks.records import digest, pairs, selected, versions
from aitp_tasks.records.run import Run, part_name, part_of
from aitp_tasks.storage import open_storage
from aitp_tasks.tools.dataset import leaving
from aitp_tasks.tools.lineage import way
from tests.aitp_tasks.conftest import write_shard
from tests.aitp_tasks.tools import nights
from tests.aitp_tasks.tools.dataset import catalog_cases as told
from tests.aitp_tasks.tools.nights import Nights
from tests.aitp_tasks.world import LINE

pytestmark = [pytest.mark.slow, pytest.mark.side_by_side]

Case = dict[str, Any]
CASES: dict[str, Case] = {case["id"]: case for case in told.LINEAGE}


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> Nights:
    return nights.of(tmp_path, monkeypatch, tmp_path_factory)


class Way:
    """Asks for the way of a pair, as a person does."""

    def __init__(self, made: Nights, capsys: pytest.CaptureFixture[str]) -> None:
        self.made, self._capsys = made, capsys

    def __call__(self, pair_id: str, *more: str) -> tuple[int, Any, str]:
        """Exit code, result, and what was printed for a person."""
        before = _objects(self.made)
        arguments = cli.parser().parse_args(
            ["lineage", "--config", str(self.made.config), *more, "--", pair_id]
        )
        code, result = cli._guarded(lambda: cli._run_stage(arguments))
        err = self._capsys.readouterr().err
        assert "Traceback" not in err
        assert _objects(self.made) == before
        return code, result, err

    def right(self, pair_id: str, *more: str) -> tuple[Any, str]:
        """Result and print of what works."""
        code, result, err = self(pair_id, *more)
        assert code == 0, err
        assert "\n" not in json.dumps(result)
        assert result.keys() >= set(told.LINEAGE_FIELDS)
        return result, err


def _objects(made: Nights) -> set[tuple[str, int]]:
    return {(str(path), path.stat().st_mtime_ns) for path in made.world.root.rglob("*") if path.is_file()}


@pytest.fixture
def ask(made: Nights, capsys: pytest.CaptureFixture[str]) -> Way:
    return Way(made, capsys)


def drawn(run: Run, doc_id: str) -> dict[str, Any]:
    """A document's row of the difference set, read by itself."""
    part = part_name(part_of(doc_id, run.part_count), run.part_count)
    (row,) = (row for row in selected.documents(run, part) if row["doc_id"] == doc_id)
    return row


def rewrite_row(made: Nights, version: str, pair_id: str, **values: Any) -> None:
    """Change what a version's file says of one pair."""
    folder = made.world.root / f"datasets/{LINE}/{made.names[version]}/data"
    (path,) = folder.glob("*.parquet")
    table = pq.read_table(path)
    rows = [row | values if row["pair_id"] == pair_id else row for row in table.to_pylist()]
    pq.write_table(pa.Table.from_pylist(rows, table.schema), path)


def test_the_way_of_a_pair_is_what_its_run_has_written(made: Nights, ask: Way) -> None:
    case = CASES["lineage-one"]["want"]
    (pair_id, _) = made.pairs["ne"]
    found, err = ask.right(pair_id)
    run, doc_id = made.run("v2"), pair_id.partition("-")[0]
    row = drawn(run, doc_id)
    (stored,) = (one for one in made.world.pairs_of(made.world.latest()) if one["pair_id"] == pair_id)
    assert found["in_version"]
    assert (found["found_in"], found["came_with"]) == (made.names["v3"], made.names["v2"])
    assert {name: found[name] for name in ("doc_id", "dump", "source", "shard", "row", "etag")} == {
        name: row[name] for name in ("doc_id", "dump", "source", "shard", "row", "etag")
    }
    assert found["coordinates"] == [row["x"], row["y"]]
    assert (found["density_ratio"], found["p_corpus"], found["p_sft"]) == (
        stored["density_ratio"],
        row["p_corpus"],
        row["p_sft"],
    )
    text = pq.read_table(made.world.root / row["shard"])["text"][row["row"]].as_py()
    assert digest.of_text(text) == doc_id
    assert (found["text"], found["span"], found["document"]["state"]) == (text, [0, len(text)], "there")
    assert found["prompt_digests"] == {name: one.digest for name, one in run.plan.prompts.items()}
    assert len(found["prompt_digests"]) == case["prompt_digests"]
    assert found["sampling"] == {name: one.sampling for name, one in run.plan.prompts.items()}
    assert (found["model"], found["model_identity"]) == (run.config.engine.label, run.plan.engine_identity)
    assert found["run"] == run.prefix
    assert [(gate["stage"], gate["passed"]) for gate in found["gates"]] == [
        ("rewrite", True), ("score", True), ("answer", True), ("assemble", True)
    ]  # fmt: skip
    assert found["gates"][1]["scores"]["quality"] == stored["quality"]
    # A model in a folder has no revision, and nothing else is missing.
    assert found["not_on_record"] == []
    said = [turn["content"] for turn in stored["messages"]]
    assert [found["question"], found["answer"]] == said
    for word in (doc_id, row["dump"], *said, text, run.prefix, *found["prompt_digests"].values()):
        assert word in err
    # lineage-twice: it is told the same again; that nothing is written is seen each time.
    assert ask.right(pair_id) == (found, err)
    # lineage-beginning.
    assert ask.right(pair_id[:50].upper())[0] == found


def test_a_pair_is_found_in_any_version_and_why_it_left_is_told(made: Nights, ask: Way) -> None:
    storage = open_storage(f"file://{made.world.root}")
    marked = pairs.marked_bad(storage, LINE)[0]
    (twin,) = set(made.pairs["north"]) - {marked}
    # lineage-of-left-pair
    found, err = ask.right(marked)
    assert not found["in_version"]
    assert (found["found_in"], found["came_with"]) == (made.names["v1"], made.names["v1"])
    assert found["left"] == {"reason": "marked_bad", "version": made.names["v2"]}
    assert f"not in {made.names['v3']}: marked_bad with {made.names['v2']}" in err
    assert found["mark"]["mark"] == "bad"
    assert found["gates"][-1]["passed"]
    found, _ = ask.right(twin)
    # Its text is the example's, whose place the index does not say.
    assert found["left"] == {"reason": "sft_twin", "version": made.names["v3"], "similarity": 1.0}
    assert found["found_in"] == made.names["v2"]
    assert ask.right(twin, "--version", made.names["v1"])[0]["in_version"]
    # lineage-in-several
    found, _ = ask.right(made.pairs["west"][0])
    assert (found["came_with"], found["in_version"]) == (made.names["v1"], True)
    # lineage-after-rollback: what latest does not build on is found all the same.
    storage.write(f"datasets/{LINE}/latest.json", json.dumps({"version": made.names["v1"]}).encode())
    found, err = ask.right(made.pairs["se"][0])
    assert found["found_in"] == made.names["v3"]
    assert found["left"] == {"reason": leaving.NOT_BUILT_ON, "version": None, "came_with": made.names["v3"]}
    # lineage-only-beside
    shutil.rmtree(made.world.root / f"datasets/{LINE}/{made.names['v3']}")
    storage.write(f"datasets/{LINE}/latest.json", json.dumps({"version": made.names["v2"]}).encode())
    found, _ = ask.right(made.pairs["se"][0])
    assert (found["found_in"], found["came_with"]) == (made.names["w2"], made.names["w2"])
    assert found["run"] == made.run("w2").prefix


def test_a_pair_that_came_into_no_version_is_told_with_the_gate_that_was_closed(
    made: Nights, ask: Way
) -> None:
    run = made.world.runs[-1]
    rows = pq.read_table(made.world.root / run.require_manifest("assemble").output("left_out")).to_pylist()
    (refused,) = (row for row in rows if row["question"].startswith("nw") and "d4.0" in row["question"])
    found, err = ask.right(refused["pair_id"])
    assert (found["found_in"], found["in_version"], found["run"]) == (None, False, run.prefix)
    assert found["left"]["reason"] == "answer_too_long"
    assert found["gates"][-1] | {"settings": None} == {
        "stage": "assemble", "passed": False, "reason": "answer_too_long", "settings": None
    }  # fmt: skip
    assert found["gates"][-1]["settings"]["assemble.max_answer_words"] == 1
    assert "assemble  not passed: answer_too_long" in err
    assert (found["dump"], found["document"]["state"]) == ("night-004", "there")
    # One that the answer's own gates have refused has no such row.
    part = part_name(part_of(refused["pair_id"], run.part_count), run.part_count)
    answers = run.require_manifest("answer", part).output("rows")
    table = pq.read_table(made.world.root / answers)
    mine = pc.equal(table["pair_id"], refused["pair_id"])
    columns = {
        "kept": pc.if_else(mine, False, table["kept"]),
        "reason": pc.if_else(mine, "refusal", table["reason"]),
    }
    for name, column in columns.items():
        table = table.set_column(table.schema.get_field_index(name), name, column)
    pq.write_table(table, made.world.root / answers)
    found, err = ask.right(refused["pair_id"])
    assert found["left"] == {"reason": "refusal", "version": made.names["v3"], "stage": "answer"}
    assert [gate["passed"] for gate in found["gates"]] == [True, True, False]
    assert "answer    not passed: refusal" in err


def test_of_a_deleted_document_the_text_is_what_the_run_has_kept(made: Nights, ask: Way) -> None:
    case = CASES["lineage-document-deleted"]["want"]
    (pair_id, _) = made.pairs["ne"]
    before, _ = ask.right(pair_id)
    (made.world.root / before["shard"]).unlink()
    found, err = ask.right(pair_id)
    assert found["document"]["state"] == "deleted"
    assert f"{before['shard']} was deleted" in err
    assert {name: found[name] for name in case["fields"]} == {name: before[name] for name in case["fields"]}
    assert (found["text"], found["document"]["text_from"]) == (before["text"], "run")
    assert before["text"] in err
    # Where the run has gone too, nobody has the text.
    shutil.rmtree(made.world.root / before["run"])
    found, err = ask.right(pair_id)
    assert (found["text"], found["span"]) == (None, None)
    assert {"text", "span", "etag", "coordinates", "sampling"} <= set(found["not_on_record"])
    assert found["question"] in err
    assert "document\n  not on record" in err


def test_a_shard_that_was_replaced_does_not_stand_for_the_document(made: Nights, ask: Way) -> None:
    (pair_id, _) = made.pairs["ne"]
    before, _ = ask.right(pair_id)
    shard = made.world.root / before["shard"]
    rows = pq.read_table(shard).to_pylist()
    changed = [dict(row) for row in rows]
    changed[before["row"]] = {"text": "another text that nobody has rewritten"}
    write_shard(shard, changed)
    found, err = ask.right(pair_id)
    assert found["document"]["state"] == "replaced"
    assert "holds another text by now: its shard was replaced" in err
    assert "another text that nobody" not in err + json.dumps(found)
    assert (found["text"], found["document"]["text_from"]) == (before["text"], "run")
    # Fewer rows, and another form.
    for other in ([rows[0]] if before["row"] else [], [{"title": "no text"}]):
        write_shard(shard, pa.Table.from_pylist(other, None if other else pa.schema([("text", pa.string())])))
        found, _ = ask.right(pair_id)
        assert (found["document"]["state"], found["text"]) == ("replaced", before["text"])
    # Written anew with the same rows, it is another object and holds the document.
    write_shard(shard, [*rows, {"text": "one more"}])
    found, err = ask.right(pair_id)
    assert (found["document"]["state"], found["document"]["text_from"]) == ("replaced", "bucket")
    assert "was replaced, but holds this document at the same row" in err
    # No Parquet at all.
    shard.write_bytes(b"PAR1")
    assert ask.right(pair_id)[0]["document"]["state"] == "replaced"


def test_a_run_that_was_deleted_leaves_what_the_version_says(made: Nights, ask: Way) -> None:
    (pair_id,) = made.pairs["west"]
    before, _ = ask.right(pair_id)
    shutil.rmtree(made.world.root / before["run"])
    found, err = ask.right(pair_id)
    same = (
        "doc_id",
        "dump",
        "source",
        "shard",
        "row",
        "density_ratio",
        "span",
        "text",
        "question",
        "answer",
        "run",
    )
    assert {name: found[name] for name in same} == {name: before[name] for name in same}
    assert "there is no plan at" in err
    assert "not on record" in err
    assert found["prompt_digests"] == {"answer": before["prompt_digests"]["answer"]}
    assert found["prompt_versions"] == before["prompt_versions"]
    assert found["document"]["state"] == "there"
    assert [gate["passed"] for gate in found["gates"]] == [None, None, None, True]
    # So for a pair that left: why is not guessed.
    storage = open_storage(f"file://{made.world.root}")
    marked = pairs.marked_bad(storage, LINE)[0]
    shutil.rmtree(made.world.root / made.run("v2").prefix)
    assert ask.right(marked)[0]["left"] == {"reason": leaving.NOT_ON_RECORD, "version": None}


def test_the_span_counts_characters_and_ends_at_the_cut(made: Nights, ask: Way) -> None:
    for name in ("lineage-span-cut", "lineage-span-counts-characters"):
        given = CASES[name]["given"]["pair"]
        text = given.get("document", "x" * given.get("document_characters", 0))
        assert way.span(text, given["cut_characters"]) == CASES[name]["want"]["span"]
    (pair_id,) = made.pairs["west"]
    rewrite_row(made, "v3", pair_id, cut_characters=10)
    found, err = ask.right(pair_id)
    assert found["span"] == [0, len(found["text"]) - 10]
    assert f"  {found['text'][:-10]}\n" in err
    assert found["text"] not in err
    # An earlier release has not written it.
    rewrite_row(made, "v3", pair_id, cut_characters=None)
    found, err = ask.right(pair_id)
    assert (found["span"], found["not_on_record"]) == (None, ["span"])


def test_texts_are_data(made: Nights, ask: Way) -> None:
    case, text = CASES["lineage-hostile-texts"], told.HOSTILE_TEXT
    (pair_id,) = made.pairs["west"]
    messages = [{"role": "user", "content": text}, {"role": "assistant", "content": text}]
    shard = "corpus/hostile/shard.parquet"
    write_shard(made.world.root / shard, [{"text": text}])
    rewrite_row(made, "v3", pair_id, messages=messages, shard=shard, row=0, doc_id=digest.of_text(text))
    pairs.mark(open_storage(f"file://{made.world.root}"), LINE, pair_id, pairs.Mark(mark="good", note=text))
    found, err = ask.right(pair_id)
    printed = err + json.dumps(found)
    assert not [word for word in case["want"]["says_not"] if word in printed]
    again = json.loads(json.dumps(found))
    assert [again[name] for name in ("text", "question", "answer")] == [text] * 3
    assert again["mark"]["note"] == text
    assert err.count("<script>alert(1)</script> {{7777*7777}}") == 4


@pytest.mark.parametrize(
    "pair_id",
    [
        "9" * 32,
        *(step[1] for step in CASES["lineage-hostile-id"]["do"]),
        "abcd",
        digest.of_text("home s0 is asked"),
    ],
)
def test_what_is_no_pair_is_refused_by_name(pair_id: str, ask: Way) -> None:
    code, result, err = ask(pair_id)
    assert (code, result) == (2, None)
    assert pair_id in err
    assert err.splitlines()[-1].startswith("error: ")


def test_two_pairs_that_begin_alike_are_not_told_apart_by_a_guess(made: Nights, ask: Way) -> None:
    (one, other) = sorted(made.pairs["ne"])
    assert one[:32] == other[:32]
    code, result, err = ask(one[:32])
    assert (code, result) == (2, None)
    assert f"2 pairs have ids that begin with {one[:32]}, among them {one}, {other}: give more digits" in err


def test_a_version_that_is_not_there_is_refused(ask: Way, made: Nights) -> None:
    code, _, err = ask(made.pairs["west"][0], "--version", "night-9")
    assert code == 2
    assert "night-9 is no version of aitp" in err
    # A damaged one holds up no other, unless it is asked for.
    name = made.names["w2"]
    (path,) = (made.world.root / f"datasets/{LINE}/{name}/data").glob("*.parquet")
    path.write_bytes(b"PAR1")
    code, _, err = ask(made.pairs["west"][0], "--version", name)
    assert (code, path.name in err) == (2, True)
    assert ask.right(made.pairs["west"][0])[0]["in_version"]
    assert ask("9" * 32)[0] == 2
    (path.parent.parent / "version.json").write_text("{}")
    assert ask.right(made.pairs["west"][0])[0]["in_version"]
    with pytest.raises(Exception, match=r"version.json cannot be read \(name, run, geometry\)"):
        versions.load(open_storage(f"file://{made.world.root}"), LINE, name)


#: Which test holds which case.
HELD = {
    "lineage-one": test_the_way_of_a_pair_is_what_its_run_has_written,
    "lineage-twice": test_the_way_of_a_pair_is_what_its_run_has_written,
    "lineage-beginning": test_the_way_of_a_pair_is_what_its_run_has_written,
    "lineage-of-left-pair": test_a_pair_is_found_in_any_version_and_why_it_left_is_told,
    "lineage-in-several": test_a_pair_is_found_in_any_version_and_why_it_left_is_told,
    "lineage-only-beside": test_a_pair_is_found_in_any_version_and_why_it_left_is_told,
    "lineage-after-rollback": test_a_pair_is_found_in_any_version_and_why_it_left_is_told,
    "lineage-document-deleted": test_of_a_deleted_document_the_text_is_what_the_run_has_kept,
    "lineage-shard-replaced": test_a_shard_that_was_replaced_does_not_stand_for_the_document,
    "lineage-run-collected": test_a_run_that_was_deleted_leaves_what_the_version_says,
    "lineage-span-cut": test_the_span_counts_characters_and_ends_at_the_cut,
    "lineage-span-counts-characters": test_the_span_counts_characters_and_ends_at_the_cut,
    "lineage-hostile-texts": test_texts_are_data,
    "lineage-hostile-id": test_what_is_no_pair_is_refused_by_name,
    "lineage-unknown": test_what_is_no_pair_is_refused_by_name,
    "lineage-sft-row": test_what_is_no_pair_is_refused_by_name,
    "lineage-ambiguous": test_two_pairs_that_begin_alike_are_not_told_apart_by_a_guess,
}


def test_each_case_has_a_test() -> None:
    assert HELD.keys() == CASES.keys()
