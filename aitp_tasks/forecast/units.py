"""The processes that are left of each stage, how long each takes, and how many devices it holds."""

import heapq
from collections.abc import Sequence
from dataclasses import dataclass

from aitp_tasks.config import RunConfig
from aitp_tasks.forecast.costs import Measured
from aitp_tasks.forecast.work import Done, Forecast, Sizes


@dataclass(frozen=True)
class Units:
    """The processes of one stage: seconds of each, and how many devices each holds.

    Attributes:
        known: whether their cost was measured; the seconds are 0 where it was not.
    """

    seconds: tuple[float, ...]
    devices: int = 0
    known: bool = True

    def hours(self, parallel: int) -> float:
        """Until all are done, on ``parallel`` devices."""
        return makespan(self.seconds, max(parallel // max(self.devices, 1), 1)) / 3600

    @property
    def gpu_hours(self) -> float:
        """Devices times the time that they are held."""
        return sum(self.seconds) * self.devices / 3600


def units(
    config: RunConfig, sizes: Sizes, expected: Forecast, measured: Measured, done: Done | None = None
) -> dict[str, Units]:
    """The processes of each stage that are left, in the order of the story, without plan."""
    done = done or Done()

    def once(stage: str, items: float = 0.0, held: bool = False) -> Units:
        return _of(measured, stage, () if stage in done.stages else (items,), held)

    def parts(stage: str, requests: int, ranked: bool = False) -> Units:
        left = expected.parts - done.units.get(stage, 0)
        held = config.engine.endpoint is None or ranked
        return _of(measured, stage, (requests / max(expected.parts, 1),) * left, held)

    return {
        "embed": _embed(config, sizes, measured, done),
        "merge": once("merge"),
        "density": _of(measured, "density", (0.0,) * (len(sizes.units) - done.units.get("density", 0))),
        "index": once("index"),
        "difference": once("difference"),
        **({"allocate": once("allocate")} if expected.pilot_parts else {}),
        "rewrite": parts("rewrite", expected.selected),
        "score": parts("score", expected.questions),
        "answer": parts("answer", expected.answers, ranked=config.prompts.answers_per_question > 1),
        # It embeds the new pairs.
        "assemble": once("assemble", held=config.encoder.endpoint is None),
        "finetune": once("finetune", expected.steps, held=True),
        **({"evaluate": once("evaluate", expected.steps, held=True)} if config.evaluate.held_out else {}),
        "report": once("report"),
    }


def makespan(seconds: Sequence[float], slots: int) -> float:
    """When the last unit ends if each starts, in order, as soon as one of the slots is free."""
    free = [0.0] * slots
    for one in seconds:
        heapq.heapreplace(free, free[0] + one)
    return max(free)


def _of(measured: Measured, stage: str, items: Sequence[float], held: bool = False) -> Units:
    """Units of so many items each; ``held`` where each holds devices."""
    # It passes over the documents as difference does.
    like = {"allocate": "difference"}.get(stage, stage)
    cost = measured.costs.get(stage, measured.costs.get(like))
    devices = measured.devices.get(stage, 1) if held else 0
    if cost is None:
        return Units((0.0,) * len(items), devices, known=not items)
    return Units(tuple(cost.seconds(one) for one in items), devices)


def _embed(config: RunConfig, sizes: Sizes, measured: Measured, done: Done) -> Units:
    shares = done.embedded or (0.0,) * len(sizes.units)
    devices = 0 if config.encoder.endpoint else measured.devices.get("embed", 1)
    left = [
        (measured.costs.get(f"embed {role}"), rows * (1 - share))
        for (role, rows), share in zip(sizes.units, shares, strict=True)
        if share < 1
    ]
    return Units(
        tuple(cost.seconds(rows) if cost else 0.0 for cost, rows in left),
        devices,
        known=all(cost is not None for cost, _ in left),
    )
