"""``messages``: who is told what about the runs that Airflow starts."""

from enum import StrEnum
from typing import Annotated, Self

from pydantic import Field, field_validator, model_validator

from aitp_tasks.config.section import Section

#: Names only: the header of a mail takes an address as it stands.
Address = Annotated[str, Field(pattern=r"^[^\s@,;:<>/]+@[^\s@,;:<>/]+$", max_length=254)]
ConnectionId = Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]+$", max_length=200)]


class Event(StrEnum):
    """What somebody may be told about."""

    FAILURE = "failure"
    BUDGET = "budget"
    NOT_PROMOTED = "not_promoted"


class Messages(Section):
    """Who is told what about the runs that Airflow starts; decides no result.

    Servers and credentials are those of Airflow connections, and never stand here.
    """

    email_to: tuple[Address, ...] = Field(
        (),
        title="Recipients of mail",
        description="Addresses; without any, no mail is sent.",
    )
    email_connection: ConnectionId = Field(
        "aitp_smtp",
        title="Connection of the mail server",
        description="Id of an Airflow connection of type smtp, whose extra field has from_email.",
    )
    webhook_connections: tuple[ConnectionId, ...] = Field(
        (),
        title="Connections of webhooks",
        description="Ids of Airflow connections of type http: each is sent JSON with the field text, as "
        "Slack's incoming webhooks take it.",
    )
    events: tuple[Event, ...] = Field(
        (Event.FAILURE, Event.BUDGET, Event.NOT_PROMOTED),
        title="Events",
        description="failure: a task has failed for good; budget: more rows or shards were left out than the "
        "failure budget allows; not_promoted: a run ended without a version that is the latest.",
    )
    late_hours: float | None = Field(
        None,
        gt=0,
        le=8760,
        title="Hours until a run is late",
        description="A run that has not succeeded so long after it was queued is told of; none: never.",
    )

    @field_validator("email_to", "webhook_connections", "events")
    @classmethod
    def _once(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(value)) < len(value):
            raise ValueError(f"{', '.join(value)}: one is named twice: take it out")
        return value

    @model_validator(mode="after")
    def _told_to_somebody(self) -> Self:
        if self.late_hours is not None and not (self.email_to or self.webhook_connections):
            raise ValueError("late_hours is set, but nobody is told: set email_to or webhook_connections")
        return self
