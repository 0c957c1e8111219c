"""Near-duplicates of text, beside the exact Jaccard index of all pairs of texts."""

import random

import pytest

from aitp_tasks.selection.near_texts import NearTexts
from aitp_tasks.texts import plain
from tests.aitp_tasks.selection.near_text_cases import CASES, NearText

LIMIT = 0.7


def shingles(text: str) -> set[tuple[str, ...]]:
    words = plain.split(text)
    length = min(3, len(words))
    return (
        {tuple(words[start : start + length]) for start in range(len(words) - length + 1)} if words else set()
    )


def jaccard(one: str, other: str) -> float:
    ours, theirs = shingles(one), shingles(other)
    return len(ours & theirs) / max(len(ours | theirs), 1)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_cases_of_somebody_who_had_not_read_the_code(case: NearText) -> None:
    two = NearTexts([("left", case.left), ("right", case.right)], LIMIT).near()
    assert two.keys() == ({"right"} if case.near else set())
    one = NearTexts([("left", case.left)], LIMIT)
    one.see("outside", case.right)
    found = one.near()
    assert found.keys() == ({"left"} if case.near else set())
    if case.near:
        assert found["left"].similarity == pytest.approx(case.similarity.shingles, abs=1e-4)


def test_what_is_near_is_what_all_comparisons_find() -> None:
    draw = random.Random(3)
    words = [f"w{number}" for number in range(400)]
    texts: list[str] = []
    for number in range(400):
        text = draw.choices(words, k=draw.randrange(20, 60))
        if number % 2:
            text = texts[draw.randrange(number)].split()
            for _ in range(draw.randrange(5)):
                text[draw.randrange(len(text))] = draw.choice(words)
        texts.append(" ".join(text))
    new, outside = texts[:200], texts[200:]
    compared = NearTexts([(str(number), text) for number, text in enumerate(new)], LIMIT)
    for number, text in enumerate(outside):
        compared.see(f"outside {number}", text)
    expected, stays = dict[str, float](), list[str]()
    for number, text in enumerate(new):
        most = max(jaccard(text, other) for other in [*outside, *stays])
        if most > LIMIT:
            expected[str(number)] = most
        else:
            stays.append(text)
    assert 40 < len(expected) < 160
    found = {name: near.similarity for name, near in compared.near().items()}
    assert found == pytest.approx(expected)


def test_texts_without_words_are_near_to_none() -> None:
    compared = NearTexts([("a", ""), ("b", "…"), ("c", "one")], LIMIT)
    compared.see("outside", "")
    assert compared.near() == {}
    assert NearTexts([], LIMIT).near() == {}
