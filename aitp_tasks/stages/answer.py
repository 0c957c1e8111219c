"""answer: the kept questions of one part are answered with their documents (paper, prompt 3).

Reads the part's scored questions and documents; writes one row per answer, and
whether it is kept by the gates that need no model.
"""

from typing import Any

import pyarrow as pa

from aitp_tasks.config import Gates
from aitp_tasks.generation import part
from aitp_tasks.generation.gates.on_answers import closed
from aitp_tasks.generation.requests import Parsed, PromptStage, Reading, Rejected, Request
from aitp_tasks.records import digest, generated, selected
from aitp_tasks.records.run import Run


def execute(run: Run, unit: int) -> dict[str, Any]:
    """Answer one part; see ``generation.part.execute``."""
    return part.execute(STAGE, run, unit)


def _requests(run: Run, name: str) -> list[Request]:
    texts = {row["doc_id"]: row["text"] for row in selected.documents(run, name, ["doc_id", "text"])}
    return [
        Request(row["question_id"], {"text": texts[row["doc_id"]], "question": row["question"]})
        for row in generated.kept_rows(run, "score", name)
    ]


def _read(gates: Gates, request: Request, parsed: Parsed) -> Reading:
    answer = parsed.value["answer"].strip()
    question = request.arguments["question"]
    reason = closed(answer, question, request.arguments["text"], gates)
    row = {
        "pair_id": f"{request.id}-{digest.of_text(answer)[:16]}",
        "doc_id": request.id.partition("-")[0],
        "question_id": request.id,
        "question": question,
        "answer": answer,
        "cut_characters": parsed.response.cut_characters,
        "kept": reason is None,
        "reason": reason,
    }
    return [row] if reason is None else Rejected(reason, [row])


STAGE = PromptStage(
    name="answer",
    columns=pa.schema(
        [
            ("pair_id", pa.string()),
            ("doc_id", pa.string()),
            ("question_id", pa.string()),
            ("question", pa.large_string()),
            ("answer", pa.large_string()),
            ("cut_characters", pa.int64()),
            ("kept", pa.bool_()),
            ("reason", pa.string()),
        ]
    ),
    requests=_requests,
    read=_read,
)
