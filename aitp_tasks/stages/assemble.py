"""assemble: the new pairs, the earlier ones and the SFT set become one dataset version.

Reads pairs, scores and documents of all parts, the SFT shards, the pairs of the
version that the run builds on, the SFT index and both densities, by which it is
chosen who stays (see ``selection.contest``). Writes ``datasets/<name>/<version>/``:
Parquet with a ``messages`` column and where each pair comes from, the same as
ShareGPT JSON with the ``dataset_info.json`` that LLaMA-Factory loads, the version's
pairs, those that are left out, the near-duplicates, a card; and adds the version to
its line (see ``versions``). The files lie below a prefix of this try first, and get
their names in the version once it is committed (see ``published``).

A run whose pairs and SFT set are those of the version that it builds on makes no
version: its dataset is that one.

With ``evaluate.held_out``, SFT examples and the pairs of documents are left out that
nothing is ever to be trained on; they become files of the run. Whether the version becomes
the latest of its line is evaluate's to say then, if ``evaluate.promote`` wants that.
"""

import logging
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from aitp_tasks.config import Promote, SftHits
from aitp_tasks.dataset import budget, card
from aitp_tasks.dataset.apart import Apart
from aitp_tasks.dataset.export import SCHEMA, Export, Told
from aitp_tasks.inputs import shards
from aitp_tasks.inputs.examples import Example, Rejection, Turn
from aitp_tasks.inputs.rows import Refusal
from aitp_tasks.records import (
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
from aitp_tasks.records.run import Run
from aitp_tasks.selection import contest, gain, left_out, near_duplicates, removals
from aitp_tasks.selection.contamination.guard import NEW
from aitp_tasks.selection.contest import Choice
from aitp_tasks.selection.incoming import Incoming
from aitp_tasks.selection.personal_data import PersonalData
from aitp_tasks.storage import ObjectInfo

log = logging.getLogger(__name__)

_IN_AN_EARLIER_VERSION, _NEAR_DUPLICATE = "in_an_earlier_version", "near_duplicate"
_PART_GIVEN_UP = "document_of_a_part_given_up"
_CORPUS_GRID = "corpus-grid.safetensors"


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
        "dataset": run.storage.uri(done.output("parquet").rpartition("/")[0]),
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
    fresh: list[dict[str, Any]]
    known: int
    refused: list[dict[str, Any]]
    apart: Apart
    without: dict[str, dict[str, Any]]


def _assemble(run: Run, watch: Stopwatch) -> Manifest:
    personal = PersonalData(run.config.assemble)
    made, attempt = _made(run, personal), published.attempt(run, "assemble")
    with tempfile.TemporaryDirectory(prefix="aitp-assemble-") as folder, Export(Path(folder)) as export:
        incoming = Incoming.of_run(run, made.fresh, personal)
        sft = _export_sft(run, export, made.apart, incoming)
        room = budget.room(sft.rows_out, run.config.assemble.max_rewritten_share)
        choice = contest.choose(run, incoming, _sft_digest(run), room)
        made.apart.trained(choice.earlier + choice.new)
        done = _manifest(run, made, choice, sft, room)
        aside = _picture(run, choice) | made.apart.write(
            run.storage,
            run.key("assemble", "held-out-"),
            run.config.evaluate.max_examples,
            validated=run.config.finetune.eval_steps is not None,
        )
        left = removals.told(run.config, made.refused + choice.left_out, choice.duplicates, incoming.dropped)
        aside |= removals.write(run, left, incoming.guard)
        done = done.model_copy(
            update={"figures": done.figures | removals.figures(left, incoming.guard, personal)}
        )
        if _changes_nothing(run, choice):
            return _commit(run, done, _standing(run) | _listed(run, choice, made) | aside, watch)
        export.write(choice.earlier)
        export.write(choice.new)
        files = export.close(run.config.assemble.dataset)
        done = done.model_copy(update={"figures": done.figures | {"examples": _told(export.told)}})
        files["card"] = card.write(Path(folder), run.config, done.figures)
        outputs = _upload(run, attempt, files)
    outputs |= aside | _write_choice(run, attempt, choice, made) | _write_corpus_grid(run, attempt)
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
    made = personal.masked(NEW, _pairs(run, [part for part in run.parts if part not in without]))
    before = pairs.read(run.storage, run.plan.base.pairs) if run.plan.base else None
    known = set() if before is None else set(before["pair_id"].to_pylist())
    fresh = [pair for pair in made if pair["pair_id"] not in known]
    against = pairs.against(
        pa.Table.from_pylist(fresh, SCHEMA),
        run.plan.marked_bad,
        run.config.assemble.withdrawn_prompts,
        share,
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
        + [
            left_out.row(pair, run.plan.left[pair["pair_id"]], earlier=True)
            for pair in (before.to_pylist() if before is not None and run.plan.left else [])
            if pair["pair_id"] in run.plan.left
        ],
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
    if base is None or base.sft != _sft_digest(run) or choice.new or run.plan.left:
        return False
    return len(choice.earlier) == embedded.earlier_pairs(run)


def _standing(run: Run) -> dict[str, str]:
    """The files of the version that the run builds on."""
    assert run.plan.base is not None
    prefix = versions.prefix(run.config.assemble.dataset, run.plan.base.name)
    found = {
        info.key.rpartition("/")[2].partition(".")[0]: info.key for info in run.storage.list(f"{prefix}/")
    }
    return {"parquet": found["data"], **({"pairs": found["pairs"]} if "pairs" in found else {})}


def _listed(run: Run, choice: Choice, made: _Made) -> dict[str, str]:
    """Write what did not come in, of a run that makes no version."""
    return {
        name: tables.write(run.storage, run.key("assemble", name), pa.Table.from_pylist(found, schema))
        for name, found, schema in _not_in(choice, made)
        if found
    }


def _not_in(choice: Choice, made: _Made) -> list[tuple[str, list[dict[str, Any]], pa.Schema]]:
    return [
        ("left_out", made.refused + choice.left_out, left_out.SCHEMA),
        ("near_duplicates", choice.duplicates, near_duplicates.SCHEMA),
    ]


def _sft_digest(run: Run) -> str:
    """Identity of the SFT set as it was read."""
    found = [
        [shard.figures["shard"], shard.figures["etag"]]
        for group in run.plan.groups_of("sft")
        if group.source == run.config.sft
        for shard in embedded.shards(run, group)
    ]
    share = run.config.evaluate.held_out
    # Without what some of it is held out of, as before.
    apart: list[Any] = [{held_out.HELD_OUT: share}] if share else []
    if run.config.contamination.sft is SftHits.DROP:
        files = [[file.set, file.key, file.etag] for file in run.plan.evaluation]
        apart.append([run.config.contamination.model_dump(mode="json"), files])
    return digest.of_value([embedded.reading_of_sft(run.config), sorted(found), *apart])


def _upload(run: Run, attempt: str, files: Mapping[str, Path]) -> dict[str, str]:
    """Write the version's files below this try's prefix; the keys that they are to have."""
    for file in files.values():
        run.storage.upload(f"{attempt}/{file.name}", file)
    return {name: f"{version_key(run)}/{file.name}" for name, file in files.items()}


def _write_choice(run: Run, attempt: str, choice: Choice, made: _Made) -> dict[str, str]:
    """Write the version's pairs, those that are left out, and the near-duplicates, where there are any."""
    outputs = {}
    for name, found, schema in (
        ("pairs", choice.earlier + choice.new, SCHEMA),
        *_not_in(choice, made),
    ):
        if found:
            outputs[name] = f"{version_key(run)}/{name}.parquet"
            table = tables.to_bytes(pa.Table.from_pylist(found, schema))
            run.storage.write(f"{attempt}/{name}.parquet", table)
    return outputs


def _picture(run: Run, choice: Choice) -> dict[str, str]:
    """Write the densities before and after the new pairs, for the report."""
    key = run.key("assemble", "densities.safetensors")
    run.storage.write(key, choice.sides.picture())
    return {"densities": key}


def _write_corpus_grid(run: Run, attempt: str) -> dict[str, str]:
    """Write the grid of all dumps that the line has seen; that of the first lies in its run."""
    grids = projected.grids(run, projected.geometry(run))
    line = projected.line_corpus(run, grids["corpus"])
    if line is None:
        return {"corpus": run.require_manifest("difference").output("corpus_grid")}
    run.storage.write(f"{attempt}/{_CORPUS_GRID}", line.to_bytes())
    return {"corpus": f"{version_key(run)}/{_CORPUS_GRID}"}


def _manifest(run: Run, made: _Made, choice: Choice, sft: Ledger, room: int | None) -> Manifest:
    """What is told of the version, without its objects."""
    unchanged = _changes_nothing(run, choice)
    name = run.plan.base.name if unchanged and run.plan.base else version(run)
    left = _reasons(row for row in made.refused + choice.left_out if row["earlier"])
    rewritten = len(choice.new) + len(choice.earlier)
    return Manifest(
        stage="assemble",
        label=f"{name} (unchanged)" if unchanged else name,
        ledger=_ledger(run, made, choice, sft),
        figures={
            "version": name,
            "unchanged": unchanged,
            "base": run.plan.base and run.plan.base.name,
            "pairs": len(choice.new),
            "earlier_pairs": len(choice.earlier),
            "sft_examples": sft.rows_out,
            "not_kept": embedded.not_kept(run),
            "rewritten_share": round(rewritten / max(rewritten + sft.rows_out, 1), 6),
            "room": room,
            "order": [key.value for key in run.config.assemble.order],
            "left": left,
            # New pairs that would have come in, had there been room.
            "no_room": sum(row["reason"] == contest.NO_ROOM for row in choice.left_out if not row["earlier"]),
            "uncovered": choice.uncovered,
            "uncovered_before": choice.uncovered_before,
            "coverage": choice.sides.figures(gain.by_source(run, choice.sides.corpus.grid.step)),
            "parts_given_up": made.without,
            **_held_out_figures(run, made, sft),
        },
    )


def _held_out_figures(run: Run, made: _Made, sft: Ledger) -> dict[str, Any]:
    """How much is held out, where anything is."""
    share = run.config.evaluate.held_out
    if not share:
        return {}
    documents = (row["doc_id"] for part in run.parts for row in selected.documents(run, part, ["doc_id"]))
    return {
        held_out.HELD_OUT: {
            held_out.SFT: sft.rejected.get(held_out.HELD_OUT, 0),
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


def _ledger(run: Run, made: _Made, choice: Choice, sft: Ledger) -> Ledger:
    """Where every pair and every row of the SFT set went, and the documents of parts that were given up."""
    earlier = embedded.earlier_pairs(run) + len(run.plan.left)
    left = _reasons(made.refused + choice.left_out)
    documents = sum(part["documents"] for part in made.without.values())
    rejected = {
        _IN_AN_EARLIER_VERSION: made.known,
        _NEAR_DUPLICATE: len(choice.duplicates),
        contest.NO_ROOM: 0,
        **({_PART_GIVEN_UP: documents} if documents else {}),
        **left,
    }
    rejected = add_counts(rejected, sft.rejected)
    return Ledger(
        rows_in=made.count + documents + earlier + sft.rows_in,
        rows_out=len(choice.new) + len(choice.earlier) + sft.rows_out,
        quarantined=sft.quarantined,
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
    sft = _sft_digest(run)
    return versions.Version(
        name=version(run),
        run=run.prefix,
        ancestors=(*base.ancestors, base.name) if base else (),
        pairs=_pair_keys(base, done),
        geometry=geometry,
        refit_due=difference.figures["refit_due"],
        corpus=done.outputs.get("corpus"),
        order=tuple(done.figures.get("order", ())),
        sft=sft,
        compared=contest.compared_with(run, sft),
        measured=_measured(run, done, difference.figures["selected"] - _given_up(done)),
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


def _pairs(run: Run, parts: Sequence[str]) -> list[dict[str, Any]]:
    """All pairs of some parts with where they come from, in the order of their ids."""
    provenance = {
        "prompt_digest": run.plan.prompts["answer"].digest,
        "prompts": [f"{name}@{run.plan.prompts[name].version}" for name in generated.STAGES],
        "model": _model_name(run),
        "version": version(run),
    }
    made = []
    columns = ["doc_id", "dump", "source", "shard", "row", "ratio"]
    for part in parts:
        answers = generated.kept_rows(run, "answer", part)
        documents = {row["doc_id"]: row for row in selected.documents(run, part, columns)}
        scores = {row["question_id"]: row for row in generated.kept_rows(run, "score", part)}
        for row in answers:
            document, score = documents[row["doc_id"]], scores[row["question_id"]]
            made.append(
                {
                    "messages": _messages(row["question"], row["answer"]),
                    "origin": "aitp",
                    "pair_id": row["pair_id"],
                    "density_ratio": document["ratio"],
                    # Answers of an earlier release do not say it.
                    "cut_characters": row.get("cut_characters"),
                    **{name: document[name] for name in ("doc_id", "dump", "source", "shard", "row")},
                    **{name: score[name] for name in ("quality", "difficulty")},
                    **provenance,
                }
            )
    return sorted(made, key=lambda pair: str(pair["pair_id"]))


def _model_name(run: Run) -> str:
    engine = run.config.engine
    return f"{engine.label}#{run.plan.engine_identity[:12]}"


def _messages(question: str, answer: str) -> list[Turn]:
    return [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]


def _export_sft(run: Run, export: Export, apart: Apart, incoming: Incoming) -> Ledger:
    """Write the SFT examples, in the order of their shards, but those that are held out or contaminated."""
    read = written = quarantined = 0
    rejected: Counter[str] = Counter()
    for example, closed in incoming.watched(_examples(run)):
        read += 1
        if isinstance(example, Rejection):
            rejected[example.reason] += 1
        elif not isinstance(example, Example):
            quarantined += 1
        elif closed is not None:
            rejected[closed] += 1
        elif apart.takes(example):
            rejected[held_out.HELD_OUT] += 1
        else:
            export.write([{"messages": example.messages, "tools": example.tools, "origin": "sft"}])
            written += 1
    return Ledger(
        rows_in=read,
        rows_out=written,
        quarantined={"not_an_example": quarantined} if quarantined else {},
        rejected=dict(rejected),
    )


def _examples(run: Run) -> Iterator[tuple[str, Example | Rejection | Refusal]]:
    """Each row of the SFT set, with its place."""
    for group in run.plan.groups_of("sft"):
        # Pairs of earlier versions are shards too, and come from their own tables.
        for shard in embedded.shards(run, group) if group.source == run.config.sft else []:
            key = shard.figures["shard"]
            info = ObjectInfo(key, run.storage.stat(key).size, shard.figures["etag"])
            rows = shards.Sft(run.storage, info, run.config.sft_text, run.config.examples).examples()
            yield from ((f"{key}:{row}", item) for row, item in enumerate(rows))


def _told(told: Told) -> dict[str, Any]:
    """What is told of the files, as figures."""
    return {name: dict(sorted(counts.items())) for name, counts in vars(told).items()}
