"""assemble: the new pairs and the SFT set become one dataset version.

Reads pairs, scores and documents of all parts, the SFT shards, the pairs of the
version that the run builds on, and the SFT index, by which it leaves out pairs
that the dataset has already (see ``near_duplicates``). Writes
``datasets/<name>/<version>/``: Parquet with a ``messages`` column and where each
pair comes from, the same as ShareGPT JSON with the ``dataset_info.json`` that
LLaMA-Factory loads, the version's own pairs, the near-duplicates; and adds the
version to its line (see ``versions``).
"""

import json
import logging
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, TextIO

import pyarrow as pa
import pyarrow.parquet as pq

from aitp_tasks.generation import part as generation
from aitp_tasks.inputs import rows, shards
from aitp_tasks.records import tables, versions
from aitp_tasks.records.manifest import Ledger, Manifest, Stopwatch
from aitp_tasks.records.run import Run
from aitp_tasks.selection import near_duplicates
from aitp_tasks.stages import embed
from aitp_tasks.storage import ObjectInfo

log = logging.getLogger(__name__)

_ROWS_PER_READ = 1024
_SPEAKERS = {"user": "human", "assistant": "gpt"}
SCHEMA = pa.schema(
    [
        ("messages", pa.list_(pa.struct([("role", pa.string()), ("content", pa.large_string())]))),
        ("origin", pa.string()),  # "sft" or "aitp"
        ("pair_id", pa.string()),
        ("doc_id", pa.string()),
        ("dump", pa.string()),
        ("shard", pa.string()),
        ("row", pa.int64()),
        ("density_ratio", pa.float64()),
        ("cut_characters", pa.int64()),  # of the document, not seen by who answered
        ("quality", pa.int64()),
        ("difficulty", pa.int64()),
        ("prompt_digest", pa.string()),
        ("model", pa.string()),
    ]
)


def execute(run: Run, unit: None = None) -> dict[str, Any]:
    """Assemble the dataset version of a run.

    Raises:
        InputError: an earlier stage has not been run.
        ObjectChangedError: an SFT shard was replaced after it was embedded.
    """
    watch = Stopwatch()
    done = run.find_manifest("assemble") or _assemble(run, watch)
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
    with tempfile.TemporaryDirectory(prefix="aitp-assemble-") as folder, _Export(Path(folder)) as export:
        sft = _export_sft(run, export)
        earlier = _export_earlier(run, export)
        new = [pair for pair in pairs if pair["pair_id"] not in earlier]
        share = run.config.assemble.max_rewritten_share
        room = _room(sft.rows_out, share, len(new) + len(earlier)) - len(earlier)
        chosen = near_duplicates.select(run, new, room)
        kept = chosen.kept
        export.write(kept)
        export.close()
        outputs = _upload(run, Path(folder))
    if kept:
        outputs["pairs"] = f"{version_key(run)}/pairs.parquet"
        run.storage.write(outputs["pairs"], tables.to_bytes(pa.Table.from_pylist(kept, SCHEMA)))
    if chosen.duplicates:
        outputs["near_duplicates"] = f"{version_key(run)}/near_duplicates.parquet"
        table = pa.Table.from_pylist(chosen.duplicates, near_duplicates.SCHEMA)
        run.storage.write(outputs["near_duplicates"], tables.to_bytes(table))
    ledger = Ledger(
        rows_in=len(pairs) + len(earlier) + sft.rows_in,
        rows_out=len(kept) + len(earlier) + sft.rows_out,
        quarantined=sft.quarantined,
        rejected={
            "in_an_earlier_version": len(pairs) - len(new),
            "near_duplicate": len(chosen.duplicates),
            "over_rewritten_share": len(new) - len(kept) - len(chosen.duplicates),
        },
    )
    done = run.commit(
        Manifest(
            stage="assemble",
            label=version(run),
            ledger=ledger,
            outputs=outputs,
            figures={
                "version": version(run),
                "base": run.plan.base and run.plan.base.name,
                "pairs": len(kept),
                "earlier_pairs": len(earlier),
                "sft_examples": sft.rows_out,
                "rewritten_share": round((len(kept) + len(earlier)) / max(ledger.rows_out, 1), 6),
            },
            seconds=watch.seconds(),
            peak_memory_mb=watch.peak_memory_mb(),
        )
    )
    log.info(
        "assemble version=%s pairs=%d earlier_pairs=%d sft_examples=%d",
        version(run),
        len(kept),
        len(earlier),
        sft.rows_out,
    )
    return done


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
        documents = {row["doc_id"]: row for row in generation.documents(run, part, columns)}
        scores = {row["question_id"]: row for row in generation.kept_rows(run, "score", part)}
        for row in generation.kept_rows(run, "answer", part):
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


def _room(sft_examples: int, share: float, pairs: int) -> int:
    """How many of the pairs the share allows; ids are hashes, so the first are a fair sample."""
    if share == 1.0 or sft_examples == 0:
        return pairs
    # Rounded, because 0.6 / 0.4 * 8 is a little less than 12.
    return int(round(share / (1 - share) * sft_examples, 6))


def _export_sft(run: Run, export: "_Export") -> Ledger:
    """Write the SFT examples, in the order of their shards."""
    read = written = 0
    quarantined = 0
    for group in run.plan.groups:
        if group.source != run.config.sft or group.role != "sft":
            continue
        for shard in embed.shard_manifests(run, group):
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


def _export_earlier(run: Run, export: "_Export") -> set[str]:
    """Write the pairs of the versions that the run builds on; their ids."""
    written: set[str] = set()
    for key in run.plan.base.pairs if run.plan.base else ():
        found = tables.read(run.storage, key).to_pylist()
        export.write(found)
        written |= {pair["pair_id"] for pair in found}
    return written


def _examples(run: Run, key: str, etag: str) -> Iterator[list[rows.Turn] | rows.Refusal]:
    info = ObjectInfo(key, run.storage.stat(key).size, etag)
    return shards.Sft(run.storage, info, run.config).examples()


class _Export:
    """Writes the files of a dataset version row by row."""

    parquet_name = "data.parquet"
    sharegpt_name = "sharegpt.json"

    def __init__(self, folder: Path) -> None:
        self._stack = ExitStack()
        self._parquet = self._stack.enter_context(
            pq.ParquetWriter(folder / self.parquet_name, SCHEMA, compression="zstd")
        )
        self._json: TextIO = self._stack.enter_context(
            (folder / self.sharegpt_name).open("w", encoding="utf-8")
        )
        self._pending: list[dict[str, Any]] = []
        self._separator = "["

    def __enter__(self) -> "_Export":
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def write(self, examples: list[dict[str, Any]]) -> None:
        """Add rows of ``SCHEMA``; what is absent is null."""
        for example in examples:
            turns = [
                {"from": _SPEAKERS.get(turn["role"], turn["role"]), "value": turn["content"]}
                for turn in example["messages"]
            ]
            self._json.write(f"{self._separator}\n{json.dumps({'conversations': turns}, ensure_ascii=False)}")
            self._separator = ","
        self._pending += examples
        if len(self._pending) >= _ROWS_PER_READ:
            self._write_pending()

    def close(self) -> None:
        """Finish both files."""
        self._write_pending()
        self._json.write("[]\n" if self._separator == "[" else "\n]\n")
        self._stack.close()

    def _write_pending(self) -> None:
        self._parquet.write_table(pa.Table.from_pylist(self._pending, SCHEMA))
        self._pending = []


def _upload(run: Run, folder: Path) -> dict[str, str]:
    prefix = version_key(run)
    outputs = {
        "parquet": f"{prefix}/{_Export.parquet_name}",
        "sharegpt": f"{prefix}/{_Export.sharegpt_name}",
        "dataset_info": f"{prefix}/dataset_info.json",
    }
    description = {
        run.config.assemble.dataset: {
            "file_name": _Export.sharegpt_name,
            "formatting": "sharegpt",
            "columns": {"messages": "conversations"},
        }
    }
    run.storage.upload(outputs["parquet"], folder / _Export.parquet_name)
    run.storage.upload(outputs["sharegpt"], folder / _Export.sharegpt_name)
    run.storage.write(outputs["dataset_info"], json.dumps(description, indent=1).encode())
    return outputs
