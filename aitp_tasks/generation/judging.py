"""Whether answers are supported by their documents, asked of the engine that has answered.

The judge sees what the answer was generated from: the document as far as it was shown, the
question, the answer. A verdict that cannot be had keeps no answer: it is quarantined with the
judge's error class, ``judge_`` before it, and counts against the stage's failure budget.
"""

from collections import Counter
from collections.abc import Mapping
from typing import Any

from aitp_tasks.config import Gates, Verdict
from aitp_tasks.generation.prompt_files import JUDGE
from aitp_tasks.generation.requests import Asking, Asks, Parsed, Reading, Readings, Rejected, Request
from aitp_tasks.inputs.rows import Refusal
from aitp_tasks.records import generated


def _read(gates: Gates, request: Request, parsed: Parsed) -> Reading:
    return [{"judged": request.id, generated.VERDICT: Verdict(parsed.value["verdict"])}]


ASKING = Asking(name=JUDGE, read=_read)


def judge(
    ask: Asks, least: Verdict, requests: Mapping[str, Request], readings: Readings
) -> tuple[Readings, dict[str, Any]]:
    """The readings of answers with the judge's verdicts, and figures of it.

    Args:
        ask: the engine.
        least: an answer with a worse verdict is left out, as ``judged_<verdict>``.
        requests: of the answers.
        readings: of those that a gate has closed, nothing is asked.
    """
    asked = {
        key: request_of(requests[key], reading[0])
        for key, reading in readings.items()
        if isinstance(reading, list)
    }
    found, figures = ask(ASKING, list(asked.values()))
    judged = {key: _judged(readings[key], found[request.id], least) for key, request in asked.items()}
    verdicts = Counter(
        reading[0][generated.VERDICT] for reading in found.values() if isinstance(reading, list)
    )
    figures["verdicts"] = {verdict.value: verdicts[verdict] for verdict in reversed(Verdict)}
    return {**readings, **judged}, figures


def request_of(request: Request, row: Mapping[str, Any]) -> Request:
    """The judge's request about an answer.

    Args:
        request: by which it was generated.
        row: of the answer.
    """
    unseen = int(row["cut_characters"])
    # What was seen of a document decides the verdict, as its text does.
    name = f"{row['pair_id']}-{unseen}" if unseen else str(row["pair_id"])
    return Request(name, {**request.arguments, "answer": row["answer"]}, unseen=unseen)


def _judged(answered: Reading, verdict: Reading, least: Verdict) -> Reading:
    if isinstance(verdict, Refusal):
        return Refusal(f"{JUDGE}_{verdict.error_class}", f"of the judge: {verdict.message}")
    assert isinstance(answered, list)
    assert isinstance(verdict, list)
    said = Verdict(verdict[0][generated.VERDICT])
    row = answered[0] | {generated.VERDICT: said.value}
    if not said.is_below(least):
        return [row]
    reason = f"{generated.JUDGED}{said}"
    return Rejected(reason, [row | {"kept": False, "reason": reason}])
