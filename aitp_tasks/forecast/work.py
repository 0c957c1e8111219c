"""How much a run has to do: its input, what of that is done, and what the stages hand on."""

import math
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Self

from aitp_tasks.config import Allocation, Difference, Finetune, RunConfig
from aitp_tasks.dataset import budget
from aitp_tasks.forecast import parts as part_sizes
from aitp_tasks.forecast.costs import Measured
from aitp_tasks.records import embedded, generated
from aitp_tasks.records.plan import UNKNOWN_ROWS, Group, Plan, Shard
from aitp_tasks.records.run import Run
from aitp_tasks.records.versions import Yield
from aitp_tasks.selection import yields
from aitp_tasks.selection.sampled import part_count, pilot_size

#: Stages whose units are groups of shards.
_BY_GROUP = ("embed", "density")


@dataclass(frozen=True)
class Sizes:
    """How much input the run has; ``units`` are the rows of each of its embed units, in order."""

    units: tuple[tuple[str, int], ...]
    #: Shards whose rows no footer tells, and that count by their bytes.
    guessed: int = 0

    @classmethod
    def of(cls, plan: Plan) -> Self:
        """Those of a plan; a shard without a row count has as many a byte as the others of its role."""
        counted = {role: _rows_per_byte(plan, role) for role in ("corpus", "sft")}
        unknown = sum(shard.rows == UNKNOWN_ROWS for group in plan.groups for shard in group.shards)
        return cls(
            tuple(
                (group.role, sum(rows(shard, counted[shard.role]) for shard in group.shards))
                for group in plan.groups
            ),
            unknown,
        )

    def rows(self, role: str) -> int:
        """All rows of ``corpus`` or ``sft``."""
        return sum(rows for kind, rows in self.units if kind == role)


def rows(shard: Shard, per_byte: float) -> int:
    """Rows of a shard, or what its bytes say."""
    return shard.rows if shard.rows != UNKNOWN_ROWS else round(per_byte * shard.size)


def _rows_per_byte(plan: Plan, role: str) -> float:
    known = [shard for group in plan.groups_of(role) for shard in group.shards if shard.rows != UNKNOWN_ROWS]
    return sum(shard.rows for shard in known) / max(sum(shard.size for shard in known), 1)


@dataclass(frozen=True)
class Done:
    """What of a run is there already, and costs nothing.

    Attributes:
        stages: that have a manifest of their own.
        units: how many of each stage that fans out.
        embedded: of each group of the plan, the share of its rows that has vectors, in whatever run they
            were made; 1 for a unit that is done.
        selected: documents that are drawn; None where that is not known yet.
        parts: of those.
        pilot_parts: of these, those of a pilot.
    """

    stages: frozenset[str] = frozenset()
    units: Mapping[str, int] = field(default_factory=dict)
    embedded: tuple[float, ...] = ()
    selected: int | None = None
    parts: int | None = None
    pilot_parts: int = 0

    @classmethod
    def of(cls, run: Run) -> Self:
        """Look at a run: one listing, and a look at each shard of the units that are not done."""
        there = {info.key for info in run.storage.list(f"{run.prefix}/")}
        stages = frozenset(
            key.split("/")[-2] for key in there if key.endswith("/manifest.json") and key.count("/") == 4
        )
        difference = run.find_manifest("difference") if "difference" in stages else None
        parts = run.parts if difference else []
        units = {
            stage: sum(run.manifest_key(stage, group.digest) in there for group in run.plan.groups)
            for stage in _BY_GROUP
        }
        units |= {
            stage: sum(run.manifest_key(stage, part) in there for part in parts) for stage in generated.STAGES
        }
        shares = _embedded(
            run, [run.manifest_key("embed", group.digest) in there for group in run.plan.groups]
        )
        return cls(
            stages,
            units,
            tuple(shares),
            int(difference.figures["selected"]) if difference else None,
            len(parts) if difference else None,
            len(run.pilot_parts) if difference else 0,
        )


def _embedded(run: Run, done: Iterable[bool]) -> Iterable[float]:
    """The share of each group's bytes that has vectors."""
    storage = run.storage

    def has_vectors(shard: Shard) -> bool:
        prefix = embedded.shard_prefix(run, shard.role, shard.key, shard.etag)
        return storage.find(f"{prefix}/manifest.json") is not None

    def share(group: Group, found: Iterable[bool]) -> float:
        sizes = [(shard.size, there) for shard, there in zip(group.shards, found, strict=True)]
        total = sum(size for size, _ in sizes)
        return (
            sum(size for size, there in sizes if there) / total if total else float(all(t for _, t in sizes))
        )

    with ThreadPoolExecutor(storage.concurrency) as pool:
        for group, is_done in zip(run.plan.groups, done, strict=True):
            yield 1.0 if is_done else share(group, pool.map(has_vectors, group.shards))


@dataclass(frozen=True)
class Places:
    """What the dataset has room for.

    Attributes:
        pairs: new ones that can come in, at most; infinite where there is no limit.
        documents: that are drawn for them, at most.
        has_pilot: whether some of these are rewritten before the others are drawn.
    """

    pairs: float
    documents: int
    has_pilot: bool = False

    @classmethod
    def of(cls, plan: Plan, sft: int) -> Self:
        """Those of a plan, with so many rows on the SFT side."""
        config, earlier = (
            plan.config,
            sum(max(shard.rows, 0) for group in plan.groups_of_pairs for shard in group.shards),
        )
        learnt = budget.trained_on(sft - earlier, config.evaluate.held_out)
        room = budget.room(learnt, config.assemble.max_rewritten_share)
        most = config.difference.max_documents
        if room is None:
            return cls(math.inf, most, _has_pilot(plan))
        # Of a full dataset nobody knows how many pairs will be exchanged: all of them at most.
        pairs = room - earlier if room > earlier else room
        measured = plan.base.measured if plan.base else Yield()
        return cls(pairs, min(most, budget.documents(pairs, measured)), _has_pilot(plan))


def _has_pilot(plan: Plan) -> bool:
    """Whether nothing is known yet of what documents give where that is to decide."""
    known = yields.earlier(plan)
    return plan.config.difference.allocation is Allocation.YIELD and not (known and any(known.documents))


@dataclass(frozen=True)
class Forecast:
    """How much each stage of the run will have to do; to each question that is kept, some answers."""

    documents: int
    sft_examples: int
    below_tau: int
    selected: int
    parts: int
    questions: int
    kept: int
    answers: int
    pairs: int
    steps: int
    #: Of the parts, those of a pilot.
    pilot_parts: int = 0


def forecast(
    config: RunConfig, sizes: Sizes, measured: Measured, places: Places, done: Done | None = None
) -> Forecast:
    """What the run will have to do, all of it; where a share was not measured, the most that it can be."""
    documents, sft = sizes.rows("corpus"), sizes.rows("sft")
    below = round(documents * share_below(config.difference, documents, measured))
    selected, parts = selection(config, below, places, measured)
    pilots = pilot(config.difference, selected)[0] if places.has_pilot else 0
    if done is not None and done.selected is not None and done.parts is not None:
        selected, parts, pilots = done.selected, done.parts, done.pilot_parts
    questions = round(selected * part_sizes.questions_of_a_document(config, measured))
    kept = round(questions * part_sizes.kept(measured))
    answers = kept * config.prompts.answers_per_question
    passed = kept if measured.answered is None else min(round(answers * measured.answered), kept)
    pairs = int(min(passed, places.pairs))
    return Forecast(
        documents=documents,
        sft_examples=sft,
        below_tau=below,
        selected=selected,
        parts=parts,
        pilot_parts=pilots,
        questions=questions,
        kept=kept,
        answers=answers,
        pairs=pairs,
        steps=steps(config.finetune, sft + pairs),
    )


def share_below(settings: Difference, documents: int, measured: Measured) -> float:
    """Share of the documents that the threshold selects: as the target says, as measured, or all."""
    if settings.target_share is not None:
        return settings.target_share
    if settings.target_documents is not None:
        return min(settings.target_documents / max(documents, 1), 1.0)
    return 1.0 if measured.below is None else measured.below


def selection(config: RunConfig, below: int, places: Places, measured: Measured) -> tuple[int, int]:
    """Documents that will be selected of those below tau, and the parts they make."""
    selected = min(places.documents, below)
    pilots, of_pilot = pilot(config.difference, selected) if places.has_pilot else (0, 0)
    per_part = part_sizes.size(config, measured).documents
    return selected, pilots + part_count(selected - of_pilot, per_part)


def pilot(settings: Difference, selected: int) -> tuple[int, int]:
    """Parts of a pilot, one of each region, and the documents that they hold together."""
    each = pilot_size(settings, selected)
    return (settings.regions, settings.regions * each) if each else (0, 0)


def steps(settings: Finetune, examples: int) -> int:
    """Optimiser steps of the fine-tuning, as transformers counts them."""
    if settings.max_steps > 0:
        return settings.max_steps
    batches = -(-examples // (settings.batch_size * settings.ranks))
    return max(math.ceil(settings.epochs * max(-(-batches // settings.gradient_accumulation), 1)), 1)
