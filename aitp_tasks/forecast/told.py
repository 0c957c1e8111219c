"""The estimate of a run, as plan and ``aitp estimate`` tell it: figures, what they rest on, one line."""

from collections.abc import Mapping
from typing import Any

from aitp_tasks.config import RunConfig
from aitp_tasks.forecast import parts, table
from aitp_tasks.forecast.costs import Measured
from aitp_tasks.forecast.learned import REHEARSAL, Learned
from aitp_tasks.forecast.units import Units, units
from aitp_tasks.forecast.work import Done, Forecast, Places, Sizes, forecast
from aitp_tasks.records import generated
from aitp_tasks.records.run import Run
from aitp_tasks.selection.sampled import MOST_PARTS

_LINE_CHARACTERS = 120


def tell(
    run: Run,
    learned: Learned,
    sizes: Sizes,
    done: Done,
    plan_seconds: float,
    price: float | None = None,
    parallel: int = 1,
) -> dict[str, Any]:
    """What is left of a run, and what it will take.

    Args:
        run: as it was planned.
        learned: what earlier runs or a rehearsal have measured.
        sizes: of its input.
        done: what of it is there.
        plan_seconds: that plan has taken.
        price: of one device for one hour; None: no cost is told.
        parallel: devices that work side by side.
    """
    measured = learned.measured
    expected = forecast(run.config, sizes, measured, Places.of(run.plan, sizes.rows("sft")), done)
    stages = {"plan": Units((plan_seconds,)), **units(run.config, sizes, expected, measured, done)}
    gpu_hours = round(sum(stage.gpu_hours for stage in stages.values()), 6)
    requests = {"rewrite": expected.selected, "score": expected.questions, "answer": expected.answers}
    return {
        "run": run.uri,
        "label": run.config.dump,
        **vars(expected),
        "engine_starts": _engine_starts(run.config, stages),
        "tokens": round(sum(sizes.rows(role) * per_row for role, per_row in measured.tokens.items())),
        "generated_tokens": round(
            sum(requests[stage] * measured.generated.get(stage, 0.0) for stage in generated.STAGES)
        ),
        "stages": {
            name: {
                "units": len(stage.seconds),
                "hours": round(stage.hours(parallel), 6),
                "gpu_hours": round(stage.gpu_hours, 6),
                "known": stage.known,
            }
            for name, stage in stages.items()
        },
        "unknown": [name for name, stage in stages.items() if not stage.known],
        "at_most": _at_most(run.config, measured, done),
        "runs": learned.runs,
        "parallel": parallel,
        "hours": round(sum(stage.hours(parallel) for stage in stages.values()), 6),
        "gpu_hours": gpu_hours,
        "price": price,
        "currency": run.config.plan.currency,
        "cost": None if price is None else round(gpu_hours * price, 4),
        "assumptions": [
            *_rests_on(learned, stages),
            *([_size_of_parts(run.config, expected, measured)] if done.parts is None else []),
            *_assumptions(run.config, sizes, measured, done),
        ],
    }


def _engine_starts(config: RunConfig, stages: Mapping[str, Units]) -> int:
    """Of engines that the prompt stages start: one for each unit that is left, and none beside a server."""
    if config.engine.endpoint is not None:
        return 0
    return sum(len(stages[name].seconds) for name in generated.STAGES)


def _size_of_parts(config: RunConfig, expected: Forecast, measured: Measured) -> str:
    """What a part will hold, and why."""
    size = parts.size(config, measured)
    fits = expected.selected <= size.documents * MOST_PARTS
    grown = "" if fits else f"; more, since there are {MOST_PARTS:,} parts at most"
    return f"a part holds up to {size.documents:,} documents, {size.why}{grown}"


def line(told: Mapping[str, Any]) -> str:
    """The estimate in one short line."""
    if not any(stage["units"] for name, stage in told["stages"].items() if name != "plan"):
        return "nothing is left to do"
    if told["unknown"] and not told["gpu_hours"]:
        return _cut(f"no estimate: no earlier run tells what {', '.join(told['unknown'])} will take")
    cost = "" if told["cost"] is None else f", {told['cost']:,.2f} {told['currency']}"
    figures = f"{table.amount(told['gpu_hours'])} GPU-hours{cost}, {table.duration(told['hours'])}"
    if told["unknown"]:
        return _cut(f"at least {figures}; not known: {', '.join(told['unknown'])}")
    source = {0: "a rehearsal", 1: "1 run"}.get(told["runs"], f"{told['runs']} runs")
    return _cut(f"{figures}, by {source}")


def _cut(text: str) -> str:
    return text if len(text) <= _LINE_CHARACTERS else f"{text[: _LINE_CHARACTERS - 1]}…"


def _rests_on(learned: Learned, stages: Mapping[str, Units]) -> list[str]:
    """Whose figures these are, and how much of the device-hours is whose."""
    said = list(learned.told)
    hours = sum(stage.gpu_hours for stage in stages.values())
    rehearsed = sum(stages[name].gpu_hours for name, basis in learned.basis.items() if basis == REHEARSAL)
    if hours and learned.runs:
        said.append(f"{1 - rehearsed / hours:.0%} of the GPU-hours are learnt from runs")
    return said


def _at_most(config: RunConfig, measured: Measured, done: Done) -> list[str]:
    """What is not known, and counted as many as there can be."""
    targets = (config.difference.target_share, config.difference.target_documents)
    known = targets != (None, None) or done.selected is not None or measured.below is not None
    shares = {
        "documents below the threshold": known or None,
        "questions of a document": measured.questions,
        "questions that pass the gates": measured.kept,
        "answers that pass the gates": measured.answered,
    }
    return [name for name, share in shares.items() if share is None]


def _assumptions(config: RunConfig, sizes: Sizes, measured: Measured, done: Done) -> list[str]:
    """What the figures rest on beside, for people."""
    most = _at_most(config, measured, done)
    said = []
    if most:
        said.append(
            f"not measured with these settings, and counted as many as there can be: {', '.join(most)}"
        )
    found = sum(done.units.values()) + len(done.stages)
    if found or any(done.embedded):
        said.append(f"{found} units are done already and cost nothing, nor does a shard that has vectors")
    if sizes.guessed:
        said.append(f"{sizes.guessed} shards tell no rows, and count by their bytes")
    said.append(
        "stored responses are reused and cost nothing, which is not counted before they are asked for"
    )
    said.append("each unit succeeds at once; Airflow adds a few seconds a task")
    beside = {
        "judging them": config.gates.min_faithfulness is not None,
        "ranking them by the base model": config.prompts.answers_per_question > 1,
    }
    if any(beside.values()):
        named = " and ".join(name for name, there in beside.items() if there)
        said.append(
            f"{named} counts with the answers, of which each question gets "
            f"{config.prompts.answers_per_question}"
        )
    for server, endpoint in (("embedding", config.encoder.endpoint), ("generating", config.engine.endpoint)):
        if endpoint:
            said.append(f"the {server} server's own devices are not counted")
    return said
