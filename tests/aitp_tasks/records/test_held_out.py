"""Who is held out: by identity alone."""

import random
from collections.abc import Sequence
from typing import Any

import pytest

from aitp_tasks.config import Evaluate
from aitp_tasks.records import digest, held_out
from tests.aitp_tasks.records.held_out_cases import CASES, Case, Item, holds

_IDS = [digest.of_text(f"text {number}") for number in range(20_000)]


@pytest.mark.parametrize("share", [0.0, 0.01, 0.1, 0.5, 1.0])
def test_about_the_share_is_held_out(share: float) -> None:
    count = sum(held_out.is_held_out(one, share) for one in _IDS)
    # Four standard deviations of a draw.
    assert abs(count - share * len(_IDS)) <= 4 * (share * (1 - share) * len(_IDS)) ** 0.5


def test_a_larger_share_holds_out_the_same_and_more() -> None:
    smaller, larger = ({one for one in _IDS if held_out.is_held_out(one, share)} for share in (0.05, 0.06))
    assert smaller < larger


def test_it_has_nothing_to_do_with_the_part_that_a_document_is_in() -> None:
    # Parts are cut by the first digits of the id.
    in_the_first_part = [one for one in _IDS if int(one[:8], 16) * 10 >> 32 == 0]
    count = sum(held_out.is_held_out(one, 0.1) for one in in_the_first_part)
    assert 0.07 < count / len(in_the_first_part) < 0.13


def _choose(items: Sequence[Item], share: Any) -> set[int]:
    # All is more than the setting takes.
    share = share if share == 1 and share is not True else Evaluate(held_out=share).held_out
    identities = [held_out.identity(item["text"]) for item in items]
    return {place for place, one in enumerate(identities) if held_out.is_held_out(one, share)}


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_as_an_outsider_would_choose(case: Case) -> None:
    assert holds(case, _choose), case["answer"]


def test_the_first_are_those_of_a_smaller_share_whatever_the_order() -> None:
    rows = [{"id": one} for one in _IDS]
    found = held_out.first(rows, "id", 100)
    shuffled = random.Random(0).sample(rows, len(rows))
    assert held_out.first(shuffled, "id", 100) == found
    share = held_out.place(found[-1]["id"]) / 2**64 * (1 + 1e-9)
    assert {row["id"] for row in found} == {one for one in _IDS if held_out.is_held_out(one, share)}
    assert len(held_out.first(rows[:3], "id", 100)) == 3


def test_half_of_any_share_is_for_choosing_and_the_same_half() -> None:
    ids = [digest.of_text(f"document {number}") for number in range(20_000)]
    chosen = {one for one in ids if held_out.is_validation(one)}
    for share in (0.02, 0.3, 1.0):
        held = [one for one in ids if held_out.is_held_out(one, share)]
        part = len(chosen.intersection(held)) / len(held)
        # Five standard deviations.
        assert abs(part - 0.5) < 5 * 0.5 / len(held) ** 0.5
    # By another hash than the order in which examples are taken, so that few of them are halved too.
    first = sorted(ids, key=held_out.place)[:400]
    assert abs(len(chosen.intersection(first)) / 400 - 0.5) < 5 * 0.5 / 400**0.5
