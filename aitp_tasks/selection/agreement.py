"""How far the criteria agree: which of some documents each of them would select.

Each criterion takes the same share of them, those of its lowest scores, so that
thresholds of different units compare.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aitp_tasks.config import Criterion
from aitp_tasks.densities.discriminant import Discriminant
from aitp_tasks.densities.geometry import Geometry
from aitp_tasks.records import digest, vectors
from aitp_tasks.selection import criteria
from aitp_tasks.selection.coverage import Coverage
from aitp_tasks.storage import Storage

#: Documents that are compared: whole chunks of vectors, so that few are read.
DOCUMENTS = 2048
_OF_DENSITIES = (Criterion.DENSITY_RATIO, Criterion.SFT_DENSITY, Criterion.AUTHORS_COMPAT)


def some_vectors(storage: Storage, chunks: Iterable[str]) -> vectors.Values:
    """Vectors float16 (at most ``DOCUMENTS``, d) of the chunks whose keys have the smallest hashes."""
    found: list[vectors.Values] = []
    for _, some in vectors.read_all(storage, sorted(chunks, key=digest.of_text)):
        found.append(some.values)
        if sum(map(len, found)) >= DOCUMENTS:
            break
    return np.concatenate(found)[:DOCUMENTS]


def scores(
    values: vectors.Values, geometry: Geometry, coverage: Coverage, discriminant: Discriminant | None
) -> dict[Criterion, criteria.Scores]:
    """Scores float64 (n,) of n corpus vectors by all criteria that need no index."""
    found = coverage.at(geometry.projections["corpus"].apply(values))
    by_criterion = {
        criterion: criteria.score(criterion, found["corpus"], found["sft"]) for criterion in _OF_DENSITIES
    }
    if discriminant is not None:
        by_criterion[Criterion.GAUSSIAN] = discriminant.at(values)
    return by_criterion


def figures(by_criterion: Mapping[Criterion, criteria.Scores], share: float) -> dict[str, Any]:
    """Of the documents that one criterion selects, the share that another selects too.

    Args:
        by_criterion: scores of the same n documents.
        share: of them that each criterion selects: at least one, not all.
    """
    count = len(next(iter(by_criterion.values())))
    wanted = min(max(round(share * count), 1), max(count - 1, 1))
    chosen = {criterion: _lowest(scores, wanted) for criterion, scores in by_criterion.items()}
    return {
        "documents": count,
        "selected": wanted,
        "shared": {
            one.value: {
                other.value: round(float((ours & theirs).sum() / wanted), 4) for other, theirs in rest
            }
            for one, ours in chosen.items()
            for rest in [[item for item in chosen.items() if item[0] is not one]]
        },
    }


def _lowest(scores: criteria.Scores, wanted: int) -> NDArray[np.bool_]:
    """Which documents have the lowest scores, bool (n,); of equal ones, the first."""
    chosen = np.zeros(len(scores), bool)
    chosen[np.argsort(scores, kind="stable")[:wanted]] = True
    return chosen
