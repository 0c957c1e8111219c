"""Which of the documents that might be drawn are fit to be, by their texts, and who comes in instead.

Texts are read of a margin of documents more than are wanted; those that are not fit are left
out, and of the others the sample is drawn as it would be of all. Where too few are left, the
margin is doubled. What is drawn follows from the documents and their hashes alone, whatever
their shards and batches.
"""

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from aitp_tasks.config import Difference, Quality
from aitp_tasks.records.manifest import add_counts
from aitp_tasks.selection import quality
from aitp_tasks.selection.sample import Quotas, Sample
from aitp_tasks.selection.texts import Texts
from aitp_tasks.texts.hashes import Hasher

log = logging.getLogger(__name__)

_MARGIN, _GROWTH = 1.5, 2.0
_READ = 1000
_EXCERPT_CHARACTERS = 160
_SCHEMA = pa.schema(
    [
        ("doc_id", pa.string()),
        ("shard", pa.string()),
        ("row", pa.int64()),
        ("reason", pa.string()),
        ("excerpt", pa.large_string()),
    ]
)


@dataclass(frozen=True)
class Fit:
    """What is drawn, and what is not.

    Attributes:
        drawn: as ``Sample.documents`` gives it.
        unfit: of the documents that were looked at, those that are not fit: ``doc_id``, ``shard``, ``row``,
            ``reason`` and the beginning of the text.
        looked_at: how many texts were read.
        repeats: further copies of those that are not fit.
        seen: documents of each region that has a quota, fit or not and with all repeats; int64 (regions,).
    """

    drawn: pa.Table
    unfit: pa.Table
    looked_at: int
    repeats: int
    seen: NDArray[np.int64]

    @property
    def reasons(self) -> dict[str, int]:
        """How many documents are not fit, by the reason."""
        counts: dict[str, int] = {}
        for reason in self.unfit["reason"].to_pylist():
            counts = add_counts(counts, {f"quality_{reason}": 1})
        return counts


def draw(
    settings: Difference,
    cell: float,
    size: int,
    sampled: Callable[[Sample], None],
    texts_of: Callable[[pa.Table], Texts],
    quotas: Quotas | None = None,
) -> Fit:
    """Draw documents, and with ``settings.quality`` fit ones only.

    Args:
        settings: how documents are drawn.
        cell: side of a stratum, in projected units.
        size: documents to draw.
        sampled: adds all documents that might be drawn to a sample.
        texts_of: reads the texts of a table of documents.
        quotas: of the regions, where these have any; ``size`` together.

    Raises:
        InputError: a text cannot be read.
    """
    if settings.quality is Quality.NONE:
        sample = Sample(settings, cell, size, quotas=quotas)
        sampled(sample)
        return Fit(sample.documents(), _SCHEMA.empty_table(), looked_at=0, repeats=0, seen=sample.seen)
    margin = _MARGIN
    while True:
        sample = Sample(settings, cell, size, margin, quotas)
        sampled(sample)
        candidates = sample.documents()
        drawn = Sample(settings, cell, size, quotas=quotas)
        fit = replace(_chosen(drawn, candidates, texts_of), seen=sample.seen)
        log.info("difference looked_at=%d unfit=%d drawn=%d", len(candidates), len(fit.unfit), len(fit.drawn))
        if not sample.wants_more(fit.drawn):
            return fit
        margin *= _GROWTH


def _chosen(sample: Sample, candidates: pa.Table, texts_of: Callable[[pa.Table], Texts]) -> Fit:
    """Of some documents, those that are fit, drawn to a sample."""
    with texts_of(candidates) as texts:
        judged = list(_judged(texts, len(candidates)))
    fit = np.array([reason is None for reason, _ in judged], bool)
    sample.add(candidates.filter(pa.array(fit)))
    left = candidates.filter(pa.array(~fit))
    unfit = left.select(["doc_id", "shard", "row"])
    for place, name in enumerate(("reason", "excerpt")):
        found = [one[place] for one in judged if one[0] is not None]
        unfit = unfit.append_column(name, pa.array(found, _SCHEMA.field(name).type))
    repeats = int(np.sum(left["copies"].to_numpy())) - len(left)
    return Fit(sample.documents(), unfit.cast(_SCHEMA), len(candidates), repeats, sample.seen)


def _judged(texts: Texts, count: int) -> Iterator[tuple[str | None, str]]:
    """Of each document, why it is not fit, if it is not, and how it begins."""
    hasher = Hasher()
    for start in range(0, count, _READ):
        for text in texts.take(np.arange(start, min(start + _READ, count))).to_pylist():
            yield quality.closed(text, hasher), text[:_EXCERPT_CHARACTERS]
