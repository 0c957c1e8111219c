"""Rows beside several sets: which is told, and from which share on."""

import numpy as np
import pytest

from aitp_tasks.config import Contamination
from aitp_tasks.errors import InputError
from aitp_tasks.inputs.benchmarks import Item
from aitp_tasks.selection.contamination.guard import NEW, SFT, Guard
from aitp_tasks.selection.contamination.meanings import Meanings
from aitp_tasks.selection.contamination.sets import EvaluationSets
from tests.aitp_tasks import made

LONG = [" ".join(f"{name}{number}" for number in range(20)) for name in ("first", "second")]


def sets_of(**items: list[Item]) -> EvaluationSets:
    sets = EvaluationSets()
    for name, some in items.items():
        sets.names.append(name)
        sets.items += some
        sets.starts.append(len(sets.items))
    return sets


def guard(min_share: float = 0.0, **items: list[Item]) -> Guard:
    return Guard(sets_of(**items), Contamination(sets=tuple(items), min_share=min_share))


def test_a_row_is_told_for_each_set_and_left_out_for_the_strongest() -> None:
    held = guard(a=[Item(LONG[0], place="x:0")], b=[Item("none of it"), Item(LONG[1], place="y:1")])
    half = LONG[0].rsplit(" ", 6)[0]
    rows = [("row", "id", [half, LONG[1]], ""), ("clean", "id2", ["nothing"], "")]
    (_, found), (_, nothing) = held.looked_at(NEW, rows)
    assert nothing is None
    assert found is not None
    assert (found.item, found.share_of_item) == ("b/y:1", 1.0)
    assert held.report.tally("a", NEW).found[0].share_of_item == 0.7
    assert held.report.tally("b", NEW).touched == {1 + 1}
    assert held.report.rows(NEW) == 2


def test_a_share_below_the_least_is_none() -> None:
    half = LONG[0].rsplit(" ", 6)[0]
    for least, is_found in ((0.7, True), (0.71, False)):
        held = guard(least, a=[Item(LONG[0])])
        ((_, found),) = held.looked_at(NEW, [("row", "id", [half], "")])
        assert (found is not None) is is_found


def test_order_and_number_of_rows_stay_whatever_the_batches() -> None:
    held = guard(a=[Item(LONG[0])])
    rows = [(number, str(number), [LONG[0] if number % 7 == 0 else "x"], "") for number in range(700)]
    looked = list(held.looked_at(SFT, rows))
    assert [row for row, _ in looked] == list(range(700))
    assert [row for row, found in looked if found] == list(range(0, 700, 7))


def test_without_sets_rows_pass_and_nothing_is_counted() -> None:
    held = Guard(EvaluationSets(), Contamination())
    assert not held
    assert list(held.looked_at(NEW, [("row", "id", ["text"], "")])) == [("row", None)]
    assert held.close_to(["id"], np.zeros((1, 4), np.float16)) == [None]
    assert held.report.figures() == []


def test_a_set_that_the_sft_set_repeats_is_refused_and_one_that_it_holds_is_not() -> None:
    items = [Item(text) for text in LONG]
    for extra, refused in (([], True), (["something else"], False)):
        held = guard(a=items)
        rows = [(text, text, [text], "") for text in LONG + extra]
        list(held.looked_at(SFT, rows))
        if refused:
            with pytest.raises(InputError, match="a says what the SFT set says: all its 2 items"):
                held.require_other_than_sft()
        else:
            held.require_other_than_sft()


def test_meanings_are_those_of_all_cosines() -> None:
    items = [Item(f"topic{number % 5} {number}", f"so {number}") for number in range(40)] + [Item("", "")]
    texts = [f"topic{number % 7} other {number}" for number in range(60)] + [f"{items[3].question}\nso 3"]
    meanings = Meanings(items, made.encoder(), 0.9)
    values = np.stack([made.vector(text) for text in texts]).astype(np.float16)
    sought = np.stack([made.vector(f"{item.question}\n{item.answer}") for item in items[:-1]])

    def unit(vectors: np.ndarray) -> np.ndarray:
        exact = vectors.astype(np.float16).astype(np.float64)
        return np.asarray(exact / np.linalg.norm(exact, axis=1, keepdims=True))

    cosines = unit(values) @ unit(sought).T
    found = meanings.of(values)
    assert 5 < sum(near is not None for near in found) < 60
    for near, row in zip(found, cosines, strict=True):
        assert (near is not None) == (row.max() > 0.9)
        if near is not None:
            assert near.similarity == pytest.approx(row.max(), abs=2e-3)
            assert row[near.item] == pytest.approx(row.max(), abs=2e-3)
