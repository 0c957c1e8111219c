"""What was measured: seconds of a process, and how much comes of the work before it."""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Cost:
    """Seconds of a process: a fixed part, and one for each item (row, request or step)."""

    fixed: float
    each: float = 0.0

    @classmethod
    def measured(cls, seconds: float, items: float, each: float) -> "Cost":
        """From a process of ``seconds`` that dealt with ``items``."""
        return cls(max(seconds - items * each, 0.0), each)

    def seconds(self, items: float) -> float:
        """What a process with so many items takes."""
        return self.fixed + self.each * items


@dataclass(frozen=True)
class Measured:
    """What earlier runs or a rehearsal have shown; what they have not is missing or None.

    Attributes:
        costs: of one process of each stage; of embed by role, ``embed corpus`` and ``embed sft``.
        tokens: that the encoder sees of a row, by role.
        generated: tokens that a request of each prompt stage generates.
        questions: for a rewritten document.
        kept: share of the questions that pass the gates.
        answered: share of the answers that give a pair.
        below: share of the documents that the threshold selects.
        devices: that a process of a stage holds, by stage.
    """

    costs: Mapping[str, Cost] = field(default_factory=dict)
    tokens: Mapping[str, float] = field(default_factory=dict)
    generated: Mapping[str, float] = field(default_factory=dict)
    questions: float | None = None
    kept: float | None = None
    answered: float | None = None
    below: float | None = None
    devices: Mapping[str, int] = field(default_factory=dict)


def seconds_per_step(history: list[dict[str, float]]) -> float:
    """Mean of all optimiser steps but the first, which warms up; of a single step, its own."""
    # Validations lie between steps, and their time is the steps'.
    steps = [entry for entry in history if "eval_loss" not in entry]
    first, last = steps[0], history[-1]
    if len(steps) == 1:
        return float(last["seconds"])
    return float(last["seconds"] - first["seconds"]) / (len(steps) - 1)
