"""What densities say of whole regions: how much of a corpus is not covered, and how far it has moved."""

import numpy as np
from numpy.typing import NDArray

from aitp_tasks.densities.field import Field
from aitp_tasks.densities.grid import ONE

#: A place counts as outside a corpus when no document of it lies within so many bandwidths.
_FAR = 3.0


def uncovered(corpus: Field, sft: Field, tau: float) -> float:
    """Share of the corpus's mass that lies in cells where p_sft / p_corpus is below tau."""
    centres = corpus.grid.centres
    return _mass(corpus, sft.at(centres) < tau * corpus.at(centres))


def outside(now: Field, before: Field) -> float:
    """Share of the mass that lies where the density of before is less than one document far off gives."""
    k = now.grid.cells.shape[1]
    one = (2 * np.pi * before.bandwidth**2) ** (-k / 2) / before.grid.count
    return _mass(now, before.at(now.grid.centres) < one * np.exp(-(_FAR**2) / 2))


def distance(now: Field, before: Field) -> float:
    """Total variation distance of two densities over one window: 0 where equal, 1 where apart."""
    cell = now.grid.step**now.values.ndim
    return _rounded(min(np.abs(now.values - before.values).sum() * cell / 2, 1.0))


def _mass(field: Field, chosen: NDArray[np.bool_]) -> float:
    return _rounded(field.grid.weights[chosen].sum() / (field.grid.count * ONE))


def _rounded(share: float) -> float:
    return round(float(share), 6)
