"""Runs of words are equal numbers exactly where the words are."""

import random

import numpy as np

from aitp_tasks.texts.hashes import Hasher, runs


def test_runs_are_equal_where_their_words_are() -> None:
    draw = random.Random(0)
    hasher = Hasher()
    for length in (1, 2, 8, 13):
        words = [f"w{draw.randrange(3)}" for _ in range(2000)]
        numbers = runs(hasher.of_words(words), length).tolist()
        grams = [tuple(words[start : start + length]) for start in range(len(words) - length + 1)]
        assert len(numbers) == len(grams)
        assert len(set(numbers)) == len(set(grams)) == len(set(zip(numbers, grams, strict=True)))


def test_fewer_words_than_a_run_give_none() -> None:
    hashes = Hasher().of("only three words")
    assert len(runs(hashes, 4)) == 0
    assert len(runs(hashes, 3)) == 1
    assert runs(np.empty(0, np.uint64), 1).tolist() == []
