"""``density``: in how many components and with which bandwidth densities are estimated."""

from enum import StrEnum
from typing import Annotated, Self

from pydantic import Field, model_validator

from aitp_tasks.config.section import Section

_MOST_COMPONENTS = 3
_LEAST_ERROR_IN_SPACE = 1e-4


class BandwidthRule(StrEnum):
    """Rules that derive a bandwidth from the number of points and their spread."""

    SCOTT = "scott"
    SILVERMAN = "silverman"


class Refit(StrEnum):
    """When a line of versions gets a new projection and grid."""

    AUTO = "auto"
    NEVER = "never"
    ALWAYS = "always"


class Density(Section):
    """Kernel densities of the projected vectors."""

    components: int = Field(
        2,
        ge=1,
        le=_MOST_COMPONENTS,
        title="Components",
        description="Principal axes in which densities are estimated.",
    )
    bandwidth: Annotated[float, Field(gt=0, le=100)] | BandwidthRule = Field(
        1.0,
        title="Bandwidth",
        description="Of the Gaussian kernel, in projected units (the paper's is 1), or scott or silverman.",
    )
    max_error: float = Field(
        1e-3,
        ge=1e-6,
        le=0.1,
        title="Largest error",
        description="Relative, where a density is above 1e-10; decides how fine the grid is.",
    )
    refit: Refit = Field(
        Refit.AUTO,
        title="Refit",
        description="auto keeps the projection of the version that a run builds on until that says that a "
        "refit is due; never keeps it; always fits anew.",
    )
    max_drift: float = Field(
        0.25,
        gt=0,
        le=1,
        title="Largest drift",
        description="Beyond it a refit is due: share of documents outside the old corpus, share of explained "
        "variance lost, or distance of the densities.",
    )

    @model_validator(mode="after")
    def _affordable(self) -> Self:
        if self.components == _MOST_COMPONENTS and self.max_error < _LEAST_ERROR_IN_SPACE:
            raise ValueError(
                f"max_error below {_LEAST_ERROR_IN_SPACE:g} needs a grid too fine for {_MOST_COMPONENTS} "
                "components: raise it, or lower components"
            )
        return self
