"""``approval``: whether a person is asked before a run goes on."""

from pydantic import Field

from aitp_tasks.config.section import Section


class Approval(Section):
    """Whether a person is asked before a run goes on; decides no result."""

    before_finetune: bool = Field(
        False,
        title="Ask before the fine-tune",
        description="The run waits for a person's Approve in the UI, without a slot; Reject skips the "
        "fine-tune and the report. The dataset version is there in any case.",
    )
    wait_hours: float = Field(
        48.0,
        gt=0,
        le=240,
        title="Hours to wait for an answer",
        description="After that the task fails; clear it to ask again. Other runs of the dataset wait "
        "as long.",
    )
