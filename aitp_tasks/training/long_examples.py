"""What becomes of conversations that are longer than an example may be.

Cut ones end in the middle of a turn. Their tokens are learnt up to there, and no end
of a turn behind them: each is what followed in the conversation, and an end would teach
the model to stop in the middle of a sentence.
"""

from collections.abc import Callable, Mapping, Sequence
from itertools import chain
from typing import Any

from aitp_tasks.config import LongExamples
from aitp_tasks.training.examples import CUT_BEFORE_ANSWER, Example, LeftOut

Turns = Sequence[Mapping[str, Any]]
Make = Callable[[Turns], Example | LeftOut]

_LEADING = ("system", "developer")


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
    leading = [turn for turn in turns if turn["role"] in _LEADING]
    exchanges = _exchanges([turn for turn in turns if turn["role"] not in _LEADING])
    found: list[Example | LeftOut] = []
    while exchanges:
        count = len(exchanges)
        while _is_cut(one := make_one([*leading, *chain(*exchanges[:count])])) and count > 1:
            count -= 1
        found.append(one)
        exchanges = exchanges[count:]
    return found


def _is_cut(made: Example | LeftOut) -> bool:
    return made.cut if isinstance(made, Example) else made.reason == CUT_BEFORE_ANSWER


def _exchanges(turns: Turns) -> list[list[Mapping[str, Any]]]:
    """The turns in groups that each begin with a user's."""
    found: list[list[Mapping[str, Any]]] = []
    for turn in turns:
        if turn["role"] == "user" or not found:
            found.append([])
        found[-1].append(turn)
    return found
