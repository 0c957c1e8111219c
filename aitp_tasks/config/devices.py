"""``devices``: on what the models of a run may work."""

from enum import StrEnum

from pydantic import Field

from aitp_tasks.config.section import Section


class Require(StrEnum):
    """What a stage with a model needs of the machine that it runs on."""

    AUTO = "auto"
    GPU = "gpu"
    CPU = "cpu"


class Devices(Section):
    """On what the models of a run may work; decides no result."""

    require: Require = Field(
        Require.AUTO,
        title="Device",
        description="gpu: a stage with a model fails at once where its process sees no GPU; auto does so "
        "where torch is built for GPUs; cpu uses processors, whatever GPUs there are.",
    )
