"""Fit documents are drawn as if there were no others, whatever the shards."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from aitp_tasks.config import Difference
from aitp_tasks.densities.partition import Partition
from aitp_tasks.records import digest, kept
from aitp_tasks.selection import fit
from aitp_tasks.selection.fit import Fit
from aitp_tasks.selection.sample import Quotas, Sample
from aitp_tasks.selection.texts import Texts
from aitp_tasks.storage import Storage, open_storage
from tests.aitp_tasks.conftest import write_shard
from tests.aitp_tasks.selection.test_quality import PROSE

ROWS, SHARDS = 300, 3


def texts_with(share: float) -> list[str]:
    """Texts of which about a share is fit."""
    draw = np.random.default_rng(0)
    return [f"{number} {PROSE if draw.random() < share else 'is too short.'}" for number in range(ROWS)]


def tables(storage: Storage, folder: Path, texts: list[str], shards: int) -> list[pa.Table]:
    """The documents in so many shards, as difference has them."""
    made = []
    for number, rows in enumerate(np.array_split(np.arange(len(texts)), shards)):
        key = f"corpus/news/{shards}-{number}.parquet"
        write_shard(folder / key, [{"text": texts[row]} for row in rows])
        places = np.array([[int(digest.of_text(texts[row])[:4], 16) / 6553.6, 0.0] for row in rows])
        made.append(
            pa.table(
                {
                    "doc_id": [digest.of_text(texts[row]) for row in rows],
                    "source": [str(row % 3) for row in rows],
                    "shard": [key] * len(rows),
                    "etag": [storage.stat(key).etag] * len(rows),
                    "row": np.arange(len(rows)),
                    "x": places[:, 0],
                    "y": places[:, 1],
                }
            )
        )
    return made


def drawn(
    folder: Path,
    texts: list[str],
    size: int,
    shards: int = SHARDS,
    quotas: Quotas | None = None,
    **settings: Any,
) -> Fit:
    storage = open_storage(f"file://{folder}")
    pieces = tables(storage, folder, texts, shards)

    def sampled(sample: Sample) -> None:
        for piece in pieces:
            sample.add(piece)

    chosen = Difference(quality=settings.pop("quality", "default"), **settings)
    return fit.draw(chosen, 1.0, size, sampled, lambda table: Texts(storage, ["text"], table), quotas)


def ids(found: Fit) -> list[str]:
    return list(found.drawn["doc_id"].to_pylist())


def first_fit(texts: list[str], size: int) -> list[str]:
    """Ids of the first fit documents by their draws."""
    good = [digest.of_text(text) for text in texts if PROSE in text]
    return sorted(sorted(good, key=lambda name: kept.draw(0, name))[:size])


@pytest.mark.parametrize("share", [0.9, 0.1, 0.0])
@pytest.mark.parametrize("size", [0, 1, 20, 1000])
def test_the_first_fit_ones_are_drawn_and_all_are_accounted_for(
    tmp_path: Path, share: float, size: int
) -> None:
    texts = texts_with(share)
    found = drawn(tmp_path, texts, size)
    assert ids(found) == first_fit(texts, size)
    assert set(found.unfit["reason"].to_pylist()) <= {"too_short"}
    assert found.reasons == ({"quality_too_short": len(found.unfit)} if len(found.unfit) else {})
    assert not set(found.unfit["doc_id"].to_pylist()) & set(ids(found))
    for row in found.unfit.to_pylist():
        assert row["excerpt"].endswith("is too short.")
    if size == 1000:
        assert found.looked_at == ROWS
        assert len(found.drawn) + len(found.unfit) == ROWS


@pytest.mark.parametrize("sampling", ["uniform", "stratified"])
@pytest.mark.parametrize("cap", [None, 7])
def test_shards_change_nothing(tmp_path: Path, sampling: str, cap: int | None) -> None:
    texts = texts_with(0.4)
    made = [
        drawn(tmp_path, texts, 20, shards, sampling=sampling, max_per_source=cap) for shards in (1, 2, 11)
    ]
    assert ids(made[0]) == ids(made[1]) == ids(made[2])
    assert len(made[0].drawn) == 20
    assert made[0].reasons == made[1].reasons == made[2].reasons
    if cap is not None:
        counts = np.unique(made[0].drawn["source"].to_pylist(), return_counts=True)[1]
        assert counts.max() <= cap
    good = {digest.of_text(text) for text in texts if PROSE in text}
    assert set(ids(made[0])) <= good


def test_repeats_of_what_is_not_fit_are_counted(tmp_path: Path) -> None:
    texts = ["Short.", f"1 {PROSE}", "Short.", "Short.", f"1 {PROSE}"]
    found = drawn(tmp_path, texts, 10)
    assert (len(found.drawn), len(found.unfit), found.repeats) == (1, 1, 2)
    assert found.drawn["copies"].to_pylist() == [2]


def test_without_the_filter_no_text_is_read(tmp_path: Path) -> None:
    texts = texts_with(0.5)
    storage = open_storage(f"file://{tmp_path}")
    pieces = tables(storage, tmp_path, texts, 1)
    found = fit.draw(
        Difference(), 1.0, 20, lambda sample: sample.add(pieces[0]), lambda _: pytest.fail("a text is read")
    )
    assert (len(found.drawn), len(found.unfit), found.looked_at) == (20, 0, 0)


@pytest.mark.parametrize("share", [0.9, 0.1])
@pytest.mark.parametrize("documents", [(3, 40), (1000, 2), (0, 0)])
def test_of_each_region_the_first_fit_ones_are_drawn(
    tmp_path: Path, share: float, documents: tuple[int, int]
) -> None:
    texts = texts_with(share)
    # Where a text lies, its digest says; see ``tables``.
    quotas = Quotas(Partition(((0, 3.0),)), documents)
    found = drawn(tmp_path, texts, sum(documents), quotas=quotas)

    def region(text: str) -> int:
        return int(int(digest.of_text(text)[:4], 16) / 6553.6 >= 3.0)

    expected = [
        name
        for number, wanted in enumerate(documents)
        for name in first_fit([text for text in texts if region(text) == number], wanted)
    ]
    assert ids(found) == sorted(expected)
    assert found.seen.tolist() == [sum(region(text) == number for text in texts) for number in (0, 1)]
