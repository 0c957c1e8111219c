"""First and second moments of vectors, as whole numbers: those of any shards add exactly.

float16 values are multiples of 2**-24, their products of 2**-48. Both are summed
in such units, without any rounding: a thousand shards, in whatever order, give
the bits that one shard gives, and so do the principal axes that follow.
"""

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load, save

from aitp_tasks.errors import InputError

Integers = NDArray[np.int64]

#: Largest component; a block of products then fits into float64's 53 bits.
LARGEST = 1024.0
_BLOCK = 512
_LOW = 2**32 - 1


@dataclass(frozen=True)
class Moments:
    """Exact sums over n vectors x of dimension d.

    Attributes:
        count: n.
        total: int64 (d,), Σx in units of 2**-24.
        high: int64 (d, d), Σxxᵀ in units of 2**-16, rounded down.
        low: int64 (d, d), what is left of it, in units of 2**-48; less than 2**32.
    """

    count: int
    total: Integers
    high: Integers
    low: Integers

    @classmethod
    def of(cls, values: NDArray[np.float16]) -> Self:
        """Moments of float16 (n, d).

        Raises:
            InputError: a component is not finite, or beyond ±1,024.
        """
        rows, width = values.shape
        exact = values.astype(np.float64)
        if rows and not np.abs(exact).max() <= LARGEST:
            raise InputError(
                f"vectors with components up to {np.abs(exact).max():g}, beyond ±{LARGEST:g}, cannot be "
                "summed exactly: use an encoder that normalises its vectors"
            )
        zero = np.zeros((width, width), np.int64)
        moments = cls(rows, np.rint(exact * 2.0**24).astype(np.int64).sum(axis=0), zero, zero)
        for start in range(0, rows, _BLOCK):
            moments = moments._plus_products(exact[start : start + _BLOCK])
        return moments

    def __add__(self, other: "Moments") -> "Moments":
        if len(self.total) != len(other.total):
            raise InputError(
                f"moments of {len(self.total)} and of {len(other.total)} dimensions do not add: embed anew"
            )
        low = self.low + other.low
        return Moments(
            self.count + other.count,
            self.total + other.total,
            self.high + other.high + (low >> 32),
            low & _LOW,
        )

    def mean(self) -> NDArray[np.float64]:
        """float64 (d,)."""
        mean: NDArray[np.float64] = self.total * 2.0**-24 / self.count
        return mean

    def covariance(self) -> NDArray[np.float64]:
        """float64 (d, d), of the population."""
        products = (self.high * 2.0**-16 + self.low * 2.0**-48) / self.count
        covariance: NDArray[np.float64] = products - np.outer(self.mean(), self.mean())
        return covariance

    def to_bytes(self) -> bytes:
        """As safetensors; of the symmetric matrix one half."""
        half = np.triu_indices(len(self.total))
        data: bytes = save(
            {
                "count": np.array([self.count]),
                "total": self.total,
                "high": self.high[half],
                "low": self.low[half].astype(np.uint32),
            }
        )
        return data

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Back from safetensors."""
        arrays = load(data)
        width = len(arrays["total"])
        return cls(
            int(arrays["count"][0]),
            arrays["total"],
            _symmetric(arrays["high"], width),
            _symmetric(arrays["low"].astype(np.int64), width),
        )

    def _plus_products(self, block: NDArray[np.float64]) -> Self:
        """With the products of at most ``_BLOCK`` rows.

        Each value is split into multiples of 2**-12 and a rest, both whole numbers in
        float64; sums of their products stay below 2**53 and are therefore exact.
        """
        coarse = np.rint(block * 2.0**12)
        fine = block * 2.0**24 - coarse * 2.0**12
        crossed = coarse.T @ fine
        large = (coarse.T @ coarse).astype(np.int64)  # in units of 2**-24
        middle = (crossed + crossed.T).astype(np.int64)  # 2**-36
        small = (fine.T @ fine).astype(np.int64)  # 2**-48
        rest = ((large & 0xFF) << 24) + ((middle & 0xFFFFF) << 12) + small + self.low
        high = self.high + (large >> 8) + (middle >> 20) + (rest >> 32)
        return type(self)(self.count, self.total, high, rest & _LOW)


def _symmetric(half: Integers, width: int) -> Integers:
    whole = np.zeros((width, width), np.int64)
    rows, columns = np.triu_indices(width)
    whole[rows, columns] = half
    whole[columns, rows] = half
    return whole
