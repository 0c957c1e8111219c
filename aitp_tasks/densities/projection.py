"""From vectors to the few coordinates in which densities are estimated.

Vectors are standardised and projected on principal axes. Statistics are the
corpus's for both sets (the published script standardises each set by itself,
which erases the shift between them; see docs/explanation/method.md).
"""

from dataclasses import dataclass, fields, replace
from typing import Self

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load, save

from aitp_tasks.densities import loops
from aitp_tasks.densities.moments import Moments
from aitp_tasks.errors import InputError

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Projection:
    """Standardisation and principal axes.

    Attributes:
        mean: float64 (d,).
        scale: float64 (d,), standard deviations; 1 where a column does not vary.
        axes: float64 (d, k), unit columns, by falling variance.
        explained_variance: float64 (k,), shares of the total variance of what it was fitted to.
    """

    mean: Array
    scale: Array
    axes: Array
    explained_variance: Array

    @classmethod
    def fit(cls, moments: Moments, components: int = 2) -> Self:
        """Principal axes of the standardised vectors (paper, section on the difference set).

        An axis points to where its component of largest size is positive.

        Raises:
            InputError: fewer than two vectors, or fewer columns vary than there are axes.
        """
        if moments.count < 2:
            raise InputError(
                f"{moments.count} corpus vectors are too few for a projection: at least 2 are needed"
            )
        mean, covariance = moments.mean(), moments.covariance()
        scale, varies = _scale(moments)
        if not varies.any():
            raise InputError("all corpus vectors are equal: there is no variance to project")
        correlation = np.where(np.outer(varies, varies), covariance / np.outer(scale, scale), 0.0)
        values, columns = np.linalg.eigh((correlation + correlation.T) / 2)
        order = np.argsort(values)[::-1][:components]
        if values[order[-1]] <= 1e-9 * values[order[0]] or len(order) < components:
            raise InputError(
                f"the corpus vectors vary along fewer than density.components={components} axes: "
                "lower it, or use more documents"
            )
        axes = columns[:, order]
        largest = axes[np.abs(axes).argmax(axis=0), np.arange(axes.shape[1])]
        shares = values[order] / values.clip(min=0.0).sum()
        return cls(mean, scale, axes * np.sign(largest), shares)

    def standardised_by(self, moments: Moments) -> "Projection":
        """The same axes with another set's own mean and scale, as the published script has it."""
        return replace(self, mean=moments.mean(), scale=_scale(moments)[0])

    def apply(self, values: NDArray[np.float16]) -> Array:
        """Coordinates float64 (n, k) of vectors float16 (n, d).

        Raises:
            InputError: the vectors are of another dimension.
        """
        if values.shape[1] != len(self.mean):
            raise InputError(
                f"vectors of dimension {values.shape[1]} do not fit a projection of {len(self.mean)}: "
                "it belongs to another encoder"
            )
        weights = np.ascontiguousarray((self.axes / self.scale[:, None]).T)
        offset = weights @ self.mean
        found = np.empty((len(values), len(weights)))

        def work(start: int, end: int) -> None:
            loops.project(values[start:end].astype(np.float32), weights, offset, found[start:end])

        loops.in_threads(work, len(values))
        return found

    def spread(self, moments: Moments) -> Array:
        """Standard deviations float64 (k,) of a set along the axes."""
        weights = self.axes / self.scale[:, None]
        deviations: Array = np.sqrt(np.einsum("ik,ij,jk->k", weights, moments.covariance(), weights).clip(0))
        return deviations

    def explained(self, moments: Moments) -> Array:
        """Shares float64 (k,) of a set's variance, in this standardisation, along the axes."""
        total = (np.diag(moments.covariance()) / self.scale**2).sum()
        shares: Array = self.spread(moments) ** 2 / total if total > 0 else np.zeros(self.axes.shape[1])
        return shares

    def to_bytes(self) -> bytes:
        """As safetensors."""
        arrays = {item.name: np.ascontiguousarray(getattr(self, item.name)) for item in fields(self)}
        data: bytes = save(arrays)
        return data

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Back from safetensors."""
        return cls(**load(data))


def _scale(moments: Moments) -> tuple[Array, NDArray[np.bool_]]:
    """Standard deviations of the columns, 1 where they do not vary; whether they do."""
    variance = np.diag(moments.covariance()).clip(min=0.0)
    varies = variance > 1e-12 * (1.0 + moments.mean() ** 2)
    return np.where(varies, np.sqrt(variance), 1.0), varies
