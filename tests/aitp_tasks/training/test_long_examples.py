"""Conversations longer than an example may be: cut, dropped or split, and counted."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pydantic import ValidationError
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from aitp_tasks.config import Finetune, LongExamples
from aitp_tasks.training import examples, long_examples, template
from aitp_tasks.training.examples import IGNORED, Example, ExampleMaker, LeftOut, Tally
from tests.aitp_tasks.training.long_cases import CASES, Case, faults

Messages = list[dict[str, str]]
_LENGTH = 48
_SYSTEM = {"role": "system", "content": "Be brief."}


@pytest.fixture(scope="module")
def tokenizer(smollm2: Path) -> PreTrainedTokenizerBase:
    loaded: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(smollm2)
    return loaded


@pytest.fixture(scope="module")
def maker(tokenizer: PreTrainedTokenizerBase) -> ExampleMaker:
    return ExampleMaker(tokenizer, template.choose(tokenizer, None).training, _LENGTH)


def _exchange(number: int, words: int = 3) -> Messages:
    return [
        {"role": "user", "content": f"Question {number}?"},
        {"role": "assistant", "content": f"Answer {number}" + " word" * words},
    ]


def _made(maker: ExampleMaker, turns: Messages, how: LongExamples) -> list[Example | LeftOut]:
    return long_examples.make(turns, maker.make, how)


def _learnt(tokenizer: PreTrainedTokenizerBase, made: Example | LeftOut) -> str:
    assert isinstance(made, Example)
    return str(tokenizer.decode([label for label in made.labels if label != IGNORED]))


@pytest.mark.parametrize("how", LongExamples)
def test_what_fits_is_one_example(maker: ExampleMaker, how: LongExamples) -> None:
    turns = [_SYSTEM, *_exchange(1)]
    assert _made(maker, turns, how) == [maker.make(turns)]
    assert not getattr(maker.make(turns), "cut", True)


@pytest.mark.parametrize("more", [0, 2])
def test_an_example_is_cut_from_the_first_token_that_does_not_fit(
    tokenizer: PreTrainedTokenizerBase, maker: ExampleMaker, more: int
) -> None:
    words = 1
    while len(maker.make(_exchange(1, words)).input_ids) < _LENGTH:  # type: ignore[union-attr]
        words += 1
    (made,) = _made(maker, _exchange(1, words + more), LongExamples.CUT)
    assert isinstance(made, Example)
    assert (len(made.input_ids), made.cut) == (_LENGTH, bool(more))
    # Nothing is put behind a cut: the end of a turn is learnt where there is one.
    assert ("<|im_end|>" in _learnt(tokenizer, made)) == (not more)


def test_a_long_one_is_dropped_by_name(maker: ExampleMaker) -> None:
    assert _made(maker, _exchange(1, 90), LongExamples.DROP) == [
        LeftOut("too_long", "longer than finetune.max_length")
    ]


def test_it_is_split_at_users_turns_and_each_part_ends_its_turn(
    tokenizer: PreTrainedTokenizerBase, maker: ExampleMaker
) -> None:
    turns = [_SYSTEM, *(turn for number in range(5) for turn in _exchange(number))]
    made = _made(maker, turns, LongExamples.SPLIT_TURNS)
    assert len(made) > 1
    assert "".join(_learnt(tokenizer, part) for part in made) == "".join(
        f"Answer {number} word word word<|im_end|>" for number in range(5)
    )
    for part in made:
        assert isinstance(part, Example)
        assert not part.cut
        assert "Be brief." in tokenizer.decode(part.input_ids)


def test_an_exchange_that_alone_is_too_long_is_cut_and_the_others_are_not(maker: ExampleMaker) -> None:
    turns = [*_exchange(1), *_exchange(2, 90), *_exchange(3)]
    made = _made(maker, turns, LongExamples.SPLIT_TURNS)
    assert [part.cut for part in made if isinstance(part, Example)] == [False, True, False]


def test_rows_and_parts_are_counted_apart(maker: ExampleMaker, tmp_path: Path) -> None:
    endless = [{"role": "user", "content": "word " * 90}, {"role": "assistant", "content": "Yes."}]
    rows = [
        _exchange(1),
        [*_exchange(1), *_exchange(2), *_exchange(3), *_exchange(4)],
        [*_exchange(1), *endless],
        endless,
        _exchange(1, 90),
    ]
    pq.write_table(pa.Table.from_pylist([{"messages": row} for row in rows]), tmp_path / "rows.parquet")

    def written(how: LongExamples) -> Tally:
        return examples.write(
            tmp_path / "rows.parquet",
            lambda turns, _: long_examples.make(turns, maker.make, how),
            tmp_path / "examples.arrow",
        )

    cut = written(LongExamples.CUT)
    assert (cut.examples, cut.cut, cut.further, cut.parts_left) == (4, 3, 0, 0)
    assert cut.rejected == {"cut_before_answer": 1}
    dropped = written(LongExamples.DROP)
    assert (dropped.examples, dropped.cut, dropped.rejected) == (1, 0, {"too_long": 4})
    split = written(LongExamples.SPLIT_TURNS)
    assert (split.cut, split.parts_left) == (1, 1)
    assert split.examples == 4 + split.further
    assert split.rejected == {"cut_before_answer": 1}
    for tally in (cut, dropped, split):
        ledger = tally.ledger()
        assert ledger.rows_in == 5 == ledger.rows_out + sum(ledger.rejected.values())
    with pa.ipc.open_stream(str(tmp_path / "examples.arrow")) as stream:
        assert stream.read_all().num_rows == split.examples


#: An exchange that alone is too long is cut here, and counted; the cases leave it out.
_CUT_ALONE = {
    "one over, split_turns",
    "one over through the user, split_turns",
    "one token of the answer, split_turns",
    "the middle one too long, split_turns",
    "the first too long, split_turns",
    "all too long, split_turns",
    "assistant only, split_turns",
    "tool result too long, split_turns",
    "two answers in a row, split_turns",
    "empty answer, split_turns",
    "huge, split_turns",
}


class _Counting:
    """Makes examples of turns that say how many tokens they have: each token is the number of its turn."""

    def __init__(self, limit: int) -> None:
        self.limit, self.read = limit, 0

    def make(self, turns: long_examples.Turns) -> Example | LeftOut:
        self.read += len(turns)
        if not any(turn["role"] == "assistant" for turn in turns):
            return LeftOut("no_answer", "")
        tokens = [turn["number"] for turn in turns for _ in range(min(turn["tokens"], self.limit + 1))]
        answers = {turn["number"] for turn in turns if turn["role"] == "assistant"}
        kept = tokens[: self.limit]
        if not answers & set(kept):
            return LeftOut(examples.CUT_BEFORE_ANSWER, "")
        labels = [token if token in answers else IGNORED for token in kept]
        return Example(kept, labels, cut=len(tokens) > self.limit)


@pytest.mark.parametrize(
    "case", [case for case in CASES if case["answer"] != "refused"], ids=lambda case: case["name"]
)
def test_cases_of_somebody_who_had_not_read_the_code(case: Case) -> None:
    turns = [
        {"role": role, "tokens": tokens, "number": number}
        for number, (role, tokens) in enumerate(case["turns"])
    ]
    counting = _Counting(case["max_length"])
    made = long_examples.make(turns, counting.make, LongExamples(case["mode"]))
    pieces = [
        [(number, one.input_ids.count(number)) for number in dict.fromkeys(one.input_ids)]
        for one in made
        if isinstance(one, Example)
    ]
    # Of many turns, few are read again and again.
    assert counting.read <= 20 * len(turns) + 20
    if case["name"] in _CUT_ALONE:
        assert faults(case["turns"], case["max_length"], pieces, "cut") == []
        whole = [piece for piece in pieces if all(case["turns"][at][1] == kept for at, kept in piece)]
        assert whole == case["answer"]
        assert [one.cut for one in made if isinstance(one, Example)] == [
            piece not in whole for piece in pieces
        ]
        return
    if case["name"] == "system turn in the middle, split_turns":
        # The case leaves it behind the answer before; it says how to go on.
        assert pieces == [[(0, 2), (1, 3)], [(2, 2), (3, 2), (4, 3)]]
        return
    assert pieces == case["answer"]


def test_which_settings_there_are_is_a_closed_list() -> None:
    for case in CASES:
        if case["answer"] == "refused":
            settings = {"max_length": case["max_length"], "long_examples": case["mode"]}
            with pytest.raises(ValidationError, match="max_length|long_examples"):
                Finetune(model="/tmp", **settings)
