"""New and earlier pairs on their way: one reason each, and the SFT set passes whole."""

from typing import Any

import numpy as np

from aitp_tasks.config import RunConfig
from aitp_tasks.inputs.benchmarks import Item
from aitp_tasks.inputs.examples import Example, Rejection
from aitp_tasks.inputs.rows import Refusal
from aitp_tasks.records.earlier import Earlier
from aitp_tasks.records.vectors import Vectors
from aitp_tasks.selection.contamination.guard import EARLIER, Guard
from aitp_tasks.selection.contamination.sets import EvaluationSets
from aitp_tasks.selection.incoming import Incoming
from tests.aitp_tasks import made
from tests.aitp_tasks.selection.test_pair_gates import pair

ASKED = "Which of the seven old bridges over the northern canal was rebuilt in stone after the great flood?"
OTHER = "How do the keepers of the northern lighthouse know that a storm comes before the glass has fallen?"


def configured(**sections: Any) -> RunConfig:
    values = {"root": "file:///x", "dump": "d", "sft": "s", "encoder": {"model": "/m"}}
    values |= {"engine": {"model": "/m"}, "prompts": {"folder": "/p"}, "finetune": {"model": "/m"}}
    return RunConfig.model_validate(values | sections)


def example(question: str) -> Example:
    return Example([{"role": "user", "content": question}, {"role": "assistant", "content": "So."}])


def incoming(
    new: list[dict[str, Any]], before: list[dict[str, Any]] | None = None, **sections: Any
) -> Incoming:
    config = configured(**sections)
    sets = EvaluationSets(["asked"], [Item(ASKED, place="a:0")], [0, 1], {"asked": ["x"]}, {"asked": {}})
    rows = before or []
    earlier = Earlier(rows, [""] * len(rows), np.zeros((len(rows), 2)))
    guarded = Guard(sets if config.contamination.sets else EvaluationSets(), config.contamination)
    return Incoming(config, new, earlier, guarded)


def reasons(gated: Incoming) -> dict[str, str]:
    assert len({row["pair_id"] for row in gated.refused}) == len(gated.refused)
    return {row["pair_id"]: row["reason"] for row in gated.refused}


def test_each_pair_has_one_reason_and_all_are_accounted_for() -> None:
    new = [
        pair(0, ASKED, "Why?"),
        pair(1, OTHER, "The fifth, I think, and the sixth of them."),
        pair(2, OTHER, "The fifth, I think, and the sixth of these."),
        pair(3, f"In short: {OTHER}", "It is so."),
        pair(4, "What then is the use of bridges, and who pays?"),
        pair(5, "Warum sind die Brücken im Norden der Stadt aus Stein, und wer hat sie bezahlt?", "Alle."),
    ]
    settings = {"max_text_similarity": 0.8, "languages": "en", "min_answer_words": 1}
    gated = incoming(new, assemble=settings, contamination={"sets": "asked"})
    examples = [("s:0", example(f"In short: {OTHER}\nIt is so.")), ("s:1", example(ASKED))]
    assert [closed for _, closed in gated.watched(examples)] == [None, None]
    kept = [one["pair_id"] for one in gated.settle()]
    assert kept == ["0001", "0004"]
    assert reasons(gated) == {
        "0000": "contaminated",
        "0002": "near_text",
        "0003": "near_text",
        "0005": "other_language",
    }
    like = {row["pair_id"]: row["like"] for row in gated.refused}
    assert (like["0000"], like["0002"], like["0003"]) == ("asked/a:0 (ngram, 100%)", "0001", "s:0")


def test_the_sft_set_passes_whole_and_in_order() -> None:
    rows = [
        ("s:0", example("One?")),
        ("s:1", Rejection("no_answer", "none")),
        ("s:2", Refusal("empty", "none")),
        ("s:3", example(ASKED)),
    ]
    gated = incoming([], contamination={"sets": "asked", "sft": "drop"})
    passed = list(gated.watched(rows))
    assert [item for item, _ in passed] == [item for _, item in rows]
    assert [closed for _, closed in passed] == [None, None, None, "contaminated"]
    assert [one.row for one in gated.dropped] == ["s:3"]
    assert gated.guard.report.rows("sft") == 2


def test_earlier_pairs_that_hold_an_item_leave_and_shadow_nothing() -> None:
    before = [pair(8, ASKED), pair(9, OTHER, "Long known.")]
    new = [pair(0, OTHER, "Long known."), pair(1, "A new one of its own kind?")]
    gated = incoming(new, before, assemble={"max_text_similarity": 0.9}, contamination={"sets": "asked"})
    assert list(gated.watched([])) == []
    assert [one["pair_id"] for one in gated.settle()] == ["0001"]
    assert [(row["pair_id"], row["reason"], row["earlier"]) for row in gated.leaving.values()] == [
        ("0008", "contaminated", True)
    ]
    assert gated.guard.report.rows(EARLIER) == 2


def test_pairs_that_say_what_an_item_says_have_no_vector_handed_on() -> None:
    new = [pair(0, ASKED.split()[0], "x"), pair(1, "Alone?")]
    gated = incoming(new, contamination={"sets": "asked", "max_similarity": 0.5})
    from aitp_tasks.selection.contamination.meanings import Meanings

    gated.guard._meanings = Meanings([Item(ASKED)], made.encoder(), 0.5)
    values = np.stack([made.vector(ASKED), made.vector("Alone?")]).astype(np.float16)
    embedded = [(Vectors(["a", "b"], np.array([0, 1]), values), {})]
    ((found, _),) = gated.unlike_items(new, embedded)
    assert (found.doc_ids, found.rows.tolist()) == (["b"], [1])
    assert np.array_equal(found.values, values[1:])
    assert reasons(gated) == {"0000": "contaminated"}
    assert gated.refused[0]["similarity"] == 1.0


def test_by_default_everything_passes() -> None:
    new = [pair(number, ASKED) for number in range(3)]
    gated = incoming(new)
    assert [closed for _, closed in gated.watched([("s:0", example(ASKED))])] == [None]
    assert gated.settle() == new
    assert (gated.refused, gated.leaving, gated.dropped) == ([], {}, [])
