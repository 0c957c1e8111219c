"""answer: the kept questions of one part are answered with their documents (paper, prompt 3).

Reads the part's scored questions and documents; writes one row per answer, and
whether it is kept by the gates: those that need no model, and a judge where there is
one. Of several answers to a question, the one that the base model finds likeliest is kept.
"""

from collections.abc import Mapping
from typing import Any

import pyarrow as pa

from aitp_tasks.config import Gates
from aitp_tasks.generation import judging, part, ranking
from aitp_tasks.generation.gates.on_answers import closed
from aitp_tasks.generation.requests import (
    Asks,
    Parsed,
    PromptStage,
    Reading,
    Readings,
    Rejected,
    Request,
)
from aitp_tasks.machine import devices, likelihood
from aitp_tasks.records import digest, generated, selected
from aitp_tasks.records.run import Run


def execute(run: Run, unit: int) -> dict[str, Any]:
    """Answer one part; see ``generation.part.execute``."""
    return part.execute(STAGE, run, unit)


def _requests(run: Run, name: str) -> list[Request]:
    texts = {row["doc_id"]: row["text"] for row in selected.documents(run, name, ["doc_id", "text"])}
    count = run.config.prompts.answers_per_question
    if count > 1:
        # For the base model, which ranks them when all are there.
        devices.require(1, ranking.SETTING)
    return [
        Request(
            # The first one's is that of an only one: what was generated for that is used again.
            f"{row['question_id']}-{number}" if number else row["question_id"],
            {"text": texts[row["doc_id"]], "question": row["question"]},
            seeded=count > 1,
        )
        for row in generated.kept_rows(run, "score", name)
        for number in range(count)
    ]


def _read(gates: Gates, request: Request, parsed: Parsed) -> Reading:
    answer = parsed.value["answer"].strip()
    question = request.arguments["question"]
    reason = closed(answer, question, request.arguments["text"], gates)
    document_id, of_question, *_ = request.id.split("-")
    question_id = f"{document_id}-{of_question}"
    row = {
        "pair_id": f"{question_id}-{digest.of_text(answer)[:16]}",
        "doc_id": document_id,
        "question_id": question_id,
        "question": question,
        "answer": answer,
        "cut_characters": parsed.response.cut_characters,
        "kept": reason is None,
        "reason": reason,
    }
    return [row] if reason is None else Rejected(reason, [row])


def _choose(
    run: Run, ask: Asks, requests: Mapping[str, Request], readings: Readings
) -> tuple[Readings, dict[str, Any]]:
    """What becomes of the answers that the gates have let through."""
    readings = _distinct(readings)
    figures: dict[str, Any] = {}
    if (least := run.config.gates.min_faithfulness) is not None:
        readings, figures["judge"] = judging.judge(ask, least, requests, readings)
    if run.config.prompts.answers_per_question == 1:
        return readings, figures
    # The base model needs the engine's devices.
    ask.end()
    passed = {key: reading[0] for key, reading in readings.items() if isinstance(reading, list)}
    found, figures["ranking"] = ranking.log_probabilities(
        run.config.finetune,
        run.plan.finetune_identity,
        [(row["question"], row["answer"]) for row in passed.values()],
    )
    ranked = {
        key: row | {generated.LOG_PROBABILITY: value}
        for (key, row), value in zip(passed.items(), found, strict=True)
    }
    return {**readings, **_likeliest(ranked)}, figures


def _distinct(readings: Readings) -> Readings:
    """The answers, each text to a question once."""
    seen: set[str] = set()
    found = dict(readings)
    for key, reading in readings.items():
        if isinstance(reading, list):
            found[key] = _left(reading[0], "same_answer") if reading[0]["pair_id"] in seen else reading
            seen.add(reading[0]["pair_id"])
    return found


def _likeliest(ranked: Mapping[str, dict[str, Any]]) -> Readings:
    """Of the answers to each question, the likeliest; the first of equal ones."""
    of_question: dict[str, list[str]] = {}
    for key, row in ranked.items():
        of_question.setdefault(row["question_id"], []).append(key)
    found: dict[str, Reading] = {}
    for keys in of_question.values():
        best = likelihood.likeliest([ranked[key][generated.LOG_PROBABILITY] for key in keys])
        for place, key in enumerate(keys):
            found[key] = [ranked[key]] if place == best else _left(ranked[key], "less_likely")
    return found


def _left(row: dict[str, Any], reason: str) -> Rejected:
    return Rejected(reason, [row | {"kept": False, "reason": reason}])


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
            # Null where nothing was judged, or ranked.
            (generated.VERDICT, pa.string()),
            (generated.LOG_PROBABILITY, pa.float64()),
            ("kept", pa.bool_()),
            ("reason", pa.string()),
        ]
    ),
    requests=_requests,
    read=_read,
    choose=_choose,
)
