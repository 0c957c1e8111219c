"""``assemble``: the line of dataset versions that a run adds to."""

from typing import Annotated

from pydantic import Field

from aitp_tasks.config.section import Name, Section, Share

VersionName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._+-]*$", max_length=220)]


class Assemble(Section):
    """The dataset version that a run makes."""

    dataset: Name = Field("aitp", title="Dataset", description="Name of the line of versions.")
    base: VersionName = Field(
        "latest",
        title="Base",
        description="The version to build on: latest, none (begin anew), or a version's name.",
    )
    max_rewritten_share: Share = Field(
        0.1,
        title="Largest share of rewritten pairs",
        description="Of the whole dataset; the paper's best results have less than 10%.",
    )
    max_similarity: Annotated[float, Field(gt=0, le=1)] = Field(
        0.95,
        title="Largest similarity of a new pair",
        description="Leave out new pairs whose cosine to an SFT example or another pair is larger; 1: none.",
    )
