"""The operator that asks a person before the fine-tune, where the run's configuration wants that."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow.providers.standard.operators.hitl import ApprovalOperator
from airflow.sdk.exceptions import AirflowFailException

from aitp_stage import config_path, read_section
from aitp_tasks.config import Approval

if TYPE_CHECKING:
    from airflow.sdk import Context

_MADE = "result_of(ti, 'assemble')"
_SUBJECT = f"Fine-tune on {{{{ {_MADE}['label'] }}}}?"
#: In Markdown; figures and addresses only, no text of a document.
_BODY = "\n".join(
    [
        f"- new pairs: {{{{ {_MADE}['pairs'] }}}}",
        f"- pairs of earlier versions: {{{{ {_MADE}['earlier_pairs'] }}}}",
        f"- SFT examples: {{{{ {_MADE}['sft_examples'] }}}}",
        f"- parts given up: {{{{ {_MADE}['parts_given_up'] }}}}",
        f"- dataset: `{{{{ {_MADE}['dataset'] }}}}`; its card is `README.md` there",
    ]
)


class ApproveOperator(ApprovalOperator):
    """Waits for a person's answer, without a worker slot; ends at once where nobody is to be asked.

    Args:
        config: path of the configuration file; the run's param ``config`` names another one beside it.
    """

    def __init__(self, *, config: str, **kwargs: Any) -> None:
        # How long a person may take is no matter of how long the task may run.
        limits: dict[str, Any] = {
            "execution_timeout": None,
            "retries": 1,
            "retry_delay": timedelta(seconds=5),
        }
        super().__init__(subject=_SUBJECT, body=_BODY, **limits, **kwargs)
        self.config = config

    def execute(self, context: Context) -> Any:
        """Ask, if that is wanted."""
        approval = read_section(config_path(self.config, context["params"]), "approval", Approval)
        if not approval.before_finetune:
            self.log.info("approval.before_finetune is off: nobody is asked")
            return None
        self.response_timeout = timedelta(hours=approval.wait_hours)
        return super().execute(context)

    def process_trigger_event_error(self, event: dict[str, Any]) -> None:
        """Nobody is asked again who has not answered in time.

        The one retry is for another case: Airflow 3.3 fails a task that is answered before the process that
        asked has ended. Then the question is put again.

        Raises:
            AirflowFailException: always.
        """
        raise AirflowFailException(f"nobody has answered: {event['error']}")
