"""Two Gaussians in all dimensions, against scipy's densities and scikit-learn's shrinkage."""

import numpy as np
import pytest
from scipy.stats import multivariate_normal
from sklearn.covariance import OAS

from aitp_tasks.densities.discriminant import Discriminant, shrunk
from aitp_tasks.densities.moments import Moments
from aitp_tasks.errors import InputError
from aitp_tasks.records.vectors import Values


def drawn(seed: int, count: int, width: int, shift: float = 0.0, scale: float = 1.0) -> Values:
    random = np.random.default_rng(seed)
    mixed = random.normal(size=(count, width)) @ random.normal(size=(width, width)) / width
    return (scale * mixed + shift).astype(np.float16)


def log_ratio(corpus: Values, sft: Values, at: Values) -> list[float]:
    """Written out plainly, one vector at a time."""
    gaussians = []
    for values in (sft, corpus):
        exact = values.astype(np.float64)
        covariance = OAS().fit(exact).covariance_
        gaussians.append(multivariate_normal(exact.mean(axis=0), covariance))
    return [float(gaussians[0].logpdf(x) - gaussians[1].logpdf(x)) for x in at.astype(np.float64)]


@pytest.mark.parametrize(
    ("width", "count", "examples"), [(1, 50, 40), (3, 500, 7), (16, 300, 20), (40, 900, 900)]
)
def test_log_ratios_are_those_of_two_gaussians(width: int, count: int, examples: int) -> None:
    corpus, sft = drawn(1, count, width), drawn(2, examples, width, 0.3, 0.5)
    found = Discriminant.fit(Moments.of(corpus), Moments.of(sft)).at(corpus)
    assert found == pytest.approx(log_ratio(corpus, sft, corpus), rel=1e-6, abs=1e-6)


@pytest.mark.parametrize(("width", "count"), [(2, 5), (8, 9), (20, 400)])
def test_the_covariance_is_shrunk_as_scikit_learn_does(width: int, count: int) -> None:
    values = drawn(3, count, width)
    expected = OAS().fit(values.astype(np.float64)).covariance_
    assert shrunk(Moments.of(values)) == pytest.approx(expected, rel=1e-9, abs=1e-15)


@pytest.mark.parametrize("cuts", [[1], [63, 64, 65], [1, 2, 3, 500], list(range(0, 700, 7))])
def test_no_bit_depends_on_how_vectors_are_cut(cuts: list[int]) -> None:
    corpus, sft = drawn(4, 700, 24), drawn(5, 90, 24, 0.2)
    moments = [Moments.of(part) for part in np.split(corpus, cuts)]
    total = moments[0]
    for some in moments[1:]:
        total = total + some
    whole = Discriminant.fit(Moments.of(corpus), Moments.of(sft))
    pieces = Discriminant.fit(total, Moments.of(sft))
    assert pieces.to_bytes() == whole.to_bytes()
    found = np.concatenate([pieces.at(part) for part in np.split(corpus, cuts)])
    assert found.tobytes() == whole.at(corpus).tobytes()
    shuffled = np.random.default_rng(0).permutation(len(corpus))
    assert whole.at(corpus[shuffled]).tobytes() == whole.at(corpus)[shuffled].tobytes()


def test_storage_keeps_every_bit() -> None:
    corpus, sft = drawn(6, 50, 5), drawn(7, 50, 5)
    made = Discriminant.fit(Moments.of(corpus), Moments.of(sft))
    assert Discriminant.from_bytes(made.to_bytes()).at(corpus).tobytes() == made.at(corpus).tobytes()


@pytest.mark.parametrize("sft", [np.ones((1, 4)), np.zeros((7, 4)), np.full((2, 4), 1000.0)])
def test_a_set_that_does_not_vary_is_a_very_small_one(sft: Values) -> None:
    corpus = drawn(8, 200, 4)
    discriminant = Discriminant.fit(Moments.of(corpus), Moments.of(sft.astype(np.float16)))
    at = np.concatenate([corpus, sft]).astype(np.float16)
    found = discriminant.at(at)
    assert np.isfinite(found).all()
    distances = np.linalg.norm(at.astype(np.float64) - sft[0], axis=1)
    assert found[distances.argmin()] == found.max()


def test_a_corpus_that_does_not_vary_is_refused() -> None:
    same = Moments.of(np.ones((9, 3), np.float16))
    with pytest.raises(InputError, match="criterion gaussian needs a corpus that varies"):
        Discriminant.fit(same, same)


def test_other_dimensions_are_refused() -> None:
    corpus = Moments.of(drawn(9, 20, 3))
    with pytest.raises(InputError, match="3 and 4 dimensions do not compare"):
        Discriminant.fit(corpus, Moments.of(drawn(9, 20, 4)))
    with pytest.raises(InputError, match="dimension 4 do not fit Gaussians of 3"):
        Discriminant.fit(corpus, corpus).at(drawn(9, 20, 4))
