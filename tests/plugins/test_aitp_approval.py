"""Who is asked what, and what becomes of an answer: none, one that comes too soon, a refusal."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.providers.standard.operators.hitl import HITLOperator
from airflow.sdk import DAG
from airflow.sdk.exceptions import AirflowFailException
from airflow.sdk.timezone import utcnow

from aitp_approval import (
    ApproveOperator,
    ApprovePromotionOperator,
    AskOperator,
    PromoteOperator,
    name_of,
    told,
)

WHY = "it is better on documents (-0.1000, -0.1100 to -0.0900)"
FOUND = {
    "label": "aitp v2",
    "run": "s3://b/runs/c4/x",
    "to_promote": True,
    "why": WHY,
    "sets": {
        "sft": [1234, 2.0, 1.5, 1.25, 0.01, -0.02, 0.03],
        "pairs": [5, 2.0, 1.5, 1.25, -0.25, None, None],
        "documents": [0, None, None, None, None, None, None],
    },
}
TABLE = """\
| held out | examples | base | SFT set alone | new | new − SFT set alone (95%) |
| --- | ---: | ---: | ---: | ---: | ---: |
| SFT examples | 1,234 | 2.0000 | 1.5000 | 1.2500 | +0.0100 (-0.0200 to +0.0300) |
| held-out pairs | 5 | 2.0000 | 1.5000 | 1.2500 | -0.2500 |
| documents | 0 | – | – | – | – |"""


def made(kind: type[AskOperator], config: str = "config.yaml") -> AskOperator:
    with DAG("asks", schedule=None, default_args={"retries": 3}):
        return kind(task_id="approve", config=config)


KINDS = pytest.mark.parametrize("kind", [ApproveOperator, ApprovePromotionOperator])


@KINDS
def test_who_does_not_answer_in_time_is_not_asked_again(kind: type[AskOperator]) -> None:
    event = {"error": "The timeout of 72 hours has passed", "error_type": "timeout"}
    with pytest.raises(AirflowFailException, match="nobody has answered: The timeout of 72 hours"):
        made(kind).execute_complete({}, event)


@KINDS
def test_a_question_that_airflow_fails_is_put_once_more_and_at_once(kind: type[AskOperator]) -> None:
    operator = made(kind)
    assert operator.retries == 1
    assert operator.retry_delay.total_seconds() == 5
    assert operator.execution_timeout is None


@pytest.mark.parametrize(
    ("approval", "to_promote", "asked"),
    [
        ("{before_promotion: true, wait_hours: 2}", True, True),
        ("{before_promotion: true}", False, False),
        ("{before_promotion: false}", True, False),
        ("{before_finetune: true}", True, False),
    ],
)
def test_a_person_is_asked_only_where_there_is_something_to_promote(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, approval: str, to_promote: bool, asked: bool
) -> None:
    config = tmp_path / "config.yaml"
    config.write_text(f"approval: {approval}\n")
    put: list[HITLOperator] = []
    monkeypatch.setattr(HITLOperator, "execute", lambda self, context: put.append(self))
    operator = made(ApprovePromotionOperator, str(config))
    operator.execute.__wrapped__(operator, _context({"evaluate": FOUND | {"to_promote": to_promote}}))  # type: ignore[attr-defined]
    assert bool(put) is asked
    for question in put:
        assert question.subject == "Promote aitp v2?"
        assert question.body == f"To be promoted, because {WHY}.\n\n{TABLE}\n\nRun: `s3://b/runs/c4/x`"
        assert question.response_timeout is not None
        assert question.response_timeout.total_seconds() == 7200


def _context(results: dict[str, Any]) -> Any:
    return {"ti": SimpleNamespace(xcom_pull=lambda task_ids: results.get(task_ids)), "params": {}}


def test_where_the_table_found_no_place_the_question_is_put_without_it() -> None:
    assert told(FOUND | {"sets": {}}) == f"To be promoted, because {WHY}.\n\nRun: `s3://b/runs/c4/x`"


@pytest.mark.parametrize(
    ("option", "user", "expected"),
    [
        ("Approve", {"id": "1", "name": "ada"}, []),
        ("Reject", {"id": "1", "name": "ada"}, ["--refused-by=ada"]),
        ("Reject", {"id": "7", "name": ""}, ["--refused-by=7"]),
        ("Reject", None, ["--refused-by=somebody"]),
        (
            "Reject",
            {"id": "1", "name": "--run s3://evil\n\0{{ 7 * 7 }}"},
            ["--refused-by=--run s3://evil{{ 7 * 7 }}"],
        ),
    ],
)
def test_an_answer_is_handed_on_to_promote_and_skips_nothing(
    monkeypatch: pytest.MonkeyPatch, option: str, user: Any, expected: list[str]
) -> None:
    asks = made(ApprovePromotionOperator)
    monkeypatch.setattr(asks, "skip", pytest.fail)
    event = {
        "chosen_options": [option],
        "params_input": {},
        "responded_at": utcnow(),
        "responded_by_user": user,
    }
    answer = asks.execute_complete(_context({}), event)
    promote = PromoteOperator(task_id="promote", stage="promote", after="approve")
    assert promote.command_arguments(_context({"approve": answer})) == expected


@pytest.mark.parametrize("after", ["approve", None])
def test_where_nobody_was_asked_nobody_has_refused(after: str | None) -> None:
    promote = PromoteOperator(task_id="promote", stage="promote", after=after)
    assert promote.command_arguments(_context({})) == []


def test_a_name_is_short() -> None:
    assert name_of({"name": "a" * 1000}) == "a" * 100
