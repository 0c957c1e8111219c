"""Moments of any shards add to the same bits, and are those of the stacked vectors."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aitp_tasks.densities.moments import Moments
from aitp_tasks.errors import InputError


def vectors(rows: int = 500, width: int = 12) -> np.ndarray:
    random = np.random.default_rng(3)
    return (random.normal(size=(rows, width)) @ random.normal(size=(width, width)) + 2).astype(np.float16)


def test_sums_are_exact() -> None:
    values = vectors(40, 3)
    moments = Moments.of(values)
    rows = [[int(float(value) * 2**24) for value in row] for row in values]
    for i in range(3):
        assert int(moments.total[i]) == sum(row[i] for row in rows)
        for j in range(3):
            found = int(moments.high[i, j]) * 2**32 + int(moments.low[i, j])
            assert found == sum(row[i] * row[j] for row in rows)


@settings(max_examples=30)
@given(st.integers(0, 2**32 - 1), st.lists(st.integers(1, 1199), max_size=8))
def test_moments_of_any_shards_add_to_the_same_bytes(seed: int, cuts: list[int]) -> None:
    random = np.random.default_rng(seed)
    values = (random.normal(size=(1200, 4)) * random.choice([1e-3, 1.0, 150.0])).astype(np.float16)
    shards = np.split(values, sorted(set(cuts)))
    random.shuffle(shards)  # type: ignore[arg-type]
    total = Moments.of(shards[0])
    for shard in shards[1:]:
        total += Moments.of(shard)
    assert total.to_bytes() == Moments.of(values).to_bytes()


def test_covariance_is_that_of_the_stacked_vectors() -> None:
    values = vectors()
    stacked = values.astype(np.float64)
    moments = Moments.of(values)
    assert moments.mean() == pytest.approx(stacked.mean(axis=0), abs=1e-12)
    assert np.allclose(moments.covariance(), np.cov(stacked.T, bias=True), rtol=1e-9, atol=1e-12)


def test_survive_storage() -> None:
    moments = Moments.of(vectors())
    assert Moments.from_bytes(moments.to_bytes()).to_bytes() == moments.to_bytes()


@pytest.mark.parametrize("value", [np.nan, np.inf, 2000.0])
def test_vectors_that_cannot_be_summed_are_refused(value: float) -> None:
    values = vectors()
    values[7, 3] = value
    with pytest.raises(InputError, match="cannot be summed exactly"):
        Moments.of(values)


def test_other_dimensions_do_not_add() -> None:
    with pytest.raises(InputError, match="of 12 and of 5 dimensions do not add"):
        Moments.of(vectors()) + Moments.of(vectors(width=5))
