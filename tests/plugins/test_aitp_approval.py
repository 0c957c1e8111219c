"""What becomes of a question that nobody answers, and of one whose answer comes too soon."""

import pytest
from airflow.sdk import DAG
from airflow.sdk.exceptions import AirflowFailException

from aitp_approval import ApproveOperator


@pytest.fixture
def operator() -> ApproveOperator:
    with DAG("asks", schedule=None, default_args={"retries": 3}):
        return ApproveOperator(task_id="approve", config="config.yaml")


def test_who_does_not_answer_in_time_is_not_asked_again(operator: ApproveOperator) -> None:
    event = {"error": "The timeout of 72 hours has passed", "error_type": "timeout"}
    with pytest.raises(AirflowFailException, match="nobody has answered: The timeout of 72 hours"):
        operator.execute_complete({}, event)


def test_a_question_that_airflow_fails_is_put_once_more_and_at_once(operator: ApproveOperator) -> None:
    assert operator.retries == 1
    assert operator.retry_delay.total_seconds() == 5
    assert operator.execution_timeout is None
