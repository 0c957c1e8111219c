"""A run whose questions are scored, without a model: what answer reads, as the stages before it leave it."""

from collections.abc import Mapping, Sequence

import pyarrow as pa

from aitp_tasks.config import RunConfig
from aitp_tasks.generation import prompt_files
from aitp_tasks.machine import models
from aitp_tasks.records import digest, tables
from aitp_tasks.records.manifest import Manifest
from aitp_tasks.records.plan import Plan
from aitp_tasks.records.run import Run, part_name
from aitp_tasks.stages import rewrite, score
from aitp_tasks.storage import open_storage

#: The only part of such a run.
PART = part_name(0, 1)


def scored(config: RunConfig, asked: Mapping[str, Sequence[str]]) -> Run:
    """The run: documents with the questions that are to be answered."""
    inputs = Plan(
        config=config,
        encoder_identity="encoder",
        engine_identity=models.identity(config.engine),
        finetune_identity=models.identity(config.finetune),
        prompts=prompt_files.load_folder(config.prompts, config.gates.min_faithfulness is not None),
        groups=(),
    )
    run = Run.create(open_storage(config.root), inputs)
    documents = [{"doc_id": digest.of_text(text), "text": text} for text in asked]
    _leave(run, "difference", pa.Table.from_pylist(documents), {PART: "documents"}, {"parts": 1})
    rows = [
        {
            "doc_id": document["doc_id"],
            "question_id": rewrite.question_id(document["doc_id"], question),
            "question": question,
            "kept": True,
            "quality": 8,
            "difficulty": 5,
        }
        for document, questions in zip(documents, asked.values(), strict=True)
        for question in questions
    ]
    _leave(run, "score", pa.Table.from_pylist(rows, score.STAGE.columns), {"rows": PART}, {}, PART)
    return run


def _leave(
    run: Run,
    stage: str,
    table: pa.Table,
    named: dict[str, str],
    figures: dict[str, int],
    unit: str | None = None,
) -> None:
    outputs = {name: tables.write(run.storage, run.key(stage, file), table) for name, file in named.items()}
    run.commit(Manifest(stage=stage, label=PART, outputs=outputs, figures=figures), unit)
