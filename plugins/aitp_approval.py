"""The operators that ask a person before the fine-tune and the promotion, where the configuration wants that.

What is here: who is asked when, what the question says, and what an answer does. What is not
here: what is promoted and what is written down of it (``aitp promote``).
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow.providers.standard.operators.hitl import ApprovalOperator, HITLOperator
from airflow.sdk.exceptions import AirflowFailException

from aitp_stage import StageOperator, config_path, read_section, result_of
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
#: How the held-out sets are called, by the names that evaluate's result has them under.
_SETS = {"sft": "SFT examples", "pairs": "held-out pairs", "documents": "documents"}
_NAME_CHARACTERS = 100


class AskOperator(ApprovalOperator):
    """Waits for a person's answer, without a worker slot; ends at once where nobody is to be asked.

    Args:
        config: path of the configuration file; the run's param ``config`` names another one beside it.
    """

    #: In the section ``approval``.
    setting: str

    def __init__(self, *, config: str, **kwargs: Any) -> None:
        # How long a person may take is no matter of how long the task may run.
        limits: dict[str, Any] = {
            "execution_timeout": None,
            "retries": 1,
            "retry_delay": timedelta(seconds=5),
        }
        super().__init__(**limits, **kwargs)
        self.config = config

    def execute(self, context: Context) -> Any:
        """Ask, if that is wanted."""
        approval = read_section(config_path(self.config, context["params"]), "approval", Approval)
        if not getattr(approval, self.setting):
            self.log.info("approval.%s is off: nobody is asked", self.setting)
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


class ApproveOperator(AskOperator):
    """Asks before the fine-tune; all that follows is skipped where that is rejected."""

    setting = "before_finetune"

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(subject=_SUBJECT, body=_BODY, **kwargs)


class ApprovePromotionOperator(AskOperator):
    """Asks before the promotion, where evaluate has found something to promote; nothing is ever skipped."""

    setting = "before_promotion"

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(subject="Promote?", **kwargs)

    def execute(self, context: Context) -> Any:
        """Ask, if that is wanted and there is something to promote."""
        found = result_of(context["ti"], "evaluate")
        if not found["to_promote"]:
            self.log.info("nothing to promote, nobody is asked: %s", found["why"])
            return None
        self.subject, self.body = f"Promote {found['label']}?", told(found)
        return super().execute(context)

    def execute_complete(self, context: Context, event: dict[str, Any]) -> Any:
        """Hand the answer on: promote writes down who has not approved, and the report tells it."""
        return HITLOperator.execute_complete(self, context, event)


class PromoteOperator(StageOperator):
    """Runs the stage with the name of the person who has not approved the promotion, if there is one.

    Args:
        after: the task that has asked; None where no configuration lets anybody be asked.
    """

    def __init__(self, *, after: str | None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.after = after

    def command_arguments(self, context: Context) -> list[str]:
        """Who has not approved it."""
        answer = context["ti"].xcom_pull(task_ids=self.after) if self.after else None
        if not answer or answer["chosen_options"] == [ApprovalOperator.APPROVE]:
            return self.arguments
        # In one word: a name may begin like an option.
        return [*self.arguments, f"--refused-by={name_of(answer.get('responded_by_user'))}"]


def told(found: Mapping[str, Any]) -> str:
    """What evaluate has found, in Markdown; figures only, no text of a document."""
    head = ["held out", "examples", "base", "SFT set alone", "new", "new − SFT set alone (95%)"]
    rows = [head, ["---", *["---:"] * (len(head) - 1)]]
    for name, (n, base, alone, new, mean, low, high) in found["sets"].items():
        interval = f" ({low:+.4f} to {high:+.4f})" if low is not None and high is not None else ""
        losses = ["–" if loss is None else f"{loss:.4f}" for loss in (base, alone, new)]
        rows.append([_SETS[name], f"{n:,}", *losses, "–" if mean is None else f"{mean:+.4f}{interval}"])
    # The table is left out of a result where addresses are long.
    table = "\n".join(f"| {' | '.join(row)} |" for row in rows) if found["sets"] else ""
    return "\n\n".join(
        filter(None, [f"To be promoted, because {found['why']}.", table, f"Run: `{found['run']}`"])
    )


def name_of(user: Mapping[str, Any] | None) -> str:
    """What to call who has answered, on one line."""
    name = str((user or {}).get("name") or (user or {}).get("id") or "")
    return "".join(letter for letter in name if letter.isprintable())[:_NAME_CHARACTERS] or "somebody"
