"""``plan``: how shards are packed into units of work."""

from pydantic import Field

from aitp_tasks.config.section import Section, Share


class Plan(Section):
    """How shards are packed into units of work."""

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
