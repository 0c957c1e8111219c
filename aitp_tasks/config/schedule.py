"""``schedule``: which dumps a nightly run takes, and how long it waits for them."""

from enum import StrEnum

from pydantic import Field

from aitp_tasks.config.section import Section


class Dumps(StrEnum):
    """Which dumps a nightly run takes."""

    UNFINISHED = "unfinished"
    KEY = "key"


class Schedule(Section):
    """Which dumps a nightly run takes, and how long it waits for them; decides no result."""

    dumps: Dumps = Field(
        Dumps.UNFINISHED,
        title="Dumps of a night",
        description="unfinished takes, up to the night's own, all that are newer than the oldest that the "
        "dataset has taken in, and not among these; key takes the night's own and no other.",
    )
    pattern: str = Field(
        "*",
        min_length=1,
        title="Names of dumps",
        description="With unfinished: those that match, with * and ? as in a shell.",
    )
    lag_hours: float = Field(
        2.0,
        ge=0,
        le=240,
        title="Hours after midnight",
        description="A night begins so long after the day of its dump has ended.",
    )
    wait_hours: float = Field(
        0.0,
        ge=0,
        le=240,
        title="Hours to wait for a dump",
        description="A nightly run for which nothing is there yet looks again, so long after it began.",
    )
    settle_minutes: float = Field(
        30.0,
        ge=0,
        title="Minutes until a dump is whole",
        description="A dump without the marker _SUCCESS is left alone while an object in it is younger.",
    )
