"""assemble: the new pairs and the SFT set become one dataset version.

Reads pairs, scores and documents of all parts, the SFT shards, the pairs of the
version that the run builds on, and the SFT index, by which it leaves out pairs
that the dataset has already (see ``near_duplicates``). Writes
``datasets/<name>/<version>/``: Parquet with a ``messages`` column and where each
pair comes from, the same as ShareGPT JSON with the ``dataset_info.json`` that
LLaMA-Factory loads, the version's own pairs, the near-duplicates; and adds the
version to its line (see ``versions``). The files lie below a prefix of this try
first, and get their names in the version once it is committed (see ``published``).
"""

import logging
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa

from aitp_tasks.dataset.export import SCHEMA, Export
from aitp_tasks.encoder.opened import open_encoder
from aitp_tasks.inputs import rows, shards
from aitp_tasks.records import embedded, generated, indexed, published, selected, tables, versions
from aitp_tasks.records.manifest import Ledger, Manifest, Stopwatch
from aitp_tasks.records.run import Run
from aitp_tasks.selection import near_duplicates
from aitp_tasks.storage import ObjectInfo
from aitp_tasks.vector_index.opened import OpenIndex

log = logging.getLogger(__name__)


def execute(run: Run, unit: None = None) -> dict[str, Any]:
    """Assemble the dataset version of a run.

    Raises:
        InputError: an earlier stage has not been run.
        ObjectChangedError: an SFT shard was replaced after it was embedded.
    """
    watch = Stopwatch()
    done = run.find_manifest("assemble") or _assemble(run, watch)
    published.publish(run, done, version_key(run))
    return {
        "stage": "assemble",
        "run": run.uri,
        "label": done.figures["version"],
        "dataset": run.storage.uri(version_key(run)),
        "pairs": done.figures["pairs"],
        "earlier_pairs": done.figures["earlier_pairs"],
        "sft_examples": done.figures["sft_examples"],
        # Not frozen with the manifest: it changes when other versions come.
        "is_latest": versions.add(run.storage, run.config.assemble.dataset, _version(run, done)),
        "seconds": watch.seconds(),
    }


def version(run: Run) -> str:
    """Name of the dataset version that a run makes."""
    return run.plan.version(run.digest)


def version_key(run: Run) -> str:
    """Prefix of the dataset version's objects."""
    return versions.prefix(run.config.assemble.dataset, version(run))


def _assemble(run: Run, watch: Stopwatch) -> Manifest:
    pairs = _pairs(run)
    attempt = published.attempt(run, "assemble")
    with tempfile.TemporaryDirectory(prefix="aitp-assemble-") as folder, Export(Path(folder)) as export:
        sft = _export_sft(run, export)
        earlier = _export_earlier(run, export)
        new = [pair for pair in pairs if pair["pair_id"] not in earlier]
        chosen = _choose(run, new, sft.rows_out, len(earlier))
        export.write(chosen.kept)
        outputs = _upload(run, attempt, export.close(run.config.assemble.dataset))
    outputs |= {**_write_choice(run, attempt, chosen), published.ATTEMPT: attempt}
    done = run.commit(
        Manifest(
            stage="assemble",
            label=version(run),
            ledger=_ledger(pairs, new, chosen, len(earlier), sft),
            outputs=outputs,
            figures=_figures(run, len(chosen.kept), len(earlier), sft.rows_out),
            seconds=watch.seconds(),
            peak_memory_mb=watch.peak_memory_mb(),
        )
    )
    log.info(
        "assemble version=%s pairs=%d earlier_pairs=%d sft_examples=%d",
        *(done.figures[name] for name in ("version", "pairs", "earlier_pairs", "sft_examples")),
    )
    return done


def _choose(
    run: Run, new: list[dict[str, Any]], sft_examples: int, earlier: int
) -> near_duplicates.Selection:
    """Those of the new pairs that there is room for and that the dataset does not have already."""
    settings = run.config.assemble
    room = _room(sft_examples, settings.max_rewritten_share, len(new) + earlier) - earlier
    if settings.max_similarity == 1.0 or room <= 0 or not new:
        return near_duplicates.Selection(kept=new[: max(room, 0)])
    texts = (rows.sft_text(pair["messages"], run.config.sft_text) for pair in new)
    with OpenIndex(run.storage, indexed.keys(run, "sft"), "sft") as index:
        encoder = open_encoder(run.config.encoder, run.plan.encoder_identity)
        return near_duplicates.select(new, encoder.vectors_of(texts), room, index, settings.max_similarity)


def _room(sft_examples: int, share: float, pairs: int) -> int:
    """How many of the pairs the share allows; ids are hashes, so the first are a fair sample."""
    if share == 1.0 or sft_examples == 0:
        return pairs
    # Rounded, because 0.6 / 0.4 * 8 is a little less than 12.
    return int(round(share / (1 - share) * sft_examples, 6))


def _upload(run: Run, attempt: str, files: Mapping[str, Path]) -> dict[str, str]:
    """Write the version's files below this try's prefix; the keys that they are to have."""
    for file in files.values():
        run.storage.upload(f"{attempt}/{file.name}", file)
    return {name: f"{version_key(run)}/{file.name}" for name, file in files.items()}


def _write_choice(run: Run, attempt: str, chosen: near_duplicates.Selection) -> dict[str, str]:
    """Write the version's own pairs, and those that were left out as near-duplicates, where there are any."""
    outputs = {}
    for name, chosen_rows, schema in (
        ("pairs", chosen.kept, SCHEMA),
        ("near_duplicates", chosen.duplicates, near_duplicates.SCHEMA),
    ):
        if chosen_rows:
            outputs[name] = f"{version_key(run)}/{name}.parquet"
            table = tables.to_bytes(pa.Table.from_pylist(chosen_rows, schema))
            run.storage.write(f"{attempt}/{name}.parquet", table)
    return outputs


def _ledger(
    pairs: list[dict[str, Any]],
    new: list[dict[str, Any]],
    chosen: near_duplicates.Selection,
    earlier: int,
    sft: Ledger,
) -> Ledger:
    """Where every pair and every row of the SFT set went."""
    kept, duplicates = len(chosen.kept), len(chosen.duplicates)
    return Ledger(
        rows_in=len(pairs) + earlier + sft.rows_in,
        rows_out=kept + earlier + sft.rows_out,
        quarantined=sft.quarantined,
        rejected={
            "in_an_earlier_version": len(pairs) - len(new),
            "near_duplicate": duplicates,
            "over_rewritten_share": len(new) - kept - duplicates,
        },
    )


def _figures(run: Run, pairs: int, earlier: int, sft_examples: int) -> dict[str, Any]:
    rewritten = pairs + earlier
    return {
        "version": version(run),
        "base": run.plan.base and run.plan.base.name,
        "pairs": pairs,
        "earlier_pairs": earlier,
        "sft_examples": sft_examples,
        "rewritten_share": round(rewritten / max(rewritten + sft_examples, 1), 6),
    }


def _version(run: Run, done: Manifest) -> versions.Version:
    """The version as the next run finds it."""
    base = run.plan.base
    difference = run.require_manifest("difference")
    geometry = run.plan.geometry or versions.Geometry(
        key=run.require_manifest("merge").output("geometry"),
        identity=run.plan.geometry_identity,
        corpus_grid=difference.output("corpus_grid"),
    )
    return versions.Version(
        name=version(run),
        run=run.prefix,
        ancestors=(*base.ancestors, base.name) if base else (),
        pairs=(*(base.pairs if base else ()), *([done.output("pairs")] if "pairs" in done.outputs else [])),
        geometry=geometry,
        refit_due=difference.figures["refit_due"],
    )


def _pairs(run: Run) -> list[dict[str, Any]]:
    """All pairs of all parts with where they come from, in the order of their ids."""
    provenance = {
        "prompt_digest": run.plan.prompts["answer"].digest,
        "model": _model_name(run),
    }
    pairs = []
    columns = ["doc_id", "dump", "shard", "row", "ratio"]
    for part in run.parts:
        documents = {row["doc_id"]: row for row in selected.documents(run, part, columns)}
        scores = {row["question_id"]: row for row in generated.kept_rows(run, "score", part)}
        for row in generated.kept_rows(run, "answer", part):
            document, score = documents[row["doc_id"]], scores[row["question_id"]]
            pairs.append(
                {
                    "messages": _messages(row["question"], row["answer"]),
                    "origin": "aitp",
                    "pair_id": row["pair_id"],
                    "density_ratio": document["ratio"],
                    # Answers of an earlier release do not say it.
                    "cut_characters": row.get("cut_characters"),
                    **{name: document[name] for name in ("doc_id", "dump", "shard", "row")},
                    **{name: score[name] for name in ("quality", "difficulty")},
                    **provenance,
                }
            )
    return sorted(pairs, key=lambda pair: str(pair["pair_id"]))


def _model_name(run: Run) -> str:
    engine = run.config.engine
    return f"{engine.label}#{run.plan.engine_identity[:12]}"


def _messages(question: str, answer: str) -> list[rows.Turn]:
    return [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]


def _export_sft(run: Run, export: Export) -> Ledger:
    """Write the SFT examples, in the order of their shards."""
    read = written = 0
    quarantined = 0
    for group in run.plan.groups_of("sft"):
        # Pairs of earlier versions are shards too, and come from their own tables.
        for shard in embedded.shards(run, group) if group.source == run.config.sft else []:
            for turns in _examples(run, shard.figures["shard"], shard.figures["etag"]):
                read += 1
                if isinstance(turns, rows.Refusal):
                    quarantined += 1
                    continue
                export.write([{"messages": turns, "origin": "sft"}])
                written += 1
    return Ledger(
        rows_in=read, rows_out=written, quarantined={"not_an_example": quarantined} if quarantined else {}
    )


def _export_earlier(run: Run, export: Export) -> set[str]:
    """Write the pairs of the versions that the run builds on; their ids."""
    written: set[str] = set()
    for key in run.plan.base.pairs if run.plan.base else ():
        found = tables.read(run.storage, key).to_pylist()
        export.write(found)
        written |= {pair["pair_id"] for pair in found}
    return written


def _examples(run: Run, key: str, etag: str) -> Iterator[list[rows.Turn] | rows.Refusal]:
    info = ObjectInfo(key, run.storage.stat(key).size, etag)
    return shards.Sft(run.storage, info, run.config.sft_text).examples()
