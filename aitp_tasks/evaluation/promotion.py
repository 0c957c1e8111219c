"""Whether a version is promoted: a pure decision over the losses that were measured.

A fine-tune on a version is compared with one on the SFT set alone, of the same steps. It is
better where the whole interval of the difference lies below zero, on held-out pairs or on
documents of the difference set; and not worse on SFT examples where the whole interval
lies at or below the tolerance. What is missing there was not shown. A number that is none,
in any set, is shown by no other: a model whose loss is NaN somewhere is broken.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from aitp_tasks.config import Promote
from aitp_tasks.evaluation.intervals import Difference
from aitp_tasks.records.held_out import DOCUMENTS, PAIRS, SFT

#: What a task may hand on, with some room.
_RESULT_BYTES = 1000
#: How the sets are called where people read.
NAMES = {SFT: "SFT examples", PAIRS: "held-out pairs", DOCUMENTS: "documents"}


@dataclass(frozen=True)
class Decision:
    """Whether a version is promoted, and because of what, as the end of a sentence."""

    promoted: bool
    why: str

    @property
    def sentence(self) -> str:
        """The whole of it."""
        return f"{'promoted' if self.promoted else 'not promoted'}, because {self.why}"


def decide(promote: Promote, tolerance: float, differences: Mapping[str, Difference]) -> Decision:
    """Decide by the losses of the new checkpoint minus those of the SFT set alone.

    Args:
        promote: the setting.
        tolerance: in nats per token.
        differences: by ``records.held_out``'s names; a set that is missing has no examples.
    """
    if promote is not Promote.WHEN_BETTER:
        return Decision(promote is Promote.ALWAYS, f"evaluate.promote is {promote.value}")
    found = {name: differences.get(name, _NONE) for name in (SFT, PAIRS, DOCUMENTS)}
    broken = [NAMES[name] for name, difference in found.items() if _is_broken(difference)]
    if broken:
        return Decision(False, f"the losses on {' and '.join(broken)} are not sound numbers")
    told = {name: _told(name, difference) for name, difference in found.items()}
    kept = found[SFT]
    if kept.high is None:
        return Decision(False, f"nobody knows whether it is worse on {told[SFT]}")
    if kept.high > tolerance:
        return Decision(
            False, f"it may be worse than the SFT set alone by more than tolerance={tolerance:g}: {told[SFT]}"
        )
    better = [name for name in (PAIRS, DOCUMENTS) if (high := found[name].high) is not None and high < 0]
    if not better:
        return Decision(
            False, f"it is not shown to be better than the SFT set alone: {told[PAIRS]}; {told[DOCUMENTS]}"
        )
    # Also what has grown worse is told.
    others = [told[name] for name in (PAIRS, DOCUMENTS, SFT) if name not in better]
    return Decision(True, f"it is better on {'; '.join([told[name] for name in better] + others)}")


def within_bounds(result: dict[str, Any]) -> dict[str, Any]:
    """A result that a task can hand on: where URIs are long, ``why`` is cut, then ``sets`` left out."""
    while len(json.dumps(result)) > _RESULT_BYTES:
        if len(result["why"]) > 100:
            result = result | {"why": result["why"][:-1]}
        elif result.get("sets"):
            result = result | {"sets": {}}
        else:
            break
    return result


def differences(figures: Mapping[str, Any]) -> dict[str, Difference]:
    """What is decided by, from the figures of evaluate's manifest."""
    return {name: Difference(**found["aitp_minus_sft_only"]) for name, found in figures["sets"].items()}


_NONE = Difference(0, None, None, None, "there is no example")


def _is_broken(difference: Difference) -> bool:
    """Whether it holds what is no number, or no interval around its mean."""
    numbers: list[Any] = [difference.mean, difference.low, difference.high]
    if all(number is None for number in numbers):
        # Of some examples, there is a mean unless a loss was not finite.
        return difference.n > 0
    given = [number for number in numbers if number is not None]
    if not all(isinstance(number, int | float) and math.isfinite(number) for number in given):
        return True
    if difference.low is None or difference.high is None:
        return difference.low is not difference.high
    return difference.mean is None or not difference.low <= difference.mean <= difference.high


def _told(name: str, difference: Difference) -> str:
    """A set with its figures, or why it has none."""
    if difference.high is None:
        return f"{NAMES[name]} ({difference.why})"
    return f"{NAMES[name]} ({difference.mean:+.4f}, {difference.low:+.4f} to {difference.high:+.4f})"
