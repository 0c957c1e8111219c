"""The projection is scikit-learn's PCA of the standardised vectors, with fixed signs."""

import numpy as np
import pytest
from sklearn.decomposition import PCA
from sklearn.preprocessing import StandardScaler

from aitp_tasks.densities.moments import Moments
from aitp_tasks.densities.projection import Projection
from aitp_tasks.errors import InputError
from tests.aitp_tasks.densities.test_moments import vectors


@pytest.mark.parametrize("components", [1, 2, 3])
def test_equals_a_pca_of_the_stacked_vectors(components: int) -> None:
    values = vectors()
    projection = Projection.fit(Moments.of(values), components)
    standardised = StandardScaler().fit_transform(values.astype(np.float64))
    peer = PCA(components, svd_solver="full").fit(standardised)
    signs = np.sign((peer.components_ @ projection.axes).diagonal())
    assert np.allclose(projection.axes.T * signs[:, None], peer.components_, atol=1e-9)
    assert projection.explained_variance == pytest.approx(peer.explained_variance_ratio_, abs=1e-12)
    assert np.allclose(projection.apply(values) * signs, peer.transform(standardised), atol=1e-9)


def test_signs_are_fixed() -> None:
    projection = Projection.fit(Moments.of(vectors()))
    largest = np.abs(projection.axes).argmax(axis=0)
    assert (projection.axes[largest, [0, 1]] > 0).all()


def test_a_row_is_projected_the_same_wherever_it_lies() -> None:
    values = vectors(600, 37)
    projection = Projection.fit(Moments.of(values))
    pieces = [projection.apply(piece) for piece in np.split(values, [1, 3, 64, 331])]
    assert np.array_equal(np.concatenate(pieces), projection.apply(values))


def test_spread_and_explained_variance_follow_from_moments() -> None:
    values = vectors()
    projection = Projection.fit(Moments.of(values))
    other = Moments.of(values[:200] * np.float16(0.5))
    coordinates = projection.apply(values[:200] * np.float16(0.5))
    assert projection.spread(other) == pytest.approx(coordinates.std(axis=0), rel=1e-6)
    assert projection.explained(Moments.of(values)) == pytest.approx(projection.explained_variance)


def test_survives_storage() -> None:
    projection = Projection.fit(Moments.of(vectors()))
    assert Projection.from_bytes(projection.to_bytes()).to_bytes() == projection.to_bytes()


def test_a_column_that_does_not_vary_is_left_out() -> None:
    values = vectors()
    values[:, 4] = 1.0
    projection = Projection.fit(Moments.of(values))
    assert projection.axes[4] == pytest.approx([0, 0])
    assert np.isfinite(projection.apply(values)).all()


def test_standardised_by_another_set_hides_its_shift() -> None:
    values, shifted = vectors(), vectors() + np.float16(1)
    projection = Projection.fit(Moments.of(values))
    own = projection.standardised_by(Moments.of(shifted))
    assert np.abs(projection.apply(shifted).mean(axis=0)).max() > 0.1
    assert own.apply(shifted).mean(axis=0) == pytest.approx([0, 0], abs=1e-9)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.ones((1, 3), np.float16), "too few"),
        (np.ones((9, 3), np.float16), "all corpus vectors are equal"),
        (np.outer(np.arange(9), [1, 2, 3]).astype(np.float16), "fewer than density.components=2 axes"),
    ],
)
def test_what_has_no_projection_is_refused(values: np.ndarray, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Projection.fit(Moments.of(values))


def test_vectors_of_another_encoder_are_refused() -> None:
    projection = Projection.fit(Moments.of(vectors()))
    with pytest.raises(InputError, match="dimension 5 do not fit a projection of 12"):
        projection.apply(vectors(width=5))
