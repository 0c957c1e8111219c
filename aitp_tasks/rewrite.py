"""rewrite: the documents of one part become questions (paper, prompt 1).

Reads a part of the difference set; writes one row per question.
"""

from typing import Any

import pyarrow as pa

from aitp_tasks import digest, generation
from aitp_tasks.generation import Parsed, PromptStage, Reading, Request
from aitp_tasks.rows import Refusal
from aitp_tasks.run import Run


def execute(run: Run, unit: int) -> dict[str, Any]:
    """Rewrite one part; see ``generation.execute``."""
    return generation.execute(STAGE, run, unit)


def question_id(doc_id: str, question: str) -> str:
    """Identity of a question: its document's, and its text's."""
    return f"{doc_id}-{digest.of_text(question)[:16]}"


def _requests(run: Run, part: str) -> list[Request]:
    documents = generation.documents(run, part, ["doc_id", "text"])
    return [Request(row["doc_id"], {"text": row["text"]}) for row in documents]


def _read(run: Run, request: Request, response: Parsed) -> Reading:
    # Two questions that are the same text are one question.
    questions = list(dict.fromkeys(question.strip() for question in response.value["questions"]))
    questions = [question for question in questions if question]
    if not questions:
        return Refusal("no_question", "every question is white space")
    return [
        {"doc_id": request.id, "question_id": question_id(request.id, question), "question": question}
        for question in questions
    ]


STAGE = PromptStage(
    name="rewrite",
    columns=pa.schema(
        [("doc_id", pa.string()), ("question_id", pa.string()), ("question", pa.large_string())]
    ),
    requests=_requests,
    read=_read,
)
