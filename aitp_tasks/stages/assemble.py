"""assemble: the new pairs, the earlier ones and the SFT set become one dataset version.

Reads pairs, scores and documents of all parts, the SFT shards, the pairs of the version
that the run builds on, the SFT index and both densities, by which it is chosen who comes in
and who stays (see ``selection.incoming`` and ``selection.contest``). Writes
``datasets/<name>/<version>/``: Parquet shards with a ``messages`` column and where each
pair comes from, the same as ShareGPT and Alpaca JSON with the ``dataset_info.json`` that
LLaMA-Factory loads, a card with its picture, ``croissant.json``; and adds the version to its
line (see ``versions``). These files lie below a prefix of this try first, and get their names
in the version once it is committed (see ``published``). What no reader of the dataset should
come across is named by its content and lies elsewhere: for later runs, the version's pairs below
``datasets/<name>/records/``; with the run, those that are left out and by which rule (see
``selection.removals``).

A run whose pairs and SFT set are those of the version that it builds on makes no
version: its dataset is that one.

With ``evaluate.held_out``, SFT examples and the pairs of documents are left out that
nothing is ever to be trained on; they become files of the run, and half of them the version's
split for validations where ``assemble.validation_split`` wants that. Whether the version becomes
the latest of its line is promote's to say then, if ``evaluate.promote`` wants that.
"""

import logging
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from aitp_tasks.config import Marks, Promote
from aitp_tasks.dataset import budget, card, croissant, figures, funnel, new_pairs, sections, sft
from aitp_tasks.dataset.apart import Apart
from aitp_tasks.dataset.export import ALPACA, DATASET_INFO, SCHEMA, SHAREGPT, Export, Told
from aitp_tasks.records import (
    data_files,
    digest,
    embedded,
    generated,
    held_out,
    pairs,
    projected,
    published,
    selected,
    tables,
    versions,
)
from aitp_tasks.records.manifest import Ledger, Manifest, Stopwatch, add_counts
from aitp_tasks.records.marks import HOLDS_MARKS
from aitp_tasks.records.pair_texts import Pair, PairTexts
from aitp_tasks.records.run import Run
from aitp_tasks.selection import contest, gain, left_out, near_duplicates, removals, yields
from aitp_tasks.selection.contamination.guard import NEW
from aitp_tasks.selection.contest import Choice
from aitp_tasks.selection.incoming import Incoming
from aitp_tasks.selection.personal_data import PersonalData

log = logging.getLogger(__name__)

_PART_GIVEN_UP = "document_of_a_part_given_up"
#: What the manifest calls the files that are no shards.
_OUTPUTS = {
    **{SHAREGPT: "sharegpt", ALPACA: "alpaca", DATASET_INFO: "dataset_info"},
    **{card.NAME: "card", sections.PICTURE: "coverage_picture", croissant.NAME: "croissant"},
}


def execute(run: Run, unit: None = None) -> dict[str, Any]:
    """Assemble the dataset version of a run.

    Raises:
        InputError: an earlier stage has not been run.
        ObjectChangedError: an SFT shard was replaced after it was embedded.
    """
    watch = Stopwatch()
    done = run.find_manifest("assemble") or _assemble(run, watch)
    published.publish(run, done, version_key(run))
    if is_unchanged(done):
        _settle(run)
    line, promote = run.config.assemble.dataset, run.config.evaluate.promote
    is_latest = _join_line(run, done)
    if is_latest or promote is not Promote.ALWAYS:
        versions.take_in(run.storage, line, run.config.dumps, run.prefix)
    return {
        "stage": "assemble",
        "run": run.uri,
        "label": done.label,
        "dataset": run.storage.uri(data_files.folder(done)),
        "unchanged": is_unchanged(done),
        "pairs": done.figures["pairs"],
        "earlier_pairs": done.figures["earlier_pairs"],
        "sft_examples": done.figures["sft_examples"],
        # Not frozen with the manifest: it changes when other versions come.
        "is_latest": is_latest,
        "promote": promote.value,
        "parts_given_up": len(done.figures.get("parts_given_up", {})),
        "seconds": watch.seconds(),
    }


def _join_line(run: Run, done: Manifest) -> bool:
    """Add the version to its line, if there is one; whether ``latest`` names it, or one that builds on it."""
    line = run.config.assemble.dataset
    if is_unchanged(done):
        return versions.is_latest(run.storage, line, done.figures["version"])
    made = _version(run, done)
    if run.config.evaluate.promote is Promote.ALWAYS:
        return versions.add(run.storage, line, made)
    versions.write(run.storage, line, made)
    return versions.is_latest(run.storage, line, made.name)


def is_unchanged(done: Manifest) -> bool:
    """Whether no version was made, because it would be the one before."""
    return bool(done.figures.get("unchanged"))


def version(run: Run) -> str:
    """Name of the dataset version that a run makes."""
    return run.plan.version(run.digest)


def version_key(run: Run) -> str:
    """Prefix of the dataset version's objects."""
    return versions.prefix(run.config.assemble.dataset, version(run))


@dataclass(frozen=True)
class _Made:
    """The pairs of this run.

    Attributes:
        count: how many there are.
        fresh: those that may come in.
        known: how many are in the version before.
        refused: those that somebody has decided against, rows of ``left_out.SCHEMA``.
        apart: what is held out, of the pairs and, later, of the SFT set.
        without: the parts that were given up: how many documents they have, and why.
    """

    count: int
    fresh: list[Pair]
    known: int
    refused: list[dict[str, Any]]
    apart: Apart
    without: dict[str, dict[str, Any]]


def _assemble(run: Run, watch: Stopwatch) -> Manifest:
    personal, marks = PersonalData(run.config.assemble), run.config.assemble.marks
    made, attempt = _made(run, personal), published.attempt(run, "assemble")
    with tempfile.TemporaryDirectory(prefix="aitp-assemble-") as name, Export(Path(name), marks) as export:
        incoming = Incoming.of_run(run, made.fresh, personal)
        rows = sft.write(run, export, made.apart, incoming.watched(sft.examples(run)))
        room = budget.room(rows.rows_out, run.config.assemble.max_rewritten_share)
        choice = contest.choose(run, incoming, sft.identity(run), room)
        made.apart.trained(choice.earlier + choice.new)
        left = made.refused + choice.left_out
        unfaithful = generated.unfaithful_rows(run, [part for part in run.parts if part not in made.without])
        removed = removals.told(
            run.config, left, choice.duplicates, incoming.dropped, rows.rejected, unfaithful
        )
        found = removals.figures(removed, incoming.guard, personal)
        done = _manifest(run, made, choice, rows, room, found)
        aside = _aside(run, choice, made) | removals.write(run, removed, incoming.guard)
        if _changes_nothing(run, choice):
            return _commit(run, done, _standing(run) | aside, watch)
        export.write(choice.earlier)
        export.write(choice.new)
        if run.config.assemble.validation_split:
            export.write_validation(made.apart.for_validation())
        export.close(run.config.assemble.dataset)
        done = done.model_copy(update={"figures": done.figures | _told(run, done, export.told)})
        done = card.write(Path(name), run, done, _picture(choice))
        outputs = _upload(run, attempt, Path(name))
    outputs |= aside | _write_records(run, choice)
    return _commit(run, done, {**outputs, published.ATTEMPT: attempt}, watch)


def _commit(run: Run, done: Manifest, outputs: dict[str, str], watch: Stopwatch) -> Manifest:
    measured = {"seconds": watch.seconds(), "peak_memory_mb": watch.peak_memory_mb()}
    committed = run.commit(done.model_copy(update={"outputs": outputs, **measured}))
    names = ("version", "pairs", "earlier_pairs", "sft_examples", "room", "left")
    log.info(
        "assemble version=%s pairs=%d earlier_pairs=%d sft_examples=%d room=%s left=%s",
        *(committed.figures[name] for name in names),
    )
    if is_unchanged(committed):
        log.warning(
            "nothing has changed: the dataset stays %s, and no version is made", committed.figures["version"]
        )
    return committed


def _settle(run: Run) -> None:
    """Write down what a run that makes no version has found all the same."""
    line, base = run.config.assemble.dataset, run.plan.base
    assert base is not None
    versions.settle(run.storage, line, run.plan.inputs, base.name)
    if run.require_manifest("difference").figures["refit_due"]:
        versions.call_for_refit(run.storage, line, base.name)


def _made(run: Run, personal: PersonalData) -> _Made:
    """The pairs of this run, apart from those that it need not look at."""
    # Looked up once: a part that is done meanwhile is given up all the same, and told so.
    without, share = _without(run), run.config.evaluate.held_out
    read = new_pairs.read(run, [part for part in run.parts if part not in without], version(run))
    texts = PairTexts()
    made = sorted(map(texts.held, personal.masked(NEW, read)), key=lambda pair: str(pair["pair_id"]))
    standing = run.plan.base.pairs if run.plan.base else ()
    known = pairs.ids(run.storage, standing)
    fresh = [pair for pair in made if pair["pair_id"] not in known]
    # Of a version only some pairs leave; none as a rule.
    gone = pairs.only(pairs.read(run.storage, standing), run.plan.left) if run.plan.left else []
    columns = [*pairs.DECIDING, *(["messages"] if run.config.assemble.marks is Marks.DROP else [])]
    against = pairs.against(
        pa.Table.from_pylist(fresh, pa.schema([SCHEMA.field(name) for name in columns])),
        run.plan.marked_bad,
        run.config.assemble.withdrawn_prompts,
        share,
        run.config.assemble.marks,
    )
    return _Made(
        count=len(made),
        fresh=[pair for pair in fresh if pair["pair_id"] not in against],
        known=len(made) - len(fresh),
        refused=[
            left_out.row(pair, against[pair["pair_id"]], earlier=False)
            for pair in fresh
            if pair["pair_id"] in against
        ]
        + [left_out.row(pair, run.plan.left[pair["pair_id"]], earlier=True) for pair in gone],
        apart=Apart(share, made),
        without=without,
    )


def _without(run: Run) -> dict[str, dict[str, Any]]:
    """The parts that the run goes on without."""
    found = {
        part: {"documents": selected.table(run, part, ["doc_id"]).num_rows, "why": why}
        for part, why in generated.without(run).items()
    }
    for part, told in found.items():
        log.warning("%s was given up, %d documents: %s", part, told["documents"], told["why"])
    return found


def _changes_nothing(run: Run, choice: Choice) -> bool:
    base = run.plan.base
    if base is None or base.sft != sft.identity(run) or choice.new or run.plan.left:
        return False
    return len(choice.earlier) == embedded.earlier_pairs(run)


def _standing(run: Run) -> dict[str, str]:
    """The rows and the pairs of the version that the run builds on."""
    base = run.plan.base
    assert base is not None
    rows = data_files.standing(run.storage, versions.prefix(run.config.assemble.dataset, base.name))
    return rows | ({"pairs": base.pairs[-1]} if base.pairs else {})


def _aside(run: Run, choice: Choice, made: _Made) -> dict[str, str]:
    """Write what is told of the version and is no part of it: figures, what is not in it and why."""
    densities = run.key("assemble", "densities.safetensors")
    run.storage.write(densities, choice.sides.picture())
    apart = made.apart.write(
        run.storage,
        run.key("assemble", "held-out-"),
        run.config.evaluate.max_examples,
        validated=run.config.halves_held_out,
    )
    not_in = {
        name: tables.write(run.storage, run.key("assemble", name), pa.Table.from_pylist(found, schema))
        for name, found, schema in _not_in(choice, made)
        if found
    }
    return {"densities": densities} | apart | not_in


def _picture(choice: Choice) -> bytes:
    """What the new pairs have gained, as the report draws it."""
    from aitp_tasks.report import facts, pictures

    gained = facts.gained(choice.sides.picture())
    return pictures.change(gained, pictures.density_levels(gained), choice.sides.tau).data


def _not_in(choice: Choice, made: _Made) -> list[tuple[str, list[dict[str, Any]], pa.Schema]]:
    return [
        ("left_out", made.refused + choice.left_out, left_out.SCHEMA),
        ("near_duplicates", choice.duplicates, near_duplicates.SCHEMA),
    ]


def _upload(run: Run, attempt: str, folder: Path) -> dict[str, str]:
    """Write the version's files below this try's prefix; the keys that they are to have."""
    outputs = {}
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        name = path.relative_to(folder).as_posix()
        run.storage.upload(f"{attempt}/{name}", path)
        output = data_files.output(name) if path.suffix == ".parquet" else _OUTPUTS[name]
        outputs[output] = f"{version_key(run)}/{name}"
    return outputs


def _write_records(run: Run, choice: Choice) -> dict[str, str]:
    """Write what later runs need: all pairs, if there are any, and the grid of all dumps of the line."""
    records, kept = versions.records(run.config.assemble.dataset), choice.earlier + choice.new
    outputs = {}
    if kept:
        outputs["pairs"] = tables.write_rows(run.storage, f"{records}/pairs", kept, SCHEMA)
    line = projected.line_corpus(run, projected.grids(run, projected.geometry(run))["corpus"])
    if line is None:
        # That of the first lies in its run.
        return outputs | {"corpus": run.require_manifest("difference").output("corpus_grid")}
    grid = line.to_bytes()
    outputs["corpus"] = f"{records}/corpus-grid-{digest.of_bytes(grid)}.safetensors"
    run.storage.write_if_absent(outputs["corpus"], grid)
    return outputs


def _manifest(
    run: Run, made: _Made, choice: Choice, rows: Ledger, room: int | None, found: Mapping[str, Any]
) -> Manifest:
    """What is told of the version, without its objects; ``found`` are figures of what was looked for."""
    unchanged = _changes_nothing(run, choice)
    name = run.plan.base.name if unchanged and run.plan.base else version(run)
    left = _reasons(row for row in made.refused + choice.left_out if row["earlier"])
    rewritten = len(choice.new) + len(choice.earlier)
    return Manifest(
        stage="assemble",
        label=f"{name} (unchanged)" if unchanged else name,
        ledger=_ledger(run, made, choice, rows),
        figures={
            "version": name,
            "inputs": run.plan.inputs,
            "unchanged": unchanged,
            "base": run.plan.base and run.plan.base.name,
            "pairs": len(choice.new),
            "earlier_pairs": len(choice.earlier),
            "sft_examples": rows.rows_out,
            "not_kept": embedded.not_kept(run),
            "rewritten_share": round(rewritten / max(rewritten + rows.rows_out, 1), 6),
            "room": room,
            "order": [key.value for key in run.config.assemble.order],
            "left": left,
            # New pairs that would have come in, had there been room.
            "no_room": sum(row["reason"] == contest.NO_ROOM for row in choice.left_out if not row["earlier"]),
            "uncovered": choice.uncovered,
            "uncovered_before": choice.uncovered_before,
            "coverage": choice.sides.figures(gain.by_source(run, choice.sides.corpus.grid.step)),
            "parts_given_up": made.without,
            "regions": yields.figures(run, [part for part in run.parts if part not in made.without]),
            **_held_out_figures(run, made, rows),
            **found,
        },
    )


def _held_out_figures(run: Run, made: _Made, rows: Ledger) -> dict[str, Any]:
    """How much is held out, where anything is."""
    share = run.config.evaluate.held_out
    if not share:
        return {}
    documents = (row["doc_id"] for part in run.parts for row in selected.documents(run, part, ["doc_id"]))
    return {
        held_out.HELD_OUT: {
            held_out.SFT: rows.rejected.get(held_out.HELD_OUT, 0),
            held_out.PAIRS: made.apart.pairs,
            held_out.DOCUMENTS: sum(held_out.is_held_out(document, share) for document in documents),
            "also_trained": made.apart.also_trained(),
        }
    }


def _reasons(left: Iterator[dict[str, Any]] | Sequence[dict[str, Any]]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for row in left:
        counts = add_counts(counts, {row["reason"]: 1})
    return counts


def _ledger(run: Run, made: _Made, choice: Choice, rows: Ledger) -> Ledger:
    """Where every pair and every row of the SFT set went, and the documents of parts that were given up."""
    earlier = embedded.earlier_pairs(run) + len(run.plan.left)
    left = _reasons(made.refused + choice.left_out)
    documents = sum(part["documents"] for part in made.without.values())
    rejected = {
        funnel.KNOWN: made.known,
        removals.NEAR_DUPLICATE: len(choice.duplicates),
        contest.NO_ROOM: 0,
        **({_PART_GIVEN_UP: documents} if documents else {}),
        **left,
    }
    rejected = add_counts(rejected, rows.rejected)
    return Ledger(
        rows_in=made.count + documents + earlier + rows.rows_in,
        rows_out=len(choice.new) + len(choice.earlier) + rows.rows_out,
        quarantined=rows.quarantined,
        rejected=rejected,
    )


def _version(run: Run, done: Manifest) -> versions.Version:
    """The version as the next run finds it."""
    base = run.plan.base
    difference = run.require_manifest("difference")
    geometry = run.plan.geometry or versions.Geometry(
        key=run.require_manifest("merge").output("geometry"),
        identity=run.plan.geometry_identity,
        corpus_grid=difference.output("corpus_grid"),
    )
    compared = sft.identity(run)
    return versions.Version(
        name=version(run),
        run=run.prefix,
        ancestors=(*base.ancestors, base.name) if base else (),
        pairs=_pair_keys(base, done),
        geometry=geometry,
        refit_due=difference.figures["refit_due"],
        corpus=done.outputs.get("corpus"),
        order=tuple(done.figures.get("order", ())),
        sft=compared,
        compared=contest.compared_with(run, compared),
        measured=_measured(run, done, difference.figures["selected"] - _given_up(done)),
        regions=_regions(run, done),
        # Not there in a manifest of an earlier release.
        contents=done.figures.get("contents"),
    )


def _pair_keys(base: versions.Version | None, done: Manifest) -> tuple[str, ...]:
    own = (done.output("pairs"),) if "pairs" in done.outputs else ()
    # An earlier release wrote a version's own pairs alone, and has committed this one.
    return own if "order" in done.figures or base is None else (*base.pairs, *own)


def _given_up(done: Manifest) -> int:
    """Documents of the parts that were given up."""
    return sum(part["documents"] for part in done.figures.get("parts_given_up", {}).values())


def _measured(run: Run, done: Manifest, documents: int) -> versions.Yield:
    """What documents have given, with this night's."""
    before = run.plan.base.measured if run.plan.base else versions.Yield()
    assert done.ledger is not None
    if not documents:
        return before
    return before.plus(documents, done.figures["pairs"] + done.figures.get("no_room", 0))


def _regions(run: Run, done: Manifest) -> versions.Regions | None:
    """What the documents of each region have given, with this night's."""
    before, told = yields.earlier(run.plan), done.figures.get("regions")
    if told is None:
        return before
    tonight = yields.night(told)
    return tonight if before is None else before.plus(tonight)


def _told(run: Run, done: Manifest, told: Told) -> dict[str, Any]:
    """What is told of the files, as figures."""
    assert done.ledger is not None
    kinds = {
        "sft": done.figures["sft_examples"],
        "new_pairs": done.figures["pairs"],
        "earlier_pairs": done.figures["earlier_pairs"],
    }
    held = figures.contents(run.plan, told, kinds, done.ledger.rejected.get(HOLDS_MARKS, 0))
    examples = {name: dict(sorted(vars(told)[name].items())) for name in ("kept", "lost")}
    return {"examples": examples, "contents": held.model_dump(mode="json")}
