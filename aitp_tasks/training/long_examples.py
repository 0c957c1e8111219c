"""What becomes of conversations that are longer than an example may be.

Cut ones end in the middle of a turn. Their tokens are learnt up to there, and no end
of a turn behind them: each is what followed in the conversation, and an end would teach
the model to stop in the middle of a sentence.
"""

from collections.abc import Callable, Mapping, Sequence
from itertools import chain, takewhile
from typing import Any

from aitp_tasks.config import LongExamples
from aitp_tasks.training.examples import CUT_BEFORE_ANSWER, Example, LeftOut

Turns = Sequence[Mapping[str, Any]]
Make = Callable[[Turns], Example | LeftOut]

_LEADING = ("system", "developer")
#: With what an exchange begins.
_OPENING = ("user", *_LEADING)


def make(turns: Turns, make_one: Make, how: LongExamples) -> list[Example | LeftOut]:
    """The examples of one conversation, or why it is none.

    Args:
        turns: of the conversation.
        make_one: makes an example of some turns, cut where they are too long.
        how: what to do with one that is.
    """
    made = make_one(turns)
    if not _is_cut(made) or how is LongExamples.CUT:
        return [made]
    if how is LongExamples.DROP:
        return [LeftOut("too_long", "longer than finetune.max_length")]
    return _split(turns, make_one)


def _split(turns: Turns, make_one: Make) -> list[Example | LeftOut]:
    """As few examples as hold the conversation, each with the system message and whole exchanges.

    What was said in an earlier one is unknown to the next. An exchange that alone is too long is cut.
    """
    leading = [*takewhile(lambda turn: turn["role"] in _LEADING, turns)]
    exchanges = _exchanges(turns[len(leading) :])
    found: list[Example | LeftOut] = []
    first = 0
    while first < len(exchanges):

        def made(count: int, first: int = first) -> Example | LeftOut:
            return make_one([*leading, *chain(*exchanges[first : first + count])])

        one, count = _most(made, len(exchanges) - first)
        found.append(one)
        first += count
    return found


def _most(made: Callable[[int], Example | LeftOut], most: int) -> tuple[Example | LeftOut, int]:
    """The example of as many exchanges as fit, one at least, and how many these are.

    Of many, no more than twice as many are read as fit.
    """
    fits, best = 1, made(1)
    if _is_cut(best):
        return best, fits
    beyond = 2
    while beyond <= most and not _is_cut(one := made(beyond)):
        fits, best, beyond = beyond, one, 2 * beyond
    beyond = min(beyond, most + 1)
    while beyond - fits > 1:
        half = (fits + beyond) // 2
        one = made(half)
        if _is_cut(one):
            beyond = half
        else:
            fits, best = half, one
    return best, fits


def _is_cut(made: Example | LeftOut) -> bool:
    return made.cut if isinstance(made, Example) else made.reason == CUT_BEFORE_ANSWER


def _exchanges(turns: Turns) -> list[list[Mapping[str, Any]]]:
    """The turns in groups: each ends before the user's turn that follows an answer, and what leads to it."""
    found: list[list[Mapping[str, Any]]] = []
    answered = True
    for turn in turns:
        if answered and turn["role"] in _OPENING:
            found.append([])
            answered = False
        elif not found:
            found.append([])
        found[-1].append(turn)
        answered |= turn["role"] == "assistant"
    return found
