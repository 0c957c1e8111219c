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
    before_promotion: bool = Field(
        False,
        title="Ask before the promotion",
        description="Where evaluate finds a version worth promoting (evaluate.promote=when_better), the run "
        "waits for a person's Approve in the UI; with Reject the version is not promoted, and the run ends "
        "as after any other that is not.",
    )
    wait_hours: float = Field(
        48.0,
        gt=0,
        le=240,
        title="Hours to wait for an answer",
        description="After that the task fails; clear it to ask again. Other runs of the dataset wait "
        "as long.",
    )
