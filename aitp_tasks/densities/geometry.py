"""In which coordinates, on which grid and with which bandwidths densities are estimated.

Only grids of one geometry add, and only their densities compare.
"""

from dataclasses import dataclass
from typing import Self

import numpy as np
from safetensors.numpy import load, save

from aitp_tasks.config import BandwidthRule, Density
from aitp_tasks.densities.field import cells_per_bandwidth
from aitp_tasks.densities.moments import Moments
from aitp_tasks.densities.projection import Projection
from aitp_tasks.errors import InputError

ROLES = ("corpus", "sft")
#: Standard deviation, in projected units, below which points do not spread.
_LEAST_DEVIATION = 1e-6


@dataclass(frozen=True)
class Geometry:
    """A projection, a grid and a bandwidth for each of both sets.

    Attributes:
        projections: by role; the same for both, except with ``authors_compat``.
        bandwidths: by role, in projected units.
        step: side of a grid cell, in projected units.
    """

    projections: dict[str, Projection]
    bandwidths: dict[str, float]
    step: float

    @classmethod
    def fit(cls, settings: Density, moments: dict[str, Moments], sft_by_itself: bool = False) -> Self:
        """From the moments of both sets.

        Args:
            settings: components, bandwidth and largest error.
            moments: by role.
            sft_by_itself: standardise the SFT set with its own mean and scale, as the published script does.

        Raises:
            InputError: the corpus has too few vectors, or they do not vary; a bandwidth
                rule is set and a set does not vary.
        """
        corpus = Projection.fit(moments["corpus"], settings.components)
        projections = dict.fromkeys(ROLES, corpus)
        if sft_by_itself:
            projections["sft"] = corpus.standardised_by(moments["sft"])
        bandwidths = {
            role: _bandwidth(settings.bandwidth, moments[role], projections[role]) for role in ROLES
        }
        step = min(
            bandwidth / cells_per_bandwidth(settings.max_error, bandwidth, settings.components)
            for bandwidth in bandwidths.values()
        )
        return cls(projections, bandwidths, step)

    @property
    def components(self) -> int:
        """How many coordinates a document has."""
        return int(self.projections["corpus"].axes.shape[1])

    def explained_loss(self, corpus: Moments) -> float:
        """Share by which these axes explain less of a corpus than axes fitted to it would.

        Both in this standardisation, so that they compare; 0 where the axes are the corpus's own.
        """
        mine = self.projections["corpus"]
        weights = np.outer(mine.scale, mine.scale)
        best = np.linalg.eigvalsh(corpus.covariance() / weights)[::-1][: self.components].sum()
        if best <= 0:
            return 0.0
        found = (mine.spread(corpus) ** 2).sum()
        return round(max(0.0, 1 - float(found / best)), 6)

    def to_bytes(self) -> bytes:
        """As safetensors."""
        arrays = {
            f"{role}.{name}": np.ascontiguousarray(array)
            for role in ROLES
            for name, array in vars(self.projections[role]).items()
        }
        arrays["bandwidths"] = np.array([self.bandwidths[role] for role in ROLES])
        arrays["step"] = np.array([self.step])
        data: bytes = save(arrays)
        return data

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Back from safetensors."""
        arrays = load(data)
        projections = {
            role: Projection(
                **{
                    name.removeprefix(f"{role}."): array
                    for name, array in arrays.items()
                    if name.startswith(role)
                }
            )
            for role in ROLES
        }
        bandwidths = dict(zip(ROLES, map(float, arrays["bandwidths"]), strict=True))
        return cls(projections, bandwidths, float(arrays["step"][0]))


def _bandwidth(rule: float | BandwidthRule, moments: Moments, projection: Projection) -> float:
    """A number as it is; else the rule's factor times the mean deviation along the axes.

    Scott, Multivariate Density Estimation (1992); Silverman, Density Estimation for
    Statistics and Data Analysis (1986), equation 4.14. Both as scipy and scikit-learn have them.
    """
    if not isinstance(rule, BandwidthRule):
        return rule
    k = projection.axes.shape[1]
    count = moments.count if rule is BandwidthRule.SCOTT else moments.count * (k + 2) / 4
    deviations = projection.spread(moments)
    if deviations.min() < _LEAST_DEVIATION:
        raise InputError(
            f"density.bandwidth={rule.value} follows from how far points spread, but these {moments.count} "
            f"spread by {deviations.min():.3g} along an axis: give a number, or more texts"
        )
    return float(count ** (-1 / (k + 4)) * np.exp(np.log(deviations).mean()))
