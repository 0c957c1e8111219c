"""The steps that have led to a pair, as its run has written them down; what is not on record is None."""

import itertools
from collections.abc import Mapping
from typing import Any

import pyarrow.compute as pc

from aitp_tasks.config import RunConfig
from aitp_tasks.errors import InputError
from aitp_tasks.records import generated, selected
from aitp_tasks.records.run import Run, parts_with
from aitp_tasks.selection import removals
from aitp_tasks.storage import Storage

#: Settings of ``gates`` that decide in each prompt stage; all others are the last one's.
_GATES = {
    "rewrite": ("min_question_words", "max_question_similarity", "question_language"),
    "score": ("min_quality", "min_difficulty", "allow_additional_information", "keep_best"),
}
_AXES = ("x", "y", "z")
#: What the rows of a stage say by which a gate decides.
_SCORES = {
    "score": ("quality", "difficulty", "expected_quality", "expected_difficulty", "additional_information"),
    "answer": (generated.VERDICT, generated.LOG_PROBABILITY),
}


def opened(storage: Storage, prefix: str | None) -> tuple[Run | None, str]:
    """A pair's run, or why it cannot be opened."""
    if prefix is None:
        return None, "the version that the pair came with is not on record, nor is its run"
    try:
        return Run.open(storage.uri(prefix)), ""
    except InputError as error:
        return None, " ".join(str(error).split())


def drawn(run: Run | None, doc_id: str) -> dict[str, Any]:
    """The document's row in the difference set; empty where that is not on record."""
    if run is None or run.find_manifest("difference") is None:
        return {}
    outputs = selected.told(run).outputs
    for part in _parts(run, doc_id):
        if part in outputs and run.storage.find(outputs[part]) is not None:
            table = selected.table(run, part)
            rows: list[dict[str, Any]] = table.filter(pc.equal(table["doc_id"], doc_id)).to_pylist()
            if rows:
                return rows[0]
    return {}


def answered(run: Run | None, doc_id: str, pair_id: str) -> dict[str, dict[str, Any]]:
    """The pair's row of each prompt stage, by the stage's name; of those that are on record."""
    found: dict[str, dict[str, Any]] = {}
    if run is None:
        return found
    for stage, part in itertools.product(generated.STAGES, _parts(run, doc_id)):
        made = run.find_manifest(stage, part)
        if made is None or run.storage.find(made.output("rows")) is None:
            continue
        last = stage == generated.STAGES[-1]
        table = generated.table(run, stage, part)
        mine = pc.equal(table["pair_id" if last else "question_id"], pair_id if last else question(pair_id))
        for row in table.filter(mine).to_pylist():
            found[stage] = row | {"neutralised": sum(made.figures.get("neutralised", {}).values())}
    return found


def _parts(run: Run, doc_id: str) -> list[str]:
    """The parts of the difference set that may hold a document."""
    done = run.find_manifest("difference")
    return parts_with(done.figures, doc_id) if done is not None else []


def question(pair_id: str) -> str:
    """Id of a pair's question."""
    return pair_id.rpartition("-")[0]


def region(document: Mapping[str, Any], ratio: float | None) -> dict[str, Any]:
    """Where the document lies among all, and how dense both sets are there."""
    return {
        "coordinates": [document[axis] for axis in _AXES if axis in document] or None,
        # Where documents were drawn by regions, the difference set has a column of that name.
        "region": document.get("region"),
        "p_corpus": document.get("p_corpus"),
        "p_sft": document.get("p_sft"),
        "density_ratio": ratio if ratio is not None else document.get("ratio"),
    }


def engine(run: Run | None, row: Mapping[str, Any]) -> dict[str, Any]:
    """Prompts, model and sampling; of a run that is not there, what the pair's own row says."""
    if run is None:
        versions = dict(one.split("@", 1) for one in row.get("prompts") or [])
        answer = row.get("prompt_digest")
        return {
            "model": row.get("model"),
            "revision": None,
            "model_identity": None,
            "prompt_versions": versions,
            "prompt_digests": {"answer": answer} if answer else None,
            "sampling": None,
        }
    prompts, settings = run.plan.prompts, run.config.engine
    return {
        "model": settings.label,
        "revision": settings.revision,
        "model_identity": run.plan.engine_identity,
        "prompt_versions": {name: one.version for name, one in prompts.items()},
        "prompt_digests": {name: one.digest for name, one in prompts.items()},
        "sampling": {name: one.sampling for name, one in prompts.items()},
    }


def gates(run: Run | None, rows: Mapping[str, Mapping[str, Any]], left: str | None) -> list[dict[str, Any]]:
    """Of each stage with gates: whether the pair has passed, why not, and the settings that decide.

    Args:
        run: the pair's; None where it is not on record.
        rows: the pair's row of each prompt stage.
        left: why assemble has not let it in; None where it has.
    """
    found = []
    for stage in generated.STAGES:
        row = rows.get(stage)
        settings = _settings(run.config, stage) if run else None
        scores = {name: row[name] for name in _SCORES.get(stage, ()) if row and row.get(name) is not None}
        found.append(
            {
                "stage": stage,
                "passed": bool(row["kept"]) if row else None,
                "reason": row["reason"] if row else None,
                **({"scores": scores} if scores else {}),
                "settings": settings,
            }
        )
        if row and not row["kept"]:
            return found
    settings = removals.settings(run.config) if run else None
    return [*found, {"stage": "assemble", "passed": left is None, "reason": left, "settings": settings}]


def _settings(config: RunConfig, stage: str) -> dict[str, Any]:
    every = config.gates.model_dump(mode="json")
    others = {name for names in _GATES.values() for name in names}
    names = _GATES.get(stage, tuple(name for name in every if name not in others))
    return {name: every[name] for name in names}


def span(text: str | None, cut: int | None) -> list[int] | None:
    """Which characters of a document were seen, of which so many were left out at its end."""
    return None if text is None or cut is None else [0, max(len(text) - cut, 0)]
