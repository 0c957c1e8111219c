"""What the report tells: gathered from manifests, and for scores and samples from small tables.

Nothing here draws or formats. All parts' scores are read by three columns; see
``samples`` for the pairs that are shown.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aitp_tasks.config import Criterion, Verdict
from aitp_tasks.records import generated, projected, selected, tables
from aitp_tasks.records.manifest import Ledger, Manifest, add_counts
from aitp_tasks.records.plan import Unread
from aitp_tasks.records.run import Run
from aitp_tasks.report import samples

SCORES = range(1, 11)
_SCORE_NAMES = {
    Criterion.DENSITY_RATIO: "p_sft / p_corpus",
    Criterion.SFT_DENSITY: "p_sft",
    Criterion.AUTHORS_COMPAT: "p_corpus / p_sft",
    Criterion.KNN: "mean cosine to the nearest SFT examples",
    Criterion.GAUSSIAN: "log(p_sft / p_corpus) of two Gaussians",
}
_GENERATION_SUMS = (
    "requests",
    "reused",
    "retried",
    "documents_cut",
    "prompt_tokens",
    "generated_tokens",
    "engine_restarts",
)
_SAMPLES = 12
#: Points drawn of the difference set; more only blacken the picture.
_POINTS = 4000


@dataclass(frozen=True)
class StageCost:
    """What one stage took, over its units."""

    stage: str
    units: int
    seconds: float
    slowest: Manifest
    peak_memory_mb: float
    #: Rows or tokens per second over the units that did work, with the unit's name; None where none is kept.
    rate: str | None


@dataclass(frozen=True)
class Generation:
    """What the engine did for one prompt, over the parts of its stage."""

    stage: str
    #: Of ``generation``'s figures, those that add up.
    sums: dict[str, int]
    #: Responses whose text had to be mended, by what was.
    repairs: dict[str, int]
    #: Marks of the model's conversation that were made plain in the prompts, and how often each.
    neutralised: dict[str, int]
    prefix_hit_share: float
    load_seconds: float


@dataclass(frozen=True)
class Input:
    """One dump, or the SFT set, as it was read."""

    role: str
    source: str
    forms: list[str]
    texts: int
    tokens: int
    truncated_texts: int
    repeated_texts: int


@dataclass(frozen=True)
class Densities:
    """Both densities on one grid, and the difference set in it.

    ``corpus`` and ``sft``: float32 (ny, nx); ny is 1 where there is one axis only.
    ``sft_alone``: the same without the pairs of earlier versions; None where there are none.
    ``x``: float64 (nx,). ``y``: float64 (ny,).
    ``points``: float64 (n, 2), at most a few thousand documents.
    """

    corpus: NDArray[np.float32]
    sft: NDArray[np.float32]
    sft_alone: NDArray[np.float32] | None
    x: NDArray[np.float64]
    y: NDArray[np.float64]
    points: NDArray[np.float64]

    @property
    def in_one_dimension(self) -> bool:
        """Whether there is no second axis."""
        return len(self.y) == 1


@dataclass
class ScoreCounts:
    """How many questions have each score from 1 to 10: kept, and not kept."""

    kept: NDArray[np.int64] = field(default_factory=lambda: np.zeros(len(SCORES), np.int64))
    dropped: NDArray[np.int64] = field(default_factory=lambda: np.zeros(len(SCORES), np.int64))

    def add(self, scores: NDArray[np.int64], kept: NDArray[np.bool_]) -> None:
        """Count some questions."""
        for counts, chosen in ((self.kept, kept), (self.dropped, ~kept)):
            counts += np.bincount(scores[chosen] - 1, minlength=len(SCORES))[: len(SCORES)]


@dataclass(frozen=True)
class Facts:
    """Everything the report shows."""

    headline: dict[str, Any]
    funnel: list[tuple[str, int]]
    inputs: list[Input]
    ledgers: list[tuple[str, Ledger]]
    costs: list[StageCost]
    generation: list[Generation]
    #: How often the prompt stages have started an engine for each part, restarts included; None of earlier
    #: releases.
    engine_starts_per_part: float | None
    #: How many answers a judge has given each verdict; nothing where none were judged.
    verdicts: dict[str, int]
    index: Manifest
    #: What lies in the inputs' folders and was not read.
    unread: tuple[Unread, ...]
    #: Why some shards of the corpus took no part, by their keys.
    failed_shards: dict[str, str]
    difference: Manifest
    assemble: Manifest
    finetune: Manifest
    #: None where nothing is held out.
    evaluate: Manifest | None
    #: Questions with what the three models answer; see evaluate.
    answers: list[dict[str, Any]]
    explained_variance: list[float]
    densities: Densities
    #: Corpus, and the SFT side without the new pairs (``sft_alone``) and with them; None of earlier releases.
    gained: Densities | None
    quality: ScoreCounts
    difficulty: ScoreCounts
    #: What each gate has left out, as ``selection.removals`` tells it; none of earlier releases.
    removals: list[dict[str, Any]]
    samples: list[dict[str, Any]]
    log_history: list[dict[str, Any]]

    @property
    def is_ratio(self) -> bool:
        """Whether tau is compared with p_sft / p_corpus."""
        return Criterion(self.difference.figures["criterion"]) is Criterion.DENSITY_RATIO

    @property
    def said(self) -> list[tuple[str, int, int, int]]:
        """What some examples have besides roles and contents, by name, in the order of the names.

        How many have it, of how many ShareGPT has no place for it, and of how many it was not learnt.
        """
        # Not there in earlier releases.
        told = self.assemble.figures.get("examples", {})
        kept, lost = told.get("kept", {}), told.get("lost", {})
        unused = self.finetune.figures.get("unused", {})
        names = sorted({*kept, *lost, *unused})
        return [(name, kept.get(name, 0), lost.get(name, 0), unused.get(name, 0)) for name in names]

    @property
    def score_name(self) -> str:
        """What is compared with tau, in symbols."""
        return _SCORE_NAMES[Criterion(self.difference.figures["criterion"])]


def gather(run: Run) -> Facts:
    """Read what all stages have left.

    Raises:
        InputError: an earlier stage has not been run.
    """
    units = {stage: list(_manifests(run, stage)) for stage in _stages(run)}
    difference, assemble, finetune = (units[stage][0] for stage in ("difference", "assemble", "finetune"))
    if evaluated := run.find_manifest("evaluate"):
        units["evaluate"] = [evaluated]
    ledgers = _ledgers(run, units)
    counts = _scores(run)
    headline = _headline(dict(ledgers)["embed (corpus)"].rows_out, difference, counts, assemble, finetune)
    answered = sum(_ledger(unit).rows_out for unit in units["answer"])
    return Facts(
        headline=headline,
        funnel=_funnel(headline, counts, answered),
        inputs=_inputs(run, units["embed"]),
        ledgers=ledgers,
        generation=_generations(units),
        engine_starts_per_part=_engine_starts(units),
        verdicts=_verdicts(units["answer"]),
        costs=[_cost(stage, manifests) for stage, manifests in units.items() if manifests],
        index=units["index"][0],
        unread=run.plan.unread,
        failed_shards=dict(units["merge"][0].figures.get("failed_shards", {})),
        difference=selected.told(run),
        assemble=assemble,
        finetune=finetune,
        evaluate=evaluated,
        answers=_answers(run, evaluated),
        explained_variance=list(units["merge"][0].figures["corpus_explained_variance"]),
        densities=_densities(run, difference),
        gained=_gained(run, assemble),
        quality=counts.quality,
        difficulty=counts.difficulty,
        removals=_removals(run, assemble),
        samples=samples.read(run, assemble, _SAMPLES),
        log_history=json.loads(run.storage.read(finetune.output("log_history"))),
    )


def _headline(
    documents: int, difference: Manifest, counts: "_Scored", assemble: Manifest, finetune: Manifest
) -> dict[str, Any]:
    """The run in a dozen figures, as the stage's result has them too."""
    return {
        "documents": documents,
        "below_tau": int(difference.figures["below_tau"]),
        "selected": int(difference.figures["selected"]),
        "questions": counts.questions,
        "kept": counts.kept,
        "pairs": int(assemble.figures["pairs"]),
        "earlier_pairs": int(assemble.figures["earlier_pairs"]),
        "sft_examples": int(assemble.figures["sft_examples"]),
        "rewritten_share": assemble.figures["rewritten_share"],
        "train_loss_first": finetune.figures["train_loss_first"],
        "train_loss_last": finetune.figures["train_loss_last"],
    }


def _funnel(headline: dict[str, Any], counts: "_Scored", answered: int) -> list[tuple[str, int]]:
    """How many are left after each step, from documents to pairs."""
    return [
        ("documents embedded", headline["documents"]),
        ("below τ", headline["below_tau"]),
        ("selected for rewriting", headline["selected"]),
        ("questions", counts.questions),
        ("questions scored", int(counts.quality.kept.sum() + counts.quality.dropped.sum())),
        ("questions kept by the gates", counts.kept),
        ("questions answered", answered),
        ("pairs in the dataset", headline["pairs"]),
    ]


def _stages(run: Run) -> tuple[str, ...]:
    allocated = ("allocate",) if run.pilot_parts else ()
    before = ("embed", "merge", "density", "index", "difference", *allocated)
    return (*before, *generated.STAGES, "assemble", "finetune")


def _manifests(run: Run, stage: str) -> Iterator[Manifest]:
    """A stage's manifests, one for each of its units."""
    if stage in ("embed", "density"):
        for group in run.plan.groups:
            yield run.require_manifest(stage, group.digest, what=f"{stage} of {group.label}")
    elif stage in generated.STAGES:
        for part in generated.parts(run, stage):
            yield generated.part_manifest(run, stage, part)
    else:
        yield run.require_manifest(stage)


def _inputs(run: Run, units: list[Manifest]) -> list[Input]:
    """Embedded texts of each source; repeats are counted within a shard."""
    by_source: dict[tuple[str, str], list[Manifest]] = {}
    for group, unit in zip(run.plan.groups, units, strict=True):
        by_source.setdefault((group.role, group.source), []).append(unit)
    return [
        Input(
            role=role,
            source=source,
            forms=sorted({form for unit in found for form in unit.figures["forms"]}),
            texts=sum(_ledger(unit).rows_out for unit in found),
            **{
                name: sum(int(unit.figures[name]) for unit in found)
                for name in ("tokens", "truncated_texts", "repeated_texts")
            },
        )
        for (role, source), found in by_source.items()
    ]


def _ledger(done: Manifest) -> Ledger:
    return done.ledger or Ledger(rows_in=0, rows_out=0)


def _sum(units: Iterable[Manifest]) -> Ledger:
    total = Ledger(rows_in=0, rows_out=0)
    for unit in units:
        total = total.plus(_ledger(unit))
    return total


def _ledgers(run: Run, units: dict[str, list[Manifest]]) -> list[tuple[str, Ledger]]:
    """One ledger per stage; embed's by role, since only one of them feeds the funnel."""
    by_role = {
        f"embed ({role})": [
            unit for group, unit in zip(run.plan.groups, units["embed"], strict=True) if group.role == role
        ]
        for role in ("corpus", "sft")
    }
    named = by_role | {stage: manifests for stage, manifests in units.items() if stage != "embed"}
    return [(name, _sum(manifests)) for name, manifests in named.items() if manifests]


def _generations(units: dict[str, list[Manifest]]) -> list[Generation]:
    """What the engine did for each prompt, that of the judge last."""
    figures = {stage: [unit.figures for unit in units[stage]] for stage in generated.STAGES}
    figures["judge"] = [each["judge"] for each in figures["answer"] if "judge" in each]
    return [_generation(prompt, each) for prompt, each in figures.items() if each]


def _engine_starts(units: Mapping[str, list[Manifest]]) -> float | None:
    told = [unit.figures.get("engine_starts") for stage in generated.STAGES for unit in units[stage]]
    starts = [int(count) for count in told if count is not None]
    return sum(starts) / max(len(units[stage]) for stage in generated.STAGES) if starts else None


def _verdicts(units: list[Manifest]) -> dict[str, int]:
    told = [unit.figures["judge"]["verdicts"] for unit in units if "judge" in unit.figures]
    return {verdict: sum(each[verdict] for each in told) for verdict in reversed(Verdict)} if told else {}


def _generation(stage: str, figures: list[dict[str, Any]]) -> Generation:
    repairs: dict[str, int] = {}
    neutralised: dict[str, int] = {}
    for figure in figures:
        repairs = add_counts(repairs, figure["repairs"])
        # Not there in earlier releases.
        neutralised = add_counts(neutralised, figure.get("neutralised", {}))
    prompt_tokens = sum(figure["prompt_tokens"] for figure in figures)
    hits = sum(figure["prefix_hit_share"] * figure["prompt_tokens"] for figure in figures)
    return Generation(
        stage=stage,
        sums={name: sum(int(figure[name]) for figure in figures) for name in _GENERATION_SUMS},
        repairs=repairs,
        neutralised=neutralised,
        prefix_hit_share=hits / prompt_tokens if prompt_tokens else 0.0,
        load_seconds=sum(float(figure["load_seconds"]) for figure in figures),
    )


def _cost(stage: str, units: list[Manifest]) -> StageCost:
    return StageCost(
        stage=stage,
        units=len(units),
        seconds=sum(unit.seconds for unit in units),
        slowest=max(units, key=lambda unit: unit.seconds),
        peak_memory_mb=max(unit.peak_memory_mb for unit in units),
        rate=_rate(stage, units),
    )


def _rate(stage: str, units: list[Manifest]) -> str | None:
    """Work per second of the units' own time; None when all of it was there already."""
    name, unit_name = {"embed": ("rows_per_second", "texts/s")}.get(stage, ("tokens_per_second", "tokens/s"))
    rates = [float(unit.figures[name]) for unit in units if unit.figures.get(name)]
    return f"{sum(rates) / len(rates):,.0f} {unit_name}" if rates else None


def _densities(run: Run, difference: Manifest) -> Densities:
    from safetensors.numpy import load

    grids = load(run.storage.read(difference.output("grids")))
    points: list[NDArray[np.float64]] = [np.empty((0, 2))]
    axes = list(projected.AXES[: min(run.config.density.components, 2)])
    for part in run.parts:
        found = projected.points(selected.table(run, part, axes))
        points.append(np.pad(found, ((0, 0), (0, 2 - found.shape[1]))))
        if sum(map(len, points)) >= _POINTS:
            break
    return Densities(
        corpus=grids["p_corpus"],
        sft=grids["p_sft"],
        sft_alone=grids.get("p_sft_alone"),
        x=grids["x"],
        y=grids["y"],
        points=np.concatenate(points)[:_POINTS],
    )


def _gained(run: Run, assemble: Manifest) -> Densities | None:
    if "densities" not in assemble.outputs:
        return None
    return gained(run.storage.read(assemble.output("densities")))


def gained(data: bytes) -> Densities:
    """The densities that assemble has drawn: without the new pairs (``sft_alone``), and with them."""
    from safetensors.numpy import load

    grids = load(data)
    return Densities(
        corpus=grids["p_corpus"],
        sft=grids["p_after"],
        sft_alone=grids["p_before"],
        x=grids["x"],
        y=grids["y"],
        points=np.empty((0, 2)),
    )


@dataclass
class _Scored:
    """The questions of all parts: by score, how many there were, and how many were kept."""

    quality: ScoreCounts = field(default_factory=ScoreCounts)
    difficulty: ScoreCounts = field(default_factory=ScoreCounts)
    questions: int = 0
    kept: int = 0


def _scores(run: Run) -> _Scored:
    """Count the questions of all parts."""
    counts = _Scored()
    for part in generated.parts(run, "score"):
        counts.questions += _ledger(generated.part_manifest(run, "score", part)).rows_in
        table = generated.table(run, "score", part, ["quality", "difficulty", "kept"])
        kept = table["kept"].to_numpy(zero_copy_only=False).astype(bool)
        counts.kept += int(kept.sum())
        counts.quality.add(table["quality"].to_numpy(), kept)
        counts.difficulty.add(table["difficulty"].to_numpy(), kept)
    return counts


def _answers(run: Run, evaluated: Manifest | None) -> list[dict[str, Any]]:
    """What the models answer; nothing of earlier releases."""
    key = evaluated.outputs.get("generations") if evaluated else None
    rows: list[dict[str, Any]] = tables.read(run.storage, key).to_pylist() if key else []
    return rows


def _removals(run: Run, assemble: Manifest) -> list[dict[str, Any]]:
    if "removals" not in assemble.outputs:
        return []
    found: list[dict[str, Any]] = json.loads(run.storage.read(assemble.output("removals")))
    return found
