"""The logarithm of the ratio of two Gaussians, in all dimensions of the vectors.

Quadratic discriminant analysis (Hastie, Tibshirani, Friedman, The Elements of
Statistical Learning, 4.3): of each set a Gaussian with its mean and covariance,
which both follow from the set's moments, so that no further pass over the vectors
is needed. With few vectors a covariance is far too certain of its small axes;
it is shrunk towards a multiple of the identity by the oracle approximating
shrinkage (Chen, Wiesel, Eldar, Hero, IEEE Transactions on Signal Processing 58
(2010), equation 23), which, unlike that of Ledoit and Wolf, needs no more than the
covariance itself.
"""

from dataclasses import dataclass, fields
from typing import Self

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load, save

from aitp_tasks.densities import loops
from aitp_tasks.densities.moments import Moments
from aitp_tasks.errors import InputError

Array = NDArray[np.float64]

#: Name of the column; what is compared with the logarithm of tau.
LOG_RATIO = "log_ratio"
#: Least variance along any axis, as a share of the corpus's mean variance.
_LEAST_VARIANCE = 1e-6
#: Rows that one thread takes at a time: some milliseconds' work.
_SLICE = 1 << 12


@dataclass(frozen=True)
class Discriminant:
    """log p_sft(x) − log p_corpus(x), a quadratic form of x.

    Attributes:
        centre: float64 (d,), the corpus's mean.
        axes: float64 (d, d), rows of length 1, orthogonal.
        curvatures: float64 (d,), along the axes.
        slope: float64 (d,).
        constant: float64 (1,).
    """

    centre: Array
    axes: Array
    curvatures: Array
    slope: Array
    constant: Array

    @classmethod
    def fit(cls, corpus: Moments, sft: Moments) -> Self:
        """From the moments of both sets.

        Raises:
            InputError: the corpus does not vary, or the sets are of different dimensions.
        """
        if len(corpus.total) != len(sft.total):
            raise InputError(
                f"vectors of {len(corpus.total)} and {len(sft.total)} dimensions do not compare: embed anew"
            )
        least = _LEAST_VARIANCE * float(np.trace(corpus.covariance())) / len(corpus.total)
        if not least > 0:
            raise InputError("all corpus vectors are equal: criterion gaussian needs a corpus that varies")
        (inverse_corpus, log_corpus), (inverse_sft, log_sft) = (
            _inverse(shrunk(moments), least) for moments in (corpus, sft)
        )
        shift = sft.mean() - corpus.mean()
        curvatures, axes = np.linalg.eigh((inverse_corpus - inverse_sft) / 2)
        slope = inverse_sft @ shift
        constant = (log_corpus - log_sft - shift @ slope) / 2
        return cls(corpus.mean(), np.ascontiguousarray(axes.T), curvatures, slope, np.array([constant]))

    def at(self, values: NDArray[np.float16]) -> Array:
        """Log-ratios float64 (n,) of vectors float16 (n, d); the same bits however they are cut.

        Raises:
            InputError: the vectors are of another dimension.
        """
        if values.shape[1] != len(self.centre):
            raise InputError(
                f"vectors of dimension {values.shape[1]} do not fit Gaussians of {len(self.centre)}: "
                "they belong to another encoder"
            )
        found = np.empty(len(values))

        def work(start: int, end: int) -> None:
            loops.quadratic_forms(
                values[start:end].astype(np.float32),
                self.centre,
                self.axes,
                self.curvatures,
                self.slope,
                float(self.constant[0]),
                found[start:end],
            )

        loops.in_threads(work, len(values), _SLICE)
        return found

    def to_bytes(self) -> bytes:
        """As safetensors."""
        data: bytes = save({item.name: getattr(self, item.name) for item in fields(self)})
        return data

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Back from safetensors."""
        return cls(**load(data))


def shrunk(moments: Moments) -> Array:
    """The covariance float64 (d, d) of a set, shrunk towards a multiple of the identity."""
    covariance, width = moments.covariance(), len(moments.total)
    mean = np.trace(covariance) / width
    squares = float((covariance**2).mean())
    spread = (moments.count + 1) * (squares - mean**2 / width)
    share = min((squares + mean**2) / spread, 1.0) if spread > 0 else 1.0
    found: Array = (1 - share) * covariance + share * mean * np.eye(width)
    return found


def _inverse(covariance: Array, least: float) -> tuple[Array, float]:
    """The inverse, and the logarithm of the determinant, with no axis of less than the least variance."""
    values, columns = np.linalg.eigh((covariance + covariance.T) / 2)
    values = values.clip(min=least)
    return (columns / values) @ columns.T, float(np.log(values).sum())
