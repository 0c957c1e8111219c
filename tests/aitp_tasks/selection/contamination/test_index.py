"""Items found by runs of words, beside plain sets of tuples."""

import random
from collections.abc import Sequence

import pytest

from aitp_tasks.inputs.benchmarks import Item
from aitp_tasks.selection.contamination import index
from aitp_tasks.selection.contamination.index import Hit, Index, Rule

N = 8


def text(words: Sequence[int | str]) -> str:
    return " ".join(f"w{word}" if isinstance(word, int) else word for word in words)


def grams(words: Sequence[str], length: int) -> set[tuple[str, ...]]:
    return {tuple(words[start : start + length]) for start in range(len(words) - length + 1)}


def covered(words: Sequence[str], known: set[tuple[str, ...]], length: int) -> float:
    """Share of some words in a run that is known, word by word."""
    inside = [False] * len(words)
    for start in range(len(words) - length + 1):
        if tuple(words[start : start + length]) in known:
            inside[start : start + length] = [True] * length
    return sum(inside) / len(words)


def brute(items: list[Item], rows: list[list[str]], n: int) -> list[dict[int, tuple[float, float]]]:
    """Of each row, the items with both shares, by sets of tuples; none of the passages is common."""
    found: list[dict[int, tuple[float, float]]] = []
    for row in rows:
        texts, hits = [one.split() for one in row], dict[int, tuple[float, float]]()
        for number, item in enumerate(items):
            for passage, least in ((item.question.split(), 1), (item.answer.split(), 8)):
                if len(passage) < least:
                    continue
                length = min(n, len(passage))
                whole = len(passage) < 5
                said = [one for one in texts if not whole or len(one) == len(passage)]
                there = set().union(*(grams(one, length) for one in said))
                share = covered(passage, there, length)
                if share:
                    theirs = max(covered(one, grams(passage, length), length) for one in said if one)
                    before = hits.get(number, (0.0, 0.0))
                    hits[number] = (max(before[0], share), max(before[1], theirs))
            question, answer = item.question.split(), item.answer.split()
            if number in hits and 0 < len(question) < n and 0 < len(answer) < n:
                there = set().union(*(grams(one, len(answer)) for one in texts))
                if tuple(answer) not in there:
                    del hits[number]
        found.append(hits)
    return found


@pytest.mark.parametrize("n", [8, 13])
def test_hits_and_shares_are_those_of_plain_sets(n: int) -> None:
    draw = random.Random(n)
    sources = [[f"w{draw.randrange(5000)}" for _ in range(60)] for _ in range(40)]

    def piece(most: int) -> list[str]:
        source = draw.choice(sources)
        start, size = draw.randrange(50), draw.randrange(most)
        return source[start : start + size]

    items = [Item(" ".join(piece(30)), " ".join(piece(20))) for _ in range(60)]
    rows = [
        [" ".join([*piece(30), f"own{number}", *piece(30)]), " ".join(piece(40) + piece(10)), ""]
        for number in range(300)
    ]
    # What is common is not looked for by all; here nothing is.
    hits = Index(items, n).hits(rows)
    expected = brute(items, rows, n)
    found = [{hit.item: (hit.share_of_item, hit.share_of_text) for hit in of_row} for of_row in hits]
    assert sum(map(len, expected)) > 100
    assert [one.keys() for one in found] == [one.keys() for one in expected]
    for one, other in zip(found, expected, strict=True):
        for item, shares in one.items():
            assert shares == pytest.approx(other[item])


def only(items: list[Item], row: list[str], n: int = N) -> Hit:
    ((hit,),) = Index(items, n).hits([row])
    return hit


def test_a_hit_says_where() -> None:
    hit = only([Item(text(range(20)))], ["none", text(["before", *range(5, 15), "after"])])
    assert (hit.share_of_item, hit.share_of_text, hit.rule) == (0.5, 10 / 12, Rule.NGRAM)
    assert hit.spans == (index.Span(1, 1, 11),)
    assert hit.excerpt == text(range(5, 15))


def test_a_short_question_is_found_as_a_whole() -> None:
    item = Item(text(range(6)))
    assert only([item], [text(["so", *range(6), "then"])]).rule is Rule.WHOLE
    assert Index([item], N).hits([[text(range(5))], ["yes"], [text([0, 1, 2, "x", 3, 4, 5])]]) == [[], [], []]


def test_where_the_answer_is_short_too_both_are_asked_for() -> None:
    item = Item(text(range(6)), "Oslo, the city\nBergen")
    said = text(["so", *range(6)])
    assert only([item], [said, "It is Oslo, the city."]).item == 0
    assert only([item], [f"{said} Bergen"]).item == 0
    assert Index([item], N).hits([[said, "It is Oslo."], [said]]) == [[], []]


def test_a_very_short_question_is_found_where_it_is_all() -> None:
    items = [Item("Two words"), Item("")]
    assert only(items, ["two words."]).share_of_text == 1
    assert Index(items, N).hits([["these two words"], [""], []]) == [[], [], []]


def test_equal_items_are_each_found_and_what_is_common_finds_none_with_words_of_its_own() -> None:
    same = text(range(10))
    twins = [Item(same) for _ in range(30)]
    assert [hit.item for hit in Index(twins, N).hits([[same]])[0]] == list(range(30))
    opening = text(range(100, 120))
    items = [Item(f"{opening} {text([f'own{number}x{k}' for k in range(9)])}") for number in range(30)]
    found = Index(items, N).hits([[opening], [items[7].question]])
    assert found[0] == []
    # Found by its own words, it is there with the common ones.
    assert [(hit.item, hit.share_of_item) for hit in found[1]] == [(7, 1.0)]


def test_nothing_to_look_for_and_nothing_to_look_in() -> None:
    assert Index([], N).hits([["a b c"], []]) == [[], []]
    assert Index([Item("", "yes")], N).hits([["yes"]]) == [[]]
    assert Index([Item(text(range(20)))], N).hits([]) == []


def test_runs_do_not_go_on_from_one_text_to_the_next() -> None:
    words = list(range(8))
    assert Index([Item(text(words))], N).hits([[text(words[:4]), text(words[4:])], [text(words)]])[0] == []


def test_words_in_another_order_are_others() -> None:
    words = text(range(13))
    swapped = text([1, 0, *range(2, 13)])
    assert Index([Item(words)], 13).hits([[swapped]]) == [[]]
