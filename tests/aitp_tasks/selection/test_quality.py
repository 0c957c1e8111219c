"""Signs of poor documents: each rule closes what it is for, and repetition is that of plain counting."""

import random
from collections import Counter

import pytest

from aitp_tasks.selection import quality
from aitp_tasks.selection.quality import Document
from aitp_tasks.texts.hashes import Hasher

PROSE = (
    "The night ferry to the outer islands leaves the northern quay at half past nine and calls at two small "
    "harbours where nobody lives in winter. Passengers who travel with bicycles should wait beside the crane "
    "until a sailor waves, because the ramp is steep and often wet.\n"
    "Tickets are sold on board. Dogs ride free, while parrots need written permission from the captain, who "
    "seldom gives it. In a storm the ship stays in port, and whoever has come in vain may sleep in the old "
    "customs house, which has a stove, eleven beds and a view of the lighthouse."
)
LINES = PROSE.replace(". ", ".\n").splitlines()
CHINESE = (
    "小明家的果园里种了三百二十棵苹果树和一百五十棵梨树，去年冬天一场大雪压断了其中四十棵。"
    "春天他又补种了六十棵樱桃树，并请邻居帮忙修剪枝条，给每一棵树都围上了草绳。夏天的傍晚，"
    "孩子们在树下写作业，老人们摇着扇子讲从前的故事，谁家的狗在远处叫了两声，又安静下来。"
)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (PROSE, None),
        (CHINESE, None),
        ("", "too_short"),
        ("… !", "too_short"),
        (" ".join(PROSE.split()[:49]), "too_short"),
        ("Lorem ipsum dolor. " + PROSE, "placeholder"),
        ("a b c of to in it is be or " * 9, "odd_words"),
        ("Donaudampfschifffahrtsgesellschaft Kapitänsmützenverordnung " * 30, "odd_words"),
        ("\n".join(f"#{word}" for word in PROSE.split()), "symbols"),
        (PROSE + " 12 34 56 78 90" * 8, "symbols"),
        ("\n".join(f"- {line}" for line in LINES), "list"),
        ("\n".join(f"{line[:-1]}..." for line in LINES[:3]) + "\n" + "\n".join(LINES[3:]), "cut_lines"),
        ("\n".join([*LINES, *LINES[:4]]), "repeated_lines"),
        (PROSE.replace("\n", " ") + " " + PROSE.replace("\n", " "), "repeated_words"),
        (PROSE + "\nSubscribe to our list\nAll rights reserved\nPrivacy policy", "boilerplate"),
        (PROSE + "\nAll rights reserved", None),
    ],
)
def test_each_rule_closes_what_it_is_for(text: str, reason: str | None) -> None:
    assert quality.closed(text, Hasher()) == reason


def test_limits_are_where_they_are_said_to_be() -> None:
    words = PROSE.split()
    assert quality.closed(" ".join(words[:50]), Hasher()) is None
    # One symbol to ten words is allowed.
    document = Document(" ".join(words[:50]) + "#" * 5, Hasher())
    assert not quality.RULES["symbols"](document)
    assert quality.RULES["symbols"](Document(document.text + "#", Hasher()))


@pytest.mark.parametrize("length", [2, 3, 4, 5, 10])
def test_repetition_is_that_of_plain_counting(length: int) -> None:
    draw = random.Random(length)
    for _ in range(30):
        words = [f"w{draw.randrange(12)}" * draw.randrange(1, 3) for _ in range(draw.randrange(1, 120))]
        document = Document(" ".join(words), Hasher())
        grams = [tuple(words[start : start + length]) for start in range(len(words) - length + 1)]
        counts = {gram: count for gram, count in Counter(grams).items() if count > 1}
        top = max((count * len("".join(gram)) for gram, count in counts.items()), default=0)
        assert quality._in_top_run(document, length) == top
        seen: set[tuple[str, ...]] = set()
        again: set[int] = set()
        for start, gram in enumerate(grams):
            if gram in seen:
                again |= set(range(start, start + length))
            seen.add(gram)
        assert quality._in_repeated_runs(document, length) == sum(len(words[place]) for place in again)


@pytest.mark.parametrize(
    "text", ["\x00" * 500, "a\n" * 300, "😀 " * 200, "\ud800 word " * 60, "\u0301" * 200]
)
def test_no_text_makes_it_fail(text: str) -> None:
    assert quality.closed(text, Hasher()) in {*quality.RULES, None}
