"""What earlier runs of a line, or its rehearsal, have measured that holds for a run.

The rule: of the run itself and of the newest runs that have made versions of its line,
those stages count whose setup is the same (see ``same``); each process counts half as
much as one of the run after it. Where they were on several devices, those count that were on
the newest one's. What no run tells, the line's last rehearsal does
(``datasets/<line>/rehearsed.json``), and what that does not either is not known: no figure is
made up.
"""

import logging
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from aitp_tasks.errors import InputError
from aitp_tasks.forecast import observed, same
from aitp_tasks.forecast.costs import Cost, Measured
from aitp_tasks.forecast.observed import Observation, Seen
from aitp_tasks.records import generated, versions
from aitp_tasks.records.run import Run
from aitp_tasks.storage import Storage

log = logging.getLogger(__name__)

#: Runs that are read, the run itself among them: of more, the oldest would hardly count.
MOST_RUNS = 5
#: By which the processes of a run count, of those of the run after it.
FADING = 0.5
OTHER_DEVICE = "another device"
_HELD = ("embed", *generated.STAGES, *observed.TRAINING)
_PLAIN = ("merge", "density", "index", "difference", "allocate", "assemble", "report")
RUNS, REHEARSAL = "runs", "rehearsal"


class Rehearsed(BaseModel):
    """A rehearsal, as it is kept for the runs of a line until they can learn from each other."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    setups: dict[str, str]
    measured: Measured
    #: Day on which it was made.
    on: str = ""


@dataclass(frozen=True)
class Learned:
    """What is known for a run.

    Attributes:
        measured: the figures.
        basis: for each stage that has figures, ``runs`` or ``rehearsal``.
        told: where they come from, for people.
        runs: how many runs have told any of them.
    """

    measured: Measured
    basis: Mapping[str, str]
    told: tuple[str, ...]
    runs: int = 0


def learn(run: Run, rehearsal: Rehearsed | None = None, from_runs: bool = True) -> Learned:
    """What is known for a run.

    Args:
        run: as it was planned.
        rehearsal: of its line, if there was one.
        from_runs: whether earlier runs count.
    """
    wanted = same.setups(run.plan)
    seen = [observed.of_run(one, wanted) for one in (_runs(run) if from_runs else [])]
    measured, basis, left_out = _measured(run, seen)
    told = _told(seen, basis, left_out)
    used = sum(bool(one.processes) for one in seen)
    if rehearsal is not None:
        measured, basis, more = _filled(measured, basis, rehearsal, wanted)
        told += more
    if run.config.evaluate.held_out and "evaluate" not in basis and "finetune" in basis:
        measured, basis = _as_the_fine_tune(measured, basis)
        told.append("evaluate was not measured: counted as a second fine-tune, on the SFT set alone")
    return Learned(measured, basis, tuple(told), used)


def _as_the_fine_tune(measured: Measured, basis: Mapping[str, str]) -> tuple[Measured, dict[str, str]]:
    """With evaluate at what the fine-tune takes: most of it is such a training."""
    twin = replace(
        measured,
        costs={**measured.costs, "evaluate": measured.costs["finetune"]},
        devices={**measured.devices, "evaluate": measured.devices.get("finetune", 1)},
    )
    return twin, {**basis, "evaluate": basis["finetune"]}


def rehearsed(storage: Storage, line: str) -> Rehearsed | None:
    """The last rehearsal of a line; None where there is none that this release can read."""
    noted = storage.read_tagged(_rehearsed_key(line))
    if noted is None:
        return None
    try:
        return Rehearsed.model_validate_json(noted.data)
    except ValidationError:
        log.warning("%s cannot be read: it is not used", storage.uri(_rehearsed_key(line)))
        return None


def keep_rehearsed(run: Run, measured: Measured) -> Rehearsed:
    """Keep what a rehearsal has measured, for the runs of its line."""
    made = Rehearsed(setups=same.setups(run.plan), measured=measured, on=f"{datetime.now(UTC):%Y-%m-%d}")
    run.storage.write(_rehearsed_key(run.config.assemble.dataset), made.model_dump_json(indent=1).encode())
    return made


def _rehearsed_key(line: str) -> str:
    return f"datasets/{line}/rehearsed.json"


def _runs(run: Run) -> list[Run]:
    """The run itself, and those that have made the newest versions of its line, the newest first."""
    found = [run]
    line = run.config.assemble.dataset
    try:
        newest = versions.latest(run.storage, line)
    except InputError as error:
        log.warning("nothing is learnt of the line: %s", error)
        return found
    for name in [newest.name, *reversed(newest.ancestors)] if newest else []:
        if len(found) == MOST_RUNS:
            break
        try:
            prefix = versions.load(run.storage, line, name).run
            if prefix != run.prefix:
                found.append(Run.open(run.storage.uri(prefix)))
        except (InputError, ValidationError) as error:
            log.info("nothing is learnt of version=%s: %s", name, " ".join(str(error).split()))
    return found


_Weighted = list[tuple[float, Observation]]


def _measured(run: Run, seen: Sequence[Seen]) -> tuple[Measured, dict[str, str], Counter[tuple[str, str]]]:
    """The figures of all runs together, what has any, and what was left out."""
    left_out = sum((one.left_out for one in seen), Counter[tuple[str, str]]())
    costs, tokens, per_request = dict[str, Cost](), dict[str, float](), dict[str, float]()
    devices = dict[str, int]()
    for stage in _HELD:
        names = ["embed corpus", "embed sft"] if stage == "embed" else [stage]
        weighted = {name: _weighted(seen, name) for name in names}
        newest = _newest(weighted.values())
        if newest is None:
            continue
        devices[stage] = max(newest.devices, 1)
        for name, found in weighted.items():
            kept = [(weight, one) for weight, one in found if _on_same(one, newest)]
            left_out[stage, OTHER_DEVICE] += len(found) - len(kept)
            if kept:
                costs[name] = _cost(kept)
                per_item = _mean(kept, "tokens", "items")
                if stage == "embed":
                    tokens[name.partition(" ")[2]] = per_item
                elif stage in generated.STAGES:
                    per_request[stage] = per_item
    if "embed corpus" in costs or "embed sft" in costs:
        # A unit starts in the same way whatever it holds; how long its rows are is the role's.
        for role, other in (("corpus", "sft"), ("sft", "corpus")):
            costs.setdefault(f"embed {role}", costs.get(f"embed {other}", Cost(0.0)))
    rows, groups = observed.rows_of(run.plan), max(len(run.plan.groups), 1)
    for stage in _PLAIN:
        by_unit = groups if stage == "density" else 1
        grown = [
            (weight, one.seconds * _growth(rows / by_unit, told.rows / (told.groups if by_unit > 1 else 1)))
            for weight, told in _halved(seen)
            for one in told.processes.get(stage, [])
        ]
        if grown:
            costs[stage] = Cost(sum(w * value for w, value in grown) / sum(w for w, _ in grown))
    shares = {name: _share(seen, name) for name in (same.BELOW, "rewrite", same.KEPT, same.ANSWERED)}
    measured = Measured(
        costs, tokens, per_request, shares["rewrite"], shares[same.KEPT], shares[same.ANSWERED],
        shares[same.BELOW], devices,
    )  # fmt: skip
    return measured, {name.partition(" ")[0]: RUNS for name in costs}, +left_out


def _halved(seen: Sequence[Seen]) -> Iterable[tuple[float, Seen]]:
    return ((FADING**place, one) for place, one in enumerate(seen))


def _weighted(seen: Sequence[Seen], name: str) -> _Weighted:
    return [(weight, one) for weight, told in _halved(seen) for one in told.processes.get(name, [])]


def _newest(weighted: Iterable[_Weighted]) -> Observation | None:
    """The last process of the newest run that has any."""
    found = [entry for entries in weighted for entry in entries]
    return max(found, key=lambda entry: (entry[0], entry[1].written))[1] if found else None


def _on_same(one: Observation, newest: Observation) -> bool:
    return (one.device, one.devices) == (newest.device, newest.devices)


def _cost(weighted: _Weighted) -> Cost:
    each = _mean(weighted, "busy", "items")
    fixed = sum(weight * (one.seconds - one.busy) for weight, one in weighted)
    return Cost(fixed / sum(weight for weight, _ in weighted), each)


def _mean(weighted: _Weighted, what: str, of: str) -> float:
    whole = sum(weight * getattr(one, of) for weight, one in weighted)
    return sum(weight * getattr(one, what) for weight, one in weighted) / whole if whole else 0.0


def _growth(now: float, before: float) -> float:
    """A stage without a model takes longer with more rows, and with fewer as long as before at most."""
    return max(now / max(before, 1.0), 1.0)


def _share(seen: Sequence[Seen], name: str) -> float | None:
    found = [(weight, *told.shares[name]) for weight, told in _halved(seen) if name in told.shares]
    whole = sum(weight * whole for weight, whole, _ in found)
    return sum(weight * part for weight, _, part in found) / whole if whole else None


def _told(
    seen: Sequence[Seen], basis: Mapping[str, str], left_out: Mapping[tuple[str, str], int]
) -> list[str]:
    """Where the figures come from."""
    used = [one for one in seen if one.processes]
    if not used:
        return []
    newest = max(one.written for told in used for found in told.processes.values() for one in found)
    runs = "1 run" if len(used) == 1 else f"{len(used)} runs, each half as much as the one after it"
    day = datetime.fromtimestamp(newest, UTC)
    told = [f"learnt from {runs}; the newest figure is of {day:%Y-%m-%d}: {', '.join(basis)}"]
    told += [
        f"not learnt from: {count} of {stage} ({why})" for (stage, why), count in sorted(left_out.items())
    ]
    return told


def _filled(
    measured: Measured, basis: Mapping[str, str], rehearsal: Rehearsed, wanted: Mapping[str, str]
) -> tuple[Measured, dict[str, str], list[str]]:
    """With what the rehearsal knows of what runs do not."""
    fits = {name for name, setup in rehearsal.setups.items() if wanted.get(name) == setup}
    own = rehearsal.measured

    def missing(stage: str) -> bool:
        return stage not in basis and (stage in fits or stage not in wanted)

    added = {name: cost for name, cost in own.costs.items() if missing(name.partition(" ")[0])}

    def pick(known: float | None, told: float | None, name: str) -> float | None:
        return told if known is None and name in fits else known

    def joined(known: Mapping[str, Any], told: Mapping[str, Any]) -> dict[str, Any]:
        return {**told, **known}

    stages = {name.partition(" ")[0]: REHEARSAL for name in added if name != "plan"}
    filled = Measured(
        costs=joined(measured.costs, added),
        tokens=joined(measured.tokens, own.tokens if "embed" in stages else {}),
        generated=joined(measured.generated, {s: own.generated[s] for s in own.generated if s in stages}),
        questions=pick(measured.questions, own.questions, "rewrite"),
        kept=pick(measured.kept, own.kept, same.KEPT),
        answered=pick(measured.answered, own.answered, same.ANSWERED),
        below=pick(measured.below, own.below, same.BELOW),
        devices=joined(measured.devices, {s: own.devices[s] for s in own.devices if s in stages}),
    )
    told = [f"from the rehearsal of {rehearsal.on}: {', '.join(stages)}"] if stages else []
    return filled, {**basis, **stages}, told
