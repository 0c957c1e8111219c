"""The difference between two models' losses on the same examples, with a bootstrap interval.

Pairs of losses are drawn anew together, so that what is hard for both does not count.
"""

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

#: From so few examples on, resampling says nothing.
FEWEST = 20
_LEVEL, _RESAMPLES, _SEED = 0.95, 9999, 0
#: Numbers that are drawn at a time, some of eight bytes each.
_DRAWN = 10_000_000


@dataclass(frozen=True)
class Difference:
    """A mean difference in nats per token, below zero where the first model is better.

    Attributes:
        n: how many examples there are.
        mean: None where there is none that is finite.
        low: of the 95% interval; None where it is not given.
        high: of the same.
        why: why it is not given; empty where it is.
    """

    n: int
    mean: float | None
    low: float | None
    high: float | None
    why: str = ""

    def figures(self) -> dict[str, Any]:
        """As a manifest holds it."""
        return asdict(self)


def between(first: NDArray[np.float64], second: NDArray[np.float64]) -> Difference:
    """The mean of ``first - second`` with its interval.

    Args:
        first: the losses of one model.
        second: those of the other, on the same examples in the same order.

    Raises:
        ValueError: these are not as many numbers each.
    """
    from scipy.stats import bootstrap

    if first.ndim != 1 or first.shape != second.shape:
        raise ValueError(f"losses of shapes {first.shape} and {second.shape} are no pairs")
    with np.errstate(invalid="ignore"):
        each = first - second
    n = len(each)
    if not n:
        return Difference(0, None, None, None, "there is no example")
    if not np.isfinite(each).all():
        count = n - int(np.isfinite(each).sum())
        return Difference(n, None, None, None, f"{count} of {n} losses are not finite")
    mean = math.fsum(each) / n
    if n < FEWEST:
        return Difference(n, mean, None, None, f"{n} examples are fewer than {FEWEST}: too few to resample")
    # Sorted, so that the order in which examples come decides nothing.
    found = bootstrap(
        (np.sort(each),),
        np.mean,
        confidence_level=_LEVEL,
        n_resamples=_RESAMPLES,
        batch=max(_DRAWN // n, 1),
        method="percentile",
        rng=np.random.default_rng(_SEED),
    ).confidence_interval
    # The mean lies inside, also where rounding would leave it out.
    low, high = min(float(found.low), mean), max(float(found.high), mean)
    return Difference(n, mean, low, high)
