"""A finished run in a temporary storage: the manifests and tables that the report reads."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from safetensors.numpy import save

from aitp_tasks.config import RunConfig
from aitp_tasks.dataset.export import Export
from aitp_tasks.records import data_files, tables, versions
from aitp_tasks.records.manifest import Ledger, Manifest
from aitp_tasks.records.plan import Group, Plan, Shard, Unread
from aitp_tasks.records.run import Run
from aitp_tasks.stages.answer import STAGE as ANSWER
from aitp_tasks.stages.rewrite import STAGE as REWRITE
from aitp_tasks.stages.score import STAGE as SCORE
from aitp_tasks.storage import open_storage

#: Documents of the corpus, and of them those below tau.
DOCUMENTS, BELOW = 240, 40
FinishRun = Callable[..., Run]


@pytest.fixture
def finish_run(tmp_path: Path) -> FinishRun:
    """Makes finished runs with some selected documents; their text, question and answer can be given.

    With ``earlier``, on a version that has pairs.
    """

    def make(
        selected: int = 12, text: str = "", question: str = "", answer: str = "", earlier: bool = False
    ) -> Run:
        run = _planned(tmp_path, earlier)
        _embedded(run)
        documents = [_document(i, text or f"Document {i} tells of rivers.") for i in range(selected)]
        parts = 2 if selected else 0
        halves = [documents[: selected // 2], documents[selected // 2 :]][:parts]
        _selected(run, halves, earlier)
        pairs = [
            pair
            for part, half in zip(run.parts, halves, strict=True)
            for pair in _prompted(run, part, half, question or "Where does it flow?", answer or "To the sea.")
        ]
        _product(run, pairs, tmp_path / "version")
        return run

    return make


def _planned(folder: Path, earlier: bool) -> Run:
    config = RunConfig.model_validate(
        {
            "root": f"file://{folder}/storage",
            "dump": "web+wiki",
            "sft": "alpaca",
            "encoder": {"model": "/models/bge-m3"},
            "engine": {"model": "org/rewriter", "revision": "abc123"},
            "prompts": {"folder": "/prompts"},
            "finetune": {"model": "/models/base"},
        }
    )
    sources = [("corpus", "web", 2), ("corpus", "wiki", 1), ("sft", "alpaca", 1)]
    groups = [
        Group(
            shards=tuple(
                Shard(role=role, source=source, key=f"{role}/{source}/{i}.parquet", etag="e", size=1, rows=80)
                for i in range(count)
            )
        )
        for role, source, count in sources
    ]
    geometry = versions.Geometry(key="density/g", identity="i", corpus_grid="c")
    plan = Plan(
        config=config,
        encoder_identity="e",
        engine_identity="e",
        finetune_identity="f",
        prompts={},
        groups=tuple(groups),
        base=versions.Version(name="web-before", run="runs/web/0", geometry=geometry) if earlier else None,
        geometry=geometry if earlier else None,
        unread=(
            Unread(
                folder="corpus/web/", objects=2, first=("corpus/web/<7>.md",), skipped={"hidden files": 3}
            ),
        ),
    )
    return Run.create(open_storage(config.root), plan)


def _commit(run: Run, stage: str, unit: str | None = None, **fields: Any) -> None:
    values = {"label": stage, "seconds": 12.5, "peak_memory_mb": 900.0} | fields
    run.commit(Manifest(stage=stage, **values), unit)


def _embedded(run: Run) -> None:
    for group in run.plan.groups:
        rows = 80 * len(group.shards)
        ledger = Ledger(rows_in=rows + 1, rows_out=rows, quarantined={"empty": 1})
        figures = {
            "rows_per_second": 99.4,
            "forms": ["parquet messages" if group.role == "sft" else "parquet"],
            "tokens": 150 * rows,
            "truncated_texts": rows // 4,
            "repeated_texts": 0,
        }
        _commit(run, "embed", group.digest, label=group.label, ledger=ledger, figures=figures, seconds=61.0)
        _commit(run, "density", group.digest, label=group.label, ledger=Ledger(rows_in=rows, rows_out=rows))
    figures = {
        "kind": "flat",
        "nlist": 0,
        "documents": 236,
        "repeated": 4,
        "collisions": 0,
        "bytes": 2_100_000,
    }
    ledger = Ledger(rows_in=240, rows_out=236, rejected={"repeated_text": 4, "id_collision": 0})
    _commit(run, "index", ledger=ledger, figures=figures)
    failed = {"corpus/web/<9>.parquet": "it is not readable as Parquet"}
    _commit(run, "merge", figures={"corpus_explained_variance": [0.21, 0.13], "failed_shards": failed})


def _document(number: int, text: str) -> dict[str, Any]:
    angle = number / 3
    return {
        "doc_id": f"{number:032x}",
        "dump": "web",
        "shard": "corpus/web/0.parquet",
        "row": number,
        "text": text,
        "x": 4.0 + np.cos(angle),
        "y": 1.5 + np.sin(angle),
        "p_corpus": 0.02,
        "p_sft": 0.001,
        "ratio": 0.05,
    }


def _selected(run: Run, halves: list[list[dict[str, Any]]], earlier: bool) -> None:
    outputs = {"grids": run.key("difference", "grids.safetensors")}
    run.storage.write(outputs["grids"], save(_grids(earlier)))
    for number, half in enumerate(halves):
        name = f"part-{number:04d}-of-{len(halves):04d}"
        outputs[name] = tables.write(run.storage, run.key("difference", name), pa.Table.from_pylist(half))
    chosen = sum(map(len, halves))
    below = BELOW if chosen else 0
    rejected = {"covered": DOCUMENTS - below, "not_sampled": below - chosen}
    figures = {
        "documents": DOCUMENTS,
        "below_tau": below,
        "selected": chosen,
        "parts": len(halves),
        "criterion": "density_ratio",
        "tau": 0.5,
        "bandwidth": {"corpus": 1.0, "sft": 1.0},
        "density_error": {"corpus": 2e-4, "sft": 3e-4},
        "density_error_below_floor": {"corpus": 0.0, "sft": 7e-12},
        "agreement": {
            "documents": 200,
            "selected": 50,
            "shared": {"density_ratio": {"gaussian": 0.375}, "gaussian": {"density_ratio": 0.375}},
        },
        "sweep": [[0.2, below // 2], [0.5, below], [1.0, below * 3], [2.0, DOCUMENTS]],
        "p_corpus": {"mean": 0.02, "q05": 0.001, "q25": 0.01, "q50": 0.02, "q75": 0.03, "q95": 0.04},
        "p_sft": {"mean": 0.01, "q05": 1.25e-7, "q25": 0.001, "q50": 0.01, "q75": 0.02, "q95": 0.03},
        "sources": [
            {"source": "web", "documents": 160, "below_tau": below, "selected": chosen},
            {"source": "wiki\x1b[2J", "documents": 80, "below_tau": 0, "selected": 0},
        ],
        "uncovered": 0.171,
        "uncovered_by_sft_alone": 0.234 if earlier else 0.171,
        "drift": {"outside": 0.012, "explained_loss": 0.034, "distance": 0.56} if earlier else None,
        "refit_due": earlier,
    }
    ledger = Ledger(rows_in=DOCUMENTS, rows_out=chosen, rejected=rejected)
    _commit(run, "difference", ledger=ledger, outputs=outputs, figures=figures)


def _grids(earlier: bool) -> dict[str, Any]:
    x, y = np.linspace(-10, 12, 177), np.linspace(-9, 9, 145)
    across, up = np.meshgrid(x, y)

    def blob(cx: float, cy: float, width: float) -> Any:
        return np.exp(-((across - cx) ** 2 + (up - cy) ** 2) / (2 * width**2)) / (2 * np.pi * width**2)

    alone = blob(-1.5, -0.5, 1.6).astype(np.float32)
    pairs = {"p_sft_alone": alone} if earlier else {}
    return {
        **pairs,
        "p_corpus": (0.6 * blob(0, 0, 2) + 0.4 * blob(4, 1.5, 1.3)).astype(np.float32),
        "p_sft": (0.9 * alone + 0.1 * blob(4, 1.5, 1.0)).astype(np.float32) if earlier else alone,
        "x": x,
        "y": y,
    }


def _prompted(
    run: Run, part: str, documents: list[dict[str, Any]], question: str, answer: str
) -> list[dict[str, Any]]:
    """Two questions a document: the first is kept and answered, the second is not."""
    figures = {
        "requests": len(documents),
        "reused": 1,
        "retried": 2,
        "documents_cut": 3,
        "repairs": {"code fence": 4},
        "neutralised": {"<|im_end|>": 7},
        "prompt_tokens": 20_000,
        "generated_tokens": 9000,
        "tokens_per_second": 412.0,
        "prefix_hit_share": 0.625,
        "load_seconds": 26.0,
        "engine_restarts": 0,
        "engine_starts": 1,
    }
    asked = [
        {"doc_id": d["doc_id"], "question_id": f"{d['doc_id']}-{i}", "question": question, "kept": True}
        for d in documents
        for i in range(2)
    ]
    scored = [
        {
            **row,
            "quality": 5 + number % 5,
            "difficulty": 3 + number % 7,
            "additional_information": False,
            "kept": number % 2 == 0,
            "reason": None if number % 2 == 0 else "quality",
        }
        for number, row in enumerate(asked)
    ]
    pairs = [
        {
            **{name: row[name] for name in ("doc_id", "question_id", "question")},
            "pair_id": f"{row['question_id']}-a",
            "answer": answer,
            "kept": True,
            "reason": None,
        }
        for row in scored
        if row["kept"]
    ]
    count, kept = len(asked), len(pairs)
    ledgers = {
        REWRITE: (asked, Ledger(rows_in=len(documents), rows_out=len(documents))),
        SCORE: (scored, Ledger(rows_in=count, rows_out=kept, rejected={"quality": count - kept})),
        ANSWER: (pairs, Ledger(rows_in=kept, rows_out=kept)),
    }
    for stage, (rows, ledger) in ledgers.items():
        key = tables.write(run.storage, run.key(stage.name, part), pa.Table.from_pylist(rows, stage.columns))
        _commit(run, stage.name, part, label=part, ledger=ledger, outputs={"rows": key}, figures=figures)
    scores = {row["question_id"]: row for row in scored}
    return [
        pair | {name: scores[pair["question_id"]][name] for name in ("quality", "difficulty")}
        for pair in pairs
    ]


def _coverage() -> dict[str, Any]:
    def told(*values: float) -> dict[str, dict[str, float]]:
        return {
            name: {"value": value, "low": value - 0.013, "high": value + 0.013}
            for name, value in zip(("before", "after", "gained"), values, strict=True)
        }

    few = {name: {"value": 0.5, "low": None, "high": None} for name in ("before", "after", "gained")}
    return {
        "documents": DOCUMENTS,
        "examples": {"before": 80, "after": 83},
        "tau": 0.5,
        "level": 0.95,
        "resamples": 200,
        "outside_window": 0.0,
        "uncovered": told(0.171, 0.05, 0.121),
        "divergence": told(0.3, 0.2, 0.1),
        "sources": [{"source": "wiki\x1b[2J", "documents": 9, "uncovered": few}],
    }


def _product(run: Run, made: list[dict[str, Any]], folder: Path) -> None:
    version, pairs = f"web+wiki-{run.plan.digest[:12]}", len(made)
    folder.mkdir()
    with Export(folder) as export:
        for pair in made:
            turns = [("user", pair["question"]), ("assistant", pair["answer"])]
            messages = [{"role": role, "content": text} for role, text in turns]
            export.write([{**pair, "origin": "aitp", "version": version, "messages": messages}])
        export.close("aitp")
    shard = data_files.shard(0, 1)
    run.storage.upload(f"datasets/aitp/{version}/{shard}", folder / shard)
    densities = run.key("assemble", "densities.safetensors")
    grids = _grids(earlier=True)
    sides = {"p_before": grids.pop("p_sft_alone"), "p_after": grids.pop("p_sft")}
    run.storage.write(densities, save(grids | sides))
    _commit(
        run,
        "assemble",
        label=version,
        ledger=Ledger(rows_in=80 + pairs, rows_out=80 + pairs),
        outputs={
            data_files.output(shard): f"datasets/aitp/{version}/{shard}",
            "densities": densities,
        },
        figures={
            "coverage": _coverage(),
            "version": version,
            "pairs": pairs,
            "earlier_pairs": 0,
            "sft_examples": 80,
            "rewritten_share": round(pairs / (80 + pairs), 6),
            "not_kept": {"rating<b>": 80, "messages[].id": 1},
            "examples": {
                "kept": {"tools": 7, "weight": 2, "reasoning_content": 5},
                "lost": {"weight": 2, "tool_calls.id": 6},
                "unread": {"begins_with_assistant": 1200, "not_alternating": 1},
            },
            "contents": {
                "rows": 9000,
                "json_files": {
                    "sharegpt.json": {
                        "rows": 7799,
                        "left_out": {"begins_with_assistant": 1200, "no_turns": 1},
                    },
                    "alpaca.json": {"rows": 9000, "left_out": {}},
                },
                "marks": {"setting": "keep", "rows": 3, "by_mark": {"<|im_end|>": 2, "[INST]": 1}},
            },
        },
    )
    history = [{"step": step, "loss": 2.4 * 0.9**step + 0.1 * (step % 3)} for step in range(1, 25)]
    key = run.key("finetune", "log_history.json")
    run.storage.write(key, json.dumps(history).encode())
    _commit(
        run,
        "finetune",
        label=f"aitp {version}",
        ledger=Ledger(rows_in=80 + pairs, rows_out=80 + pairs),
        outputs={"checkpoint": f"models/aitp/{version}", "log_history": key},
        figures={
            "train_loss_first": history[0]["loss"],
            "train_loss_last": history[-1]["loss"],
            "steps": 24,
            "examples": 80 + pairs,
            "unused": {"reasoning_content": 4},
        },
        seconds=7321.0,
        peak_memory_mb=2345.6,
    )
