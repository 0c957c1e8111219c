"""What the documents of each region have given: in this run, and on the nights of its line before.

Kept are the pairs that the gates of the prompt stages have kept: what is left out later, as a
near-duplicate or for want of room, says something of the dataset and not of the region. Tokens are
those of all responses to the requests of a document, whenever they were generated, so that a part
which was killed and run again tells the same.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from aitp_tasks.densities.partition import Partition
from aitp_tasks.records import digest, generated, selected, versions
from aitp_tasks.records.plan import Plan
from aitp_tasks.records.run import Run
from aitp_tasks.selection.drawing import REGION

#: What is counted of each region: documents that were rewritten, the questions that the gates without a model
#: have kept of them, the pairs that all gates of the prompt stages have, and tokens.
COUNTED = ("documents", "questions", "pairs", "tokens")


def figures(run: Run, parts: Iterable[str]) -> dict[str, Any] | None:
    """What a run's regions have given, as figures of a manifest; None where that was not counted.

    Args:
        run: whose they are.
        parts: that are counted.

    Raises:
        InputError: a part has not been answered.
    """
    cuts = run.require_manifest("difference").figures.get("cuts")
    if cuts is None:
        return None
    sums = {name: np.zeros(len(cuts) + 1, np.int64) for name in COUNTED}
    for part in parts:
        counted = _counted(run, part)
        if counted is None:
            return None
        regions = dict(zip(*selected.table(run, part, ["doc_id", REGION]).to_pydict().values(), strict=True))
        for name, by_document in counted:
            for document, count in by_document.items():
                sums[name][regions[document]] += count
    return {"cuts": cuts, "setup": setup_of(run.plan)} | {name: sums[name].tolist() for name in COUNTED}


def _counted(run: Run, part: str) -> list[tuple[str, Mapping[str, int]]] | None:
    """Counts by document of one part; None of an earlier release."""
    spent = [generated.tokens(run, stage, part) for stage in generated.STAGES]
    if None in spent:
        return None
    documents = selected.table(run, part, ["doc_id"])[0].to_pylist()
    return [
        ("documents", dict.fromkeys(documents, 1)),
        ("questions", _kept(run, "rewrite", part)),
        ("pairs", _kept(run, "answer", part)),
        *(("tokens", found or {}) for found in spent),
    ]


def night(told: Mapping[str, Any]) -> versions.Regions:
    """What ``figures`` has told, as a line keeps it."""
    return versions.Regions(
        cuts=Partition.told(told["cuts"]).cuts,
        setup=told["setup"],
        documents=tuple(told["documents"]),
        pairs=tuple(told["pairs"]),
        tokens=tuple(told["tokens"]),
    )


def _kept(run: Run, stage: str, part: str) -> dict[str, int]:
    """How many rows of a stage are kept of each document."""
    table = generated.table(run, stage, part, ["doc_id", "kept"])
    counts = table.filter(table["kept"])["doc_id"].value_counts()
    return {item["values"].as_py(): item["counts"].as_py() for item in counts}


def setup_of(plan: Plan) -> str:
    """Digest of the models, prompts and gates: by others, documents give other pairs."""
    config = plan.config
    return digest.of_value(
        {
            "engine": [plan.engine_identity, config.engine.generation_identity()],
            # The judge's too, where there is one.
            "prompts": [prompt.digest for prompt in plan.prompts.values()],
            "asking": config.prompts.model_dump(
                mode="json", include={"questions_per_document", "second_attempt", "answers_per_question"}
            ),
            "gates": config.gates.model_dump(mode="json"),
            "rules": plan.rules,
        }
    )


def earlier(plan: Plan) -> versions.Regions | None:
    """What the nights before have told of the line's regions; None where these have to be cut anew.

    They have, when the plane is another one, or another number of regions is wanted. Nothing is
    known of what they give when models, prompts or gates are others.
    """
    base, kept = plan.base, plan.geometry
    if base is None or base.regions is None or kept is None or kept.key != base.geometry.key:
        return None
    if len(base.regions.documents) != plan.config.difference.regions:
        return None
    setup = setup_of(plan)
    return (
        base.regions if base.regions.setup == setup else versions.Regions.unmeasured(base.regions.cuts, setup)
    )
