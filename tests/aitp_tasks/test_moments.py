"""Moments add, and their principal axes are those of the stacked vectors."""

import numpy as np
import pytest

from aitp_tasks.errors import InputError
from aitp_tasks.moments import Moments, Projection


def vectors(rows: int = 500, width: int = 12) -> np.ndarray:
    random = np.random.default_rng(3)
    return (random.normal(size=(rows, width)) @ random.normal(size=(width, width)) + 2).astype(np.float16)


def test_axes_from_summed_moments_equal_those_of_the_stacked_vectors() -> None:
    values = vectors()
    total = Moments.of(values[:100]) + Moments.of(values[100:350]) + Moments.of(values[350:])
    projection = Projection.fit(total)
    stacked = values.astype(np.float64)
    standardised = (stacked - stacked.mean(axis=0)) / stacked.std(axis=0)
    _, sizes, axes = np.linalg.svd(standardised, full_matrices=False)
    assert np.abs(np.abs(projection.axes.T @ axes[:2].T) - np.eye(2)).max() < 1e-9
    assert projection.explained_variance == pytest.approx((sizes**2 / (sizes**2).sum())[:2], abs=1e-12)
    assert projection.apply(values).mean(axis=0) == pytest.approx([0, 0], abs=1e-9)


def test_signs_are_fixed() -> None:
    projection = Projection.fit(Moments.of(vectors()))
    largest = np.abs(projection.axes).argmax(axis=0)
    assert (projection.axes[largest, [0, 1]] > 0).all()


def test_both_survive_storage() -> None:
    moments = Moments.of(vectors())
    again = Moments.from_bytes(moments.to_bytes())
    assert (again.count, again.total.tolist()) == (moments.count, moments.total.tolist())
    projection = Projection.fit(moments)
    assert np.array_equal(Projection.from_bytes(projection.to_bytes()).axes, projection.axes)


def test_a_column_that_does_not_vary_is_left_out() -> None:
    values = vectors()
    values[:, 4] = 1.0
    projection = Projection.fit(Moments.of(values))
    assert projection.axes[4] == pytest.approx([0, 0])
    assert np.isfinite(projection.apply(values)).all()


@pytest.mark.parametrize(
    ("values", "message"),
    [(np.ones((1, 3), np.float16), "too few"), (np.ones((9, 3), np.float16), "all corpus vectors are equal")],
)
def test_what_has_no_projection_is_refused(values: np.ndarray, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Projection.fit(Moments.of(values))
