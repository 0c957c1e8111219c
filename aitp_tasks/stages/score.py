"""score: the questions of one part are scored and gated (paper, prompt 2).

Reads the part's kept questions; writes one row per question, with its scores and
whether it is kept.
"""

import math
from collections.abc import Mapping
from typing import Any

import pyarrow as pa

from aitp_tasks.config import Gates
from aitp_tasks.generation import part
from aitp_tasks.generation.engine import Completion
from aitp_tasks.generation.gates.on_scores import closed
from aitp_tasks.generation.requests import Parsed, PromptStage, Reading, Rejected, Request
from aitp_tasks.inputs.rows import Refusal
from aitp_tasks.records import generated
from aitp_tasks.records.run import Run

_HIGHEST = 10
#: Alternatives of each number token: the ten scores and what else may stand there.
_ALTERNATIVES = 20


def execute(run: Run, unit: int) -> dict[str, Any]:
    """Score one part; see ``generation.part.execute``."""
    return part.execute(STAGE, run, unit)


def _requests(run: Run, name: str) -> list[Request]:
    return [
        Request(row["question_id"], {"question": row["question"]})
        for row in generated.kept_rows(run, "rewrite", name)
    ]


def _read(gates: Gates, request: Request, parsed: Parsed) -> Reading:
    scores = parsed.value
    reason = closed(scores, gates)
    quality, difficulty = expected_scores(parsed)
    row = {
        "doc_id": request.id.partition("-")[0],
        "question_id": request.id,
        "question": request.arguments["question"],
        "quality": int(scores["quality"]),
        "difficulty": int(scores["difficulty"]),
        "expected_quality": quality,
        "expected_difficulty": difficulty,
        "additional_information": scores["additional_information"],
        "kept": reason is None,
        "reason": reason,
    }
    return [row] if reason is None else Rejected(reason, [row])


def _select(gates: Gates, readings: Mapping[str, Reading]) -> Mapping[str, Reading]:
    """Of the questions that pass the gates, the best; what is equal is ordered by hash."""
    scored = sum(not isinstance(reading, Refusal) for reading in readings.values())
    passed = {key: reading[0] for key, reading in readings.items() if isinstance(reading, list)}
    # Rounded, because 0.07 * 100 is a little more than 7.
    room = math.ceil(round(gates.keep_best * scored, 6))
    dropped = sorted(passed, key=lambda key: _rank(passed[key]))[room:]
    return {**readings, **{key: _dropped(passed[key]) for key in dropped}}


def _rank(row: dict[str, Any]) -> tuple[float, float, str]:
    """The best first."""
    # No expectation is below 1.
    quality, difficulty = (row[f"expected_{name}"] or row[name] for name in ("quality", "difficulty"))
    return -quality, -difficulty, row["question_id"]


def _dropped(row: dict[str, Any]) -> Rejected:
    return Rejected("keep_best", [row | {"kept": False, "reason": "keep_best"}])


def expected_scores(parsed: Parsed) -> tuple[float | None, float | None]:
    """The means of quality and difficulty over the probabilities of the numbers that could have stood there.

    None where the engine gives no probabilities, or the text is not the object alone.
    """
    if parsed.repairs:
        return None, None
    values = (parsed.value["quality"], parsed.value["difficulty"])
    found = _score_tokens(parsed.response.completion, values)
    return (found[0], found[1]) if found else (None, None)


def _score_tokens(completion: Completion, values: tuple[int, int]) -> list[float] | None:
    """The mean of each score, from the number tokens that spell the scores in their order."""
    numbers = list(completion.numbers)
    means = []
    for value in values:
        digits = ""
        weights: dict[int, float] = {}
        while digits != str(value):
            if not numbers:
                return None
            text, alternatives = numbers.pop(0)
            weights = _next_weights(digits, weights, alternatives)
            digits += text.strip()
            if not str(value).startswith(digits):
                return None
        means.append(sum(score * weight for score, weight in weights.items()) / sum(weights.values()))
    return means


def _next_weights(
    digits: str, before: dict[int, float], alternatives: list[tuple[str, float]]
) -> dict[int, float]:
    """Weights of the scores after one more token.

    A 10 that is spelled as two tokens takes its weight from the 1, by the share of the 0.
    """
    found: dict[int, float] = {}
    for text, logarithm in alternatives:
        whole = digits + text.strip()
        if whole.isascii() and whole.isdigit() and 1 <= int(whole) <= _HIGHEST:
            found[int(whole)] = found.get(int(whole), 0.0) + math.exp(logarithm)
    if not digits:
        return found
    one = before.get(int(digits), 0.0)
    ten = min(sum(found.values()), 1.0) * one
    return {**before, int(digits): one - ten, **dict.fromkeys(found, ten)}


STAGE = PromptStage(
    name="score",
    columns=pa.schema(
        [
            ("doc_id", pa.string()),
            ("question_id", pa.string()),
            ("question", pa.large_string()),
            ("quality", pa.int64()),
            ("difficulty", pa.int64()),
            ("expected_quality", pa.float64()),
            ("expected_difficulty", pa.float64()),
            ("additional_information", pa.bool_()),
            ("kept", pa.bool_()),
            ("reason", pa.string()),
        ]
    ),
    requests=_requests,
    read=_read,
    alternatives=_ALTERNATIVES,
    select=_select,
)
