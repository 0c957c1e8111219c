"""``maintenance``: what the weekly maintenance keeps, and whether it deletes the rest."""

from pydantic import Field

from aitp_tasks.config.section import Section


class Maintenance(Section):
    """What the weekly maintenance keeps, and whether it deletes the rest; decides no result."""

    delete: bool = Field(
        False,
        title="Delete what nobody refers to",
        description="Whether the DAG aitp_maintenance deletes what it finds, or only tells it.",
    )
    keep_runs: int = Field(
        7,
        ge=0,
        title="Runs that are kept",
        description="Of each line, so many of the newest finished runs keep all that they have made; "
        "their indexes are checked.",
    )
    min_age_days: float = Field(
        3.0,
        ge=0,
        title="Days that all is kept",
        description="Younger objects are kept; longer than any stage takes.",
    )
