"""What each criterion compares with the threshold, and which threshold selects as much as is wanted."""

from collections.abc import Callable, Iterator

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from aitp_tasks.config import Criterion, Difference
from aitp_tasks.records import projected
from aitp_tasks.selection.coverage import Coverage
from aitp_tasks.vector_index import nearness

Scores = NDArray[np.float64]

#: The authors' floor of the SFT density.
_FLOOR = 1e-10


def scored(criterion: Criterion, coverage: Coverage, table: pa.Table) -> tuple[pa.Table, Scores]:
    """Documents with both densities and their ratio as columns; and their scores, float64 (n,).

    Args:
        criterion: what the scores are of.
        coverage: the densities of both sets.
        table: the documents' coordinates; with ``knn`` their nearness too.
    """
    found = coverage.at(projected.points(table))
    ratio = score(Criterion.DENSITY_RATIO, found["corpus"], found["sft"])
    for name, values in {"p_corpus": found["corpus"], "p_sft": found["sft"], "ratio": ratio}.items():
        table = table.append_column(name, pa.array(values, pa.float64()))
    if criterion is Criterion.KNN:
        return table, table[nearness.COLUMN].to_numpy()
    return table, score(criterion, found["corpus"], found["sft"])


def score(criterion: Criterion, p_corpus: Scores, p_sft: Scores) -> Scores:
    """What the criteria of densities compare with tau, float64 (n,)."""
    if criterion is Criterion.DENSITY_RATIO:
        return p_sft / p_corpus
    floored: Scores = np.maximum(p_sft, _FLOOR)
    return p_corpus / floored if criterion is Criterion.AUTHORS_COMPAT else floored


def threshold(settings: Difference, scores: Callable[[], Iterator[Scores]]) -> float:
    """The tau given, or the one below which the wanted share or number of documents lies.

    A wanted number is read off the sorted scores, 8 bytes a document, in memory.
    """
    if settings.target_share is None and settings.target_documents is None:
        return settings.tau
    found = np.concatenate(list(scores()))
    wanted = settings.target_documents
    if settings.target_share is not None:
        wanted = round(settings.target_share * len(found))
    assert wanted is not None
    if wanted >= len(found):
        return float(np.nextafter(found.max(), np.inf))
    return float(np.partition(found, wanted)[wanted])
