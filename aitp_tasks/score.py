"""score: the questions of one part are scored and gated (paper, prompt 2).

Reads the part's questions; writes one row per question, with its scores and
whether it is kept.
"""

from typing import Any

import pyarrow as pa

from aitp_tasks import generation
from aitp_tasks.config import Gates
from aitp_tasks.generation import PromptStage, Reading, Rejected, Request
from aitp_tasks.run import Run


def execute(run: Run, unit: int) -> dict[str, Any]:
    """Score one part; see ``generation.execute``."""
    return generation.execute(STAGE, run, unit)


def _requests(run: Run, part: str) -> list[Request]:
    return [
        Request(row["question_id"], {"question": row["question"]})
        for row in generation.read_rows(run, "rewrite", part)
    ]


def _read(run: Run, request: Request, response: dict[str, Any]) -> Reading:
    reason = closed_gate(run.config.gates, response)
    row = {
        "doc_id": request.id.partition("-")[0],
        "question_id": request.id,
        "question": request.arguments["question"],
        "quality": int(response["quality"]),
        "difficulty": int(response["difficulty"]),
        "additional_information": response["additional_information"],
        "kept": reason is None,
        "reason": reason,
    }
    return [row] if reason is None else Rejected(reason, [row])


def closed_gate(gates: Gates, scores: dict[str, Any]) -> str | None:
    """The first gate that a question does not pass."""
    if scores["quality"] < gates.min_quality:
        return "quality"
    if scores["difficulty"] < gates.min_difficulty:
        return "difficulty"
    if scores["additional_information"] and not gates.allow_additional_information:
        return "additional_information"
    return None


STAGE = PromptStage(
    name="score",
    columns=pa.schema(
        [
            ("doc_id", pa.string()),
            ("question_id", pa.string()),
            ("question", pa.large_string()),
            ("quality", pa.int64()),
            ("difficulty", pa.int64()),
            ("additional_information", pa.bool_()),
            ("kept", pa.bool_()),
            ("reason", pa.string()),
        ]
    ),
    requests=_requests,
    read=_read,
)
