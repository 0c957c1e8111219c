"""First and second moments of vectors, and the projection that follows from them.

Moments are sums, so those of any number of shards add; the principal axes of
all vectors need no pass over them. Statistics are the corpus's for both sets
(the published script standardises each set by itself, which erases the shift
between them; see docs/method.md).
"""

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load, save

from aitp_tasks.errors import InputError

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Moments:
    """Sums over n vectors x of dimension d.

    Attributes:
        count: n.
        total: float64 (d,), Σx.
        outer: float64 (d, d), Σxxᵀ.
    """

    count: int
    total: Array
    outer: Array

    @classmethod
    def of(cls, values: NDArray[np.float16]) -> Self:
        """Moments of float16 (n, d), summed in float64."""
        exact = values.astype(np.float64)
        return cls(len(exact), exact.sum(axis=0), exact.T @ exact)

    def __add__(self, other: "Moments") -> "Moments":
        return Moments(self.count + other.count, self.total + other.total, self.outer + other.outer)

    def to_bytes(self) -> bytes:
        """As safetensors."""
        data: bytes = save({"count": np.array([self.count]), "total": self.total, "outer": self.outer})
        return data

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Back from safetensors."""
        arrays = load(data)
        return cls(int(arrays["count"][0]), arrays["total"], arrays["outer"])


@dataclass(frozen=True)
class Projection:
    """Standardisation by the corpus and its principal axes.

    Attributes:
        mean: float64 (d,).
        scale: float64 (d,), standard deviations; 1 where a column does not vary.
        axes: float64 (d, k), unit columns, by falling variance.
        explained_variance: float64 (k,), shares of the total variance.
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
            InputError: fewer than two vectors, or none of the columns varies.
        """
        if moments.count < 2:
            raise InputError(
                f"{moments.count} corpus vectors are too few for a projection: at least 2 are needed"
            )
        mean = moments.total / moments.count
        covariance = moments.outer / moments.count - np.outer(mean, mean)
        variance = np.diag(covariance).clip(min=0.0)
        varies = variance > 1e-12 * (1.0 + mean**2)
        if not varies.any():
            raise InputError("all corpus vectors are equal: there is no variance to project")
        scale = np.where(varies, np.sqrt(variance), 1.0)
        correlation = np.where(np.outer(varies, varies), covariance / np.outer(scale, scale), 0.0)
        values, columns = np.linalg.eigh((correlation + correlation.T) / 2)
        order = np.argsort(values)[::-1][:components]
        axes = columns[:, order]
        largest = axes[np.abs(axes).argmax(axis=0), np.arange(axes.shape[1])]
        shares = values[order] / values.clip(min=0.0).sum()
        return cls(mean, scale, axes * np.sign(largest), shares)

    def apply(self, values: NDArray[np.float16]) -> Array:
        """Coordinates float64 (n, k) of vectors float16 (n, d)."""
        standardised = (values.astype(np.float64) - self.mean) / self.scale
        coordinates: Array = standardised @ self.axes
        return coordinates

    def to_bytes(self) -> bytes:
        """As safetensors."""
        arrays = {
            "mean": self.mean,
            "scale": self.scale,
            "axes": self.axes,
            "explained": self.explained_variance,
        }
        data: bytes = save({name: np.ascontiguousarray(array) for name, array in arrays.items()})
        return data

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Back from safetensors."""
        arrays = load(data)
        return cls(arrays["mean"], arrays["scale"], arrays["axes"], arrays["explained"])
