"""The losses on what is held out for choosing, as a training's log history has them.

Nothing else is kept of it, so that all that follows from them is the same after a stop.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

#: Of a validation, in an entry of the log history; as transformers and its trackers have it.
NAME = "eval_loss"


class Point(NamedTuple):
    """One validation: behind which step, and the loss in nats per token."""

    step: int
    loss: float


def of(history: Iterable[Mapping[str, Any]]) -> list[Point]:
    """The validations of a log history, in their order."""
    return [Point(entry["step"], entry[NAME]) for entry in history if NAME in entry]


def best(points: Sequence[Point]) -> Point | None:
    """The lowest, the first of equals; None where there is none."""
    return min(points, key=lambda point: point.loss, default=None)


def since_best(points: Sequence[Point]) -> int:
    """How many validations have followed the best one."""
    losses = [point.loss for point in points]
    return len(losses) - 1 - losses.index(min(losses)) if losses else 0
