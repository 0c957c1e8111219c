"""``plan``: how shards are packed into units of work, and what a run may take."""

from enum import StrEnum
from typing import Annotated, Self

from pydantic import Field, model_validator

from aitp_tasks.config.section import Section, Share


class UnknownFiles(StrEnum):
    """What is done about objects beside the shards that are nothing that is read."""

    WARN = "warn"
    REFUSE = "refuse"


class Plan(Section):
    """How shards are packed into units of work, and what a run may take."""

    max_fanout: int = Field(
        200,
        ge=1,
        le=1000,
        title="Mapped instances",
        description="Largest number of embedding units; Airflow refuses more than 1,024.",
    )
    group_bytes: int = Field(
        8 * 2**30,
        ge=1,
        title="Bytes per unit",
        description="Shards are packed up to this size while max_fanout allows.",
    )
    shard_budget: Share = Field(
        0.0,
        title="Shard budget",
        description="Share of a dump's shards that may fail to embed; the run goes on without them, and "
        "names them in its log and report.",
    )
    unknown_files: UnknownFiles = Field(
        UnknownFiles.WARN,
        title="Unknown files",
        description="Objects in the inputs' folders that are nothing that is read: named in log, plan and "
        "report, or the run is refused.",
    )
    price_per_gpu_hour: Annotated[float, Field(ge=0)] | None = Field(
        None,
        title="Price of a GPU-hour",
        description="Adds the cost to the estimate; decides no result.",
    )
    currency: str = Field(
        "",
        max_length=12,
        pattern=r"^[^\x00-\x1f\x7f]*$",
        title="Currency",
        description="Of the price, a word for display.",
    )
    max_gpu_hours: Annotated[float, Field(ge=0)] | None = Field(
        None,
        title="Most GPU-hours",
        description="plan refuses a run whose estimate is more, or cannot be made; decides no result.",
    )
    max_cost: Annotated[float, Field(ge=0)] | None = Field(
        None,
        title="Highest cost",
        description="The same in money; needs the price of a GPU-hour.",
    )

    @model_validator(mode="after")
    def _priced(self) -> Self:
        if self.max_cost is not None and self.price_per_gpu_hour is None:
            raise ValueError(
                f"max_cost={self.max_cost:g} is given without price_per_gpu_hour: give the price, or "
                "max_gpu_hours in its place"
            )
        return self
