"""rewrite: the documents of one part become questions (paper, prompt 1).

Reads a part of the difference set; writes one row per question, and whether it
is kept by the gates that need no model.
"""

from typing import Any

import pyarrow as pa

from aitp_tasks.config import Gates
from aitp_tasks.generation import part
from aitp_tasks.generation.gates.on_questions import closed
from aitp_tasks.generation.requests import Parsed, PromptStage, Reading, Rejected, Request
from aitp_tasks.inputs.rows import Refusal
from aitp_tasks.records import digest, selected
from aitp_tasks.records.run import Run


def execute(run: Run, unit: int) -> dict[str, Any]:
    """Rewrite one part; see ``generation.part.execute``."""
    return part.execute(STAGE, run, unit)


def question_id(doc_id: str, question: str) -> str:
    """Identity of a question: its document's, and its text's."""
    return f"{doc_id}-{digest.of_text(question)[:16]}"


def _requests(run: Run, name: str) -> list[Request]:
    documents = selected.documents(run, name, ["doc_id", "text"])
    return [Request(row["doc_id"], {"text": row["text"]}) for row in documents]


def _read(gates: Gates, request: Request, parsed: Parsed) -> Reading:
    # Two questions that are the same text are one question.
    questions = list(dict.fromkeys(question.strip() for question in parsed.value["questions"]))
    questions = [question for question in questions if question]
    if not questions:
        return Refusal("no_question", "every question is white space")
    rows: list[dict[str, Any]] = []
    for question in questions:
        asked = [row["question"] for row in rows if row["kept"]]
        reason = closed(question, request.arguments["text"], asked, gates)
        rows.append(
            {
                "doc_id": request.id,
                "question_id": question_id(request.id, question),
                "question": question,
                "cut_characters": parsed.response.cut_characters,
                "kept": reason is None,
                "reason": reason,
            }
        )
    return rows if any(row["kept"] for row in rows) else Rejected(rows[0]["reason"], rows)


STAGE = PromptStage(
    name="rewrite",
    columns=pa.schema(
        [
            ("doc_id", pa.string()),
            ("question_id", pa.string()),
            ("question", pa.large_string()),
            ("cut_characters", pa.int64()),
            ("kept", pa.bool_()),
            ("reason", pa.string()),
        ]
    ),
    requests=_requests,
    read=_read,
)
