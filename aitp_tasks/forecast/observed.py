"""What the manifests of one run tell: seconds, items and devices of processes; shares between stages.

Of each stage a few units are read, spread over all of them. A manifest counts where the run's
setup of that stage is the wanted one (see ``same``); one whose figures cannot be is left out
by name and number.
"""

import json
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from aitp_tasks.errors import InputError
from aitp_tasks.forecast import same
from aitp_tasks.forecast.costs import seconds_per_step
from aitp_tasks.records import generated, manifest
from aitp_tasks.records.manifest import Manifest
from aitp_tasks.records.plan import Plan
from aitp_tasks.records.run import Run

#: Units of a stage that are read of one run.
MOST_UNITS = 16
#: Longer than any task may take: such a duration is none.
_MOST_SECONDS = 14 * 24 * 3600.0
#: By which rounded figures may be more than the whole.
_ROUNDING = 0.5
_PLAIN = ("merge", "density", "index", "difference", "allocate", "assemble", "report")
#: Stages that train, and evaluate: the fine-tune, and its twin on the SFT set alone.
TRAINING = ("finetune", "evaluate")
OTHER_SETTINGS, IMPOSSIBLE, UNREADABLE = "other settings", "impossible figures", "unreadable"


@dataclass(frozen=True)
class Observation:
    """One process, as its manifest tells it.

    Attributes:
        seconds: it took.
        items: rows, requests or steps that it has dealt with, without those that it found done.
        busy: of the seconds, those that grow with the items.
        device: name of the device; empty where none was held.
        devices: how many it held.
        written: when, in seconds since 1970, by the storage's clock.
        tokens: that were seen or generated for the items.
    """

    seconds: float
    items: float = 0.0
    busy: float = 0.0
    device: str = ""
    devices: int = 0
    written: float = 0.0
    tokens: float = 0.0

    @property
    def is_possible(self) -> bool:
        """Whether the figures can be: a clock that jumps, or a hand, makes others."""
        values = (self.seconds, self.items, self.busy, self.tokens)
        return (
            all(math.isfinite(value) and value >= 0 for value in values)
            and self.seconds <= _MOST_SECONDS
            and self.busy <= self.seconds + _ROUNDING
            and self.devices >= 0
        )


@dataclass
class Seen:
    """What one run tells.

    Attributes:
        rows: of the run's input, all roles.
        groups: of the run's shards.
        processes: by stage, of embed by role.
        shares: whole and part, by what they are of.
        left_out: how many units are not used, by stage and why.
    """

    rows: int
    groups: int
    processes: dict[str, list[Observation]] = field(default_factory=dict)
    shares: dict[str, tuple[float, float]] = field(default_factory=dict)
    left_out: Counter[tuple[str, str]] = field(default_factory=Counter)


_Found = dict[str, tuple[Manifest, float]]


def of_run(run: Run, wanted: Mapping[str, str]) -> Seen:
    """Read a run; ``wanted`` are the setups of the run that is planned."""
    seen = Seen(rows_of(run.plan), len(run.plan.groups))
    own = same.setups(run.plan)
    fits = {name for name, setup in wanted.items() if own.get(name) == setup}
    roles = {group.digest: group.role for group in run.plan.groups}
    found: dict[str, _Found] = {}
    for stage in ("embed", *_PLAIN, *generated.STAGES, *TRAINING):
        units = found[stage] = dict(_units(run, stage, seen))
        if stage in wanted and stage not in fits:
            seen.left_out[stage, OTHER_SETTINGS] += len(units)
            continue
        for unit, (done, written) in units.items():
            name = f"embed {roles.get(unit, 'corpus')}" if stage == "embed" else stage
            _add(seen, name, _observed(run, stage, done), written)
    _add_shares(seen, found, fits)
    return seen


def rows_of(plan: Plan) -> int:
    """All rows that the shards of a plan tell of."""
    return sum(max(shard.rows, 0) for group in plan.groups for shard in group.shards)


def spread(keys: Sequence[Any], most: int = MOST_UNITS) -> list[Any]:
    """At most so many of some keys, evenly spread."""
    if len(keys) <= most:
        return list(keys)
    return [keys[place * len(keys) // most] for place in range(most)]


def _units(run: Run, stage: str, seen: Seen) -> Iterator[tuple[str, tuple[Manifest, float]]]:
    """Name of some units, with their manifests and when these were written."""
    prefix = run.key(stage, "")
    dated = [
        (info.key, written)
        for info, written in run.storage.list_dated(prefix)
        if info.key.endswith(".json") and "/" not in info.key.removeprefix(prefix)
    ]
    # Beside a manifest there may be what it names, a log of the training.
    dated = [(key, at) for key, at in dated if "log_history" not in key]

    def read(entry: tuple[str, float]) -> Manifest | None:
        try:
            return manifest.load(run.storage, entry[0])
        except (InputError, ValueError):
            return None

    chosen = spread(dated)
    with ThreadPoolExecutor(run.storage.concurrency) as pool:
        for (key, written), done in zip(chosen, pool.map(read, chosen), strict=True):
            if done is None:
                seen.left_out[stage, UNREADABLE] += 1
            else:
                yield key.removeprefix(prefix).removesuffix(".json"), (done, written)


def _add(seen: Seen, name: str, observed: Observation | None, written: float) -> None:
    if observed is None:
        # All of it was found done: there is nothing to learn.
        return
    if not observed.is_possible:
        seen.left_out[name.partition(" ")[0], IMPOSSIBLE] += 1
        return
    values = {**vars(observed), "busy": min(observed.busy, observed.seconds), "written": written}
    seen.processes.setdefault(name, []).append(Observation(**values))


def _observed(run: Run, stage: str, done: Manifest) -> Observation | None:
    """What a manifest tells of its process; None where it has done nothing."""
    try:
        if stage in _PLAIN:
            return Observation(done.seconds)
        items, busy, tokens = _work(run, stage, done)
        if items <= 0 and math.isfinite(items):
            return None
        figures = done.figures
        return Observation(
            done.seconds, items, busy, str(figures["device"]), int(figures["devices"]), tokens=tokens
        )
    except (KeyError, IndexError, TypeError, ValueError, OverflowError, InputError):
        return Observation(math.nan)


def _work(run: Run, stage: str, done: Manifest) -> tuple[float, float, float]:
    """Items, the seconds that grow with them, and tokens."""
    figures = done.figures
    if stage == "embed":
        rows = float(figures["rows_embedded_now"])
        held = done.ledger.rows_in if done.ledger else 0
        tokens = float(figures["tokens"]) * rows / max(held, 1)
        return rows, float(figures["busy_seconds"]), tokens
    if stage == "finetune":
        if figures.get("unchanged"):
            return 0.0, 0.0, 0.0
        steps = float(figures["steps"])
        history = json.loads(run.storage.read(done.output("log_history")))
        # Of a single step, the first, most is warming up.
        return steps, min(steps * seconds_per_step(history), done.seconds), 0.0
    if stage == "evaluate":
        # No second where the baseline was there, so that the mean is what a step is to be expected to take.
        return float(figures["steps"]), float(figures["baseline_seconds"]), 0.0
    return requests(figures), busy(figures), generated_tokens(figures)


def requests(figures: Mapping[str, Any]) -> float:
    """Requests that were answered now; a second attempt belongs to its request."""
    generated, retried = float(figures["generated"]), float(figures["retried"])
    return generated - retried if generated > retried else generated


def busy(figures: Mapping[str, Any]) -> float:
    """Seconds of a prompt stage that grow with its requests: of the judge's and of ranking too."""
    beside = (figures[name]["busy_seconds"] for name in ("judge", "ranking") if name in figures)
    return float(figures["busy_seconds"]) + sum(map(float, beside))


def generated_tokens(figures: Mapping[str, Any]) -> float:
    """Tokens that a prompt stage has generated, its judge's among them."""
    return float(figures["generated_tokens"]) + float(figures.get("judge", {}).get("generated_tokens", 0))


def _add_shares(seen: Seen, found: Mapping[str, _Found], fits: Iterable[str]) -> None:
    for done, _ in found["difference"].values():
        documents, below = (done.figures.get(name, 0) for name in ("documents", "below_tau"))
        _add_share(seen, same.BELOW, fits, documents, below)
    rewrite, score, answer = (found[stage] for stage in generated.STAGES)
    both = rewrite.keys() & score.keys()
    _add_share(seen, "rewrite", fits, _rows(rewrite, both, "rows_in"), _rows(score, both, "rows_in"))
    _add_share(seen, same.KEPT, fits, _rows(score, score, "rows_in"), _rows(score, score, "rows_out"))
    _add_share(seen, same.ANSWERED, fits, _rows(answer, answer, "rows_in"), _rows(answer, answer, "rows_out"))


def _rows(found: _Found, units: Iterable[str], which: str) -> int:
    return sum(int(getattr(found[unit][0].ledger, which, 0)) for unit in units)


def _add_share(seen: Seen, name: str, fits: Iterable[str], whole: Any, part: Any) -> None:
    numbers = all(isinstance(value, int | float) and math.isfinite(value) for value in (whole, part))
    if name in fits and numbers and whole > 0 and part >= 0:
        seen.shares[name] = (float(whole), float(part))
