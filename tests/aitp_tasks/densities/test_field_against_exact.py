"""Densities at every point against exact float64 sums; written from the promise alone, not from the code."""

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.spatial import cKDTree
from scipy.special import logsumexp

from aitp_tasks.config import Criterion
from aitp_tasks.densities.field import Field, Window, cells_per_bandwidth
from aitp_tasks.densities.grid import SparseGrid
from aitp_tasks.selection import criteria

pytestmark = pytest.mark.slow

Floats = NDArray[np.float64]
FLOOR = 1e-10
#: At the floor itself a few percent are rounding.
NEAR_FLOOR = 1.03 * FLOOR
PAIRS_AT_ONCE = 200_000
BANDWIDTHS = [0.05, 0.3, 1.0, 5.0]
#: In bandwidths.
NEAR = np.array([0, 1, 3, 5, 6, 6.5, 6.7, 7, 7.5, 8, 8.5, 8.9, 9, 9.1, 9.5, 12])
#: In space, what needs a window of many cells is tried with cells as large as an error of 1% allows.
MAX_ERROR = {1: 1e-3, 2: 1e-3, 3: 1e-2}


def log_density(points: Floats, sources: Floats, bandwidth: float, weights: Floats | None = None) -> Floats:
    """Natural logarithm of the exact kernel sum; ``weights`` say how often each source occurs."""
    often = np.ones(len(sources)) if weights is None else weights
    dimensions = sources.shape[1]
    constant = math.log(math.fsum(often)) + dimensions * (math.log(bandwidth) + 0.5 * math.log(2 * math.pi))
    found = np.empty(len(points))
    rows = max(1, PAIRS_AT_ONCE // len(sources))
    for start in range(0, len(points), rows):
        chunk = points[start : start + rows]
        squares = np.zeros((len(chunk), len(sources)))
        for axis in range(dimensions):
            squares += ((chunk[:, axis, None] - sources[None, :, axis]) / bandwidth) ** 2
        nearest = squares.min(axis=1)
        sums = np.exp(-0.5 * (squares - nearest[:, None])) @ often
        found[start : start + rows] = np.log(sums) - 0.5 * nearest - constant
    return found


def alone(distances: Floats, dimensions: int, bandwidth: float) -> Floats:
    """Exact density ``distances`` bandwidths from the only source."""
    return np.exp(-0.5 * distances**2 - dimensions * math.log(bandwidth * math.sqrt(2 * math.pi)))


def two_fields(corpus: Floats, sft: Floats, bandwidth: float, max_error: float) -> tuple[Field, Field]:
    """The fields of corpus and SFT set on one window."""
    step = bandwidth / cells_per_bandwidth(max_error, bandwidth, corpus.shape[1])
    grids = [SparseGrid.of(corpus, step), SparseGrid.of(sft, step)]
    window = Window.around(grids, bandwidth)
    return Field.of(grids[0], bandwidth, window), Field.of(grids[1], bandwidth, window)


def assert_kept(estimates: Floats, exact: Floats, max_error: float) -> None:
    """Within ``max_error`` above the floor, below the floor below it, and a density everywhere."""
    assert estimates.shape == exact.shape
    assert estimates.dtype == np.float64
    assert np.isfinite(estimates).all(), f"{(~np.isfinite(estimates)).sum()} estimates are not finite"
    assert (estimates >= 0).all(), f"least estimate {estimates.min():.3g}"
    above = exact > FLOOR
    if above.any():
        errors = np.abs(estimates[above] / exact[above] - 1)
        worst = int(errors.argmax())
        told = f"{estimates[above][worst]:.6g}, exact {exact[above][worst]:.6g}"
        wrong = int((errors > max_error).sum())
        assert wrong == 0, f"{wrong} of {above.sum()} above the floor: error {errors[worst]:.3g} ({told})"
    if not above.all():
        worst = int(estimates[~above].argmax())
        told = f"{estimates[~above][worst]:.6g}, exact {exact[~above][worst]:.6g}"
        wrong = int((estimates[~above] > NEAR_FLOOR).sum())
        assert wrong == 0, f"{wrong} of {(~above).sum()} below the floor are told above it: {told}"


def assert_judged(criterion: Criterion, scores: Floats, exact: Floats, tau: float) -> None:
    """Nothing clearly below ``tau`` is left out, nothing clearly above it is taken."""
    taken = scores < tau
    left_out = (exact < tau / 2) & ~taken
    told = f"{criterion} at {tau:g}"
    assert not left_out.any(), (
        f"{told}: {left_out.sum()} left out, "
        f"score {scores[left_out].max():.3g} exact {exact[left_out].max():.3g}"
    )
    wrongly = (exact > 2 * tau) & taken
    assert not wrongly.any(), (
        f"{told}: {wrongly.sum()} taken, score {scores[wrongly].min():.3g} exact {exact[wrongly].min():.3g}"
    )


def assert_same_summary(estimates: Floats, exact: Floats, max_error: float) -> None:
    """Mean and quantiles of the documents above the floor agree, and quantiles below it stay there."""
    above = exact > FLOOR
    assert above.any()
    assert np.mean(estimates[above]) == pytest.approx(math.fsum(exact[above]) / above.sum(), rel=max_error)
    levels = [0.05, 0.25, 0.5, 0.75, 0.95]
    np.testing.assert_allclose(
        np.quantile(estimates[above], levels), np.quantile(exact[above], levels), rtol=max_error
    )
    told, right = np.quantile(estimates, levels), np.quantile(exact, levels)
    assert (told[right <= FLOOR] <= NEAR_FLOOR).all()
    # What lies below the floor adds at most the floor to the mean of all.
    assert abs(np.mean(estimates) - math.fsum(exact) / len(exact)) <= max_error * np.mean(exact) + NEAR_FLOOR


def assert_promise(
    corpus: Floats, sft: Floats, bandwidth: float, max_error: float, documents: Floats | None = None
) -> None:
    """Densities of both sets and the verdicts at ``documents``: at every corpus point by default."""
    documents = corpus if documents is None else documents
    fields = two_fields(corpus, sft, bandwidth, max_error)
    p_corpus, p_sft = (field.at(documents) for field in fields)
    log_corpus = log_density(documents, corpus, bandwidth)
    log_sft = log_density(documents, sft, bandwidth)
    assert_kept(p_sft, np.exp(log_sft), max_error)
    assert_kept(p_corpus, np.exp(log_corpus), max_error)
    if (log_corpus > math.log(FLOOR)).all():
        exact_ratio = np.exp(np.minimum(log_sft - log_corpus, 700))
        ratio = criteria.score(Criterion.DENSITY_RATIO, p_corpus, p_sft)
        for tau in (0.2, 1.0):
            assert_judged(Criterion.DENSITY_RATIO, ratio, exact_ratio, tau)
    told = criteria.score(Criterion.SFT_DENSITY, p_corpus, p_sft)
    for tau in (1e-2, 1e-5, 1e-8):
        assert_judged(Criterion.SFT_DENSITY, told, np.exp(log_sft), tau)


def unit(dimensions: int, seed: int = 0) -> Floats:
    """Directions: the axes both ways, the diagonal, and some at random."""
    random = np.random.default_rng(seed).normal(size=(4, dimensions))
    rows = np.vstack([np.eye(dimensions), -np.eye(dimensions), np.ones((1, dimensions)), random])
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def rays(distances: Floats, dimensions: int) -> tuple[Floats, Floats]:
    """Points at the ``distances`` from the origin in all directions, and their distances."""
    directions = unit(dimensions)
    points = (distances[:, None, None] * directions[None]).reshape(-1, dimensions)
    return points, np.repeat(distances, len(directions))


def mixture(random: np.random.Generator, size: int, dimensions: int, gap: float) -> Floats:
    """One to three Gaussian clouds, in bandwidths, the further ones up to ``gap`` from the first."""
    clouds = int(random.integers(1, 4))
    centres = random.normal(size=(clouds, dimensions))
    centres *= (gap * random.uniform(0, 1, clouds) / np.linalg.norm(centres, axis=1))[:, None]
    centres[0] = 0
    deviations = random.choice([0.02, 0.5, 1, 3], size=clouds)
    shares = random.dirichlet(np.full(clouds, 0.5))
    which = random.choice(clouds, size=size, p=shares)
    return centres[which] + deviations[which, None] * random.normal(size=(size, dimensions))


# The reference itself.


@pytest.mark.parametrize("dimensions", [1, 2, 3])
def test_the_reference_agrees_with_fsum_and_with_scipy(dimensions: int) -> None:
    random = np.random.default_rng(3)
    points, sources = 4 * random.normal(size=(20, dimensions)), random.normal(size=(300, dimensions))
    found = log_density(points, sources, 0.7)
    for point, value in zip(points, found, strict=True):
        exponents = [-math.fsum((point - row) ** 2) / 0.98 for row in sources]
        constant = math.log(300) + dimensions * math.log(0.7 * math.sqrt(2 * math.pi))
        assert value == pytest.approx(math.log(math.fsum(map(math.exp, exponents))) - constant, abs=1e-12)
        assert value == pytest.approx(float(logsumexp(exponents)) - constant, abs=1e-12)


# The clouds of issue 14.


@dataclass(frozen=True)
class Clouds:
    """The clouds, what is told of every document, and the exact densities of a sample."""

    corpus: Floats
    sft: Floats
    p_corpus: Floats
    p_sft: Floats
    to_sft: Floats
    sample: NDArray[np.int64]
    exact_corpus: Floats
    log_sft: Floats


@pytest.fixture(scope="module", params=[1, 2], ids=["1d", "2d"])
def clouds(request: pytest.FixtureRequest) -> Clouds:
    """400,000 corpus points of deviation 5 and 20,000 SFT points of deviation 1, centres 9 apart."""
    dimensions = int(request.param)
    random = np.random.default_rng(20)
    corpus = 5 * random.normal(size=(400_000, dimensions))
    sft = random.normal(size=(20_000, dimensions))
    sft[:, 0] += 9
    fields = two_fields(corpus, sft, 1.0, 1e-3)
    p_corpus, p_sft = (field.at(corpus) for field in fields)
    to_sft = cKDTree(sft).query(corpus)[0]
    # As many from each band of distances: the far bands hold what is hard.
    bands = [0, 1, 3, 5, 6, 7, 8, 9, 10, 14, np.inf]
    inside = [np.flatnonzero((to_sft >= near) & (to_sft < far)) for near, far in pairwise(bands)]
    sample = np.concatenate([random.permutation(band)[:25] for band in inside])
    return Clouds(
        corpus,
        sft,
        p_corpus,
        p_sft,
        to_sft,
        sample,
        np.exp(log_density(corpus[sample], corpus, 1.0)),
        log_density(corpus[sample], sft, 1.0),
    )


def test_clouds_no_far_document_is_told_covered(clouds: Clouds) -> None:
    ratio = criteria.score(Criterion.DENSITY_RATIO, clouds.p_corpus, clouds.p_sft)
    told = np.flatnonzero((clouds.to_sft > 8) & ~(ratio < 1))
    # p_corpus is at least that of the document itself, so that none of these can be covered.
    exact = np.exp(log_density(clouds.corpus[told][:200], clouds.sft, 1.0))
    assert (exact * 400_000 * (2 * math.pi) ** (clouds.corpus.shape[1] / 2) < 0.5).all()
    assert len(told) == 0, (
        f"{len(told)} of {(clouds.to_sft > 8).sum()}, largest {clouds.p_sft[told].max():.3g}"
    )


def test_clouds_every_estimate_is_a_density_below_the_peak_of_a_kernel(clouds: Clouds) -> None:
    peak = (2 * math.pi) ** (-clouds.corpus.shape[1] / 2)
    for told in (clouds.p_corpus, clouds.p_sft):
        assert np.isfinite(told).all()
        assert told.min() >= 0
        assert told.max() <= peak * 1.001
    assert clouds.p_corpus.min() >= peak / 400_000 * 0.999


def test_clouds_far_documents_lie_below_the_floor(clouds: Clouds) -> None:
    """Beyond 6.7 bandwidths from all, the mean of kernels is below that at 6.7: 7e-11 at most."""
    assert clouds.p_sft[clouds.to_sft > 6.7].max() <= NEAR_FLOOR


def test_clouds_sft_density_in_all_bands(clouds: Clouds) -> None:
    assert_kept(clouds.p_sft[clouds.sample], np.exp(clouds.log_sft), 1e-3)


def test_clouds_corpus_density_in_all_bands(clouds: Clouds) -> None:
    assert_kept(clouds.p_corpus[clouds.sample], clouds.exact_corpus, 1e-3)


@pytest.mark.parametrize("tau", [0.2, 0.5, 1.0, 3.0])
def test_clouds_verdicts(clouds: Clouds, tau: float) -> None:
    exact = np.exp(clouds.log_sft) / clouds.exact_corpus
    told = criteria.score(
        Criterion.DENSITY_RATIO, clouds.p_corpus[clouds.sample], clouds.p_sft[clouds.sample]
    )
    assert_judged(Criterion.DENSITY_RATIO, told, exact, tau)


def test_clouds_mean_and_quantiles(clouds: Clouds) -> None:
    assert_same_summary(clouds.p_sft[clouds.sample], np.exp(clouds.log_sft), 1e-3)
    assert_same_summary(clouds.p_corpus[clouds.sample], clouds.exact_corpus, 1e-3)


def test_clouds_mean_over_all_documents(clouds: Clouds) -> None:
    """Against an independent estimate: the exact mean over 2,000 other documents, within five errors."""
    chosen = np.random.default_rng(1).permutation(len(clouds.corpus))[:2000]
    exact = np.exp(log_density(clouds.corpus[chosen], clouds.sft, 1.0))
    error = float(np.std(exact)) / math.sqrt(len(exact))
    assert abs(float(np.mean(clouds.p_sft)) - math.fsum(exact) / len(exact)) < 5 * error


def test_clouds_nearer_is_never_less_dense(clouds: Clouds) -> None:
    """At 12 to 12.5 bandwidths from the nearest example against 25 and more: exact ones differ by e^200."""
    twelve = clouds.p_sft[(clouds.to_sft > 12) & (clouds.to_sft < 12.5)]
    further = clouds.p_sft[clouds.to_sft >= 25]
    assert len(twelve) > 0
    assert len(further) > 0
    assert twelve.min() >= further.max()


# One SFT point, documents at known distances.


@functools.cache
def told_on_rays(dimensions: int, bandwidth: float) -> Floats:
    """SFT density at the ``NEAR`` distances (first axis) in all directions; the example is at the origin."""
    documents = rays(NEAR, dimensions)[0] * bandwidth
    field = two_fields(documents, np.zeros((1, dimensions)), bandwidth, MAX_ERROR[dimensions])[1]
    return field.at(documents).reshape(len(NEAR), -1)


@pytest.mark.parametrize("bandwidth", BANDWIDTHS)
@pytest.mark.parametrize("dimensions", [1, 2, 3])
def test_one_sft_point_documents_on_rays(dimensions: int, bandwidth: float) -> None:
    told = told_on_rays(dimensions, bandwidth)
    exact = np.repeat(alone(NEAR, dimensions, bandwidth)[:, None], told.shape[1], axis=1)
    assert_kept(told, exact, MAX_ERROR[dimensions])


@pytest.mark.parametrize("bandwidth", BANDWIDTHS)
@pytest.mark.parametrize("dimensions", [1, 2, 3])
def test_one_sft_point_farther_is_never_denser(dimensions: int, bandwidth: float) -> None:
    """Along each direction the estimates never grow, below the floor neither."""
    assert (np.diff(told_on_rays(dimensions, bandwidth), axis=0) <= 0).all()


@pytest.mark.parametrize(
    ("dimensions", "farthest"),
    [(1, 25), (1, 40), (1, 100), (1, 10_000), (2, 25), (2, 40), (2, 100), (2, 10_000), (3, 25)],
)
def test_one_sft_point_and_far_documents(dimensions: int, farthest: int) -> None:
    """The farthest ones are in the corpus as well; estimates never grow on the way there."""
    distances = np.append(NEAR[NEAR >= 6], [farthest / 2, farthest])
    directions = unit(dimensions)[-3:]
    documents = (np.sort(distances)[:, None, None] * directions).reshape(-1, dimensions)
    told = two_fields(documents, np.zeros((1, dimensions)), 1.0, 1e-2)[1].at(documents)
    assert_kept(told, alone(np.repeat(np.sort(distances), 3), dimensions, 1.0), 1e-2)
    assert (np.diff(told.reshape(-1, 3), axis=0) <= 0).all()


@pytest.mark.parametrize("max_error", [1e-2, 1e-3, 1e-5])
@pytest.mark.parametrize("dimensions", [1, 2])
def test_one_sft_point_at_every_accuracy(dimensions: int, max_error: float) -> None:
    documents, distances = rays(np.linspace(0, 12, 241), dimensions)
    shift = np.array([0.1234, 0.4321])[:dimensions]
    told = two_fields(documents + shift, shift[None], 1.0, max_error)[1].at(documents + shift)
    assert_kept(told, alone(distances, dimensions, 1.0), max_error)


@pytest.mark.parametrize("bandwidth", [*BANDWIDTHS, 0.01])
@pytest.mark.parametrize("dimensions", [1, 2, 3])
def test_across_the_floor(dimensions: int, bandwidth: float) -> None:
    """Exact densities from 1e-12 to 1e-8 around one SFT point: where a cut-off would show."""
    peak = (bandwidth * math.sqrt(2 * math.pi)) ** -dimensions
    wanted = np.geomspace(1e-12, 1e-8, 161)
    distances = np.sqrt(2 * np.log(peak / wanted))
    points, _ = rays(distances, dimensions)
    documents = points * bandwidth + 0.37 * bandwidth
    sft = np.full((1, dimensions), 0.37 * bandwidth)
    max_error = 1e-3 if bandwidth == 0.05 else MAX_ERROR[dimensions]
    told = two_fields(documents, sft, bandwidth, max_error)[1].at(documents)
    assert_kept(told, np.exp(log_density(documents, sft, bandwidth)), max_error)


@pytest.mark.parametrize("dimensions", [1, 2, 3])
def test_twelve_bandwidths_rank_above_twenty_five(dimensions: int) -> None:
    """From a cloud of 3,000, in many directions; float64 holds the exact density at 25 still."""
    random = np.random.default_rng(dimensions)
    sft = random.normal(size=(3000, dimensions))
    candidates = random.uniform(-6, 29 if dimensions < 3 else 22, size=(300_000, dimensions))
    to_sft = cKDTree(sft).query(candidates)[0]
    near = candidates[(to_sft > 11.9) & (to_sft < 12.1)][:60]
    far = candidates[(to_sft > 24.9) & (to_sft < 25.1)][:60]
    assert min(len(near), len(far)) >= 20
    field = two_fields(np.vstack([near, far]), sft, 1.0, MAX_ERROR[dimensions])[1]
    assert np.exp(log_density(near, sft, 1.0)).min() > np.exp(log_density(far, sft, 1.0)).max() > 0
    told_near, told_far = field.at(near), field.at(far)
    assert told_near.min() >= told_far.max()
    assert max(told_near.max(), told_far.max()) <= NEAR_FLOOR


# Shapes.


def ring(size: int, radius: float) -> Floats:
    """Points on a circle."""
    angles = np.linspace(0, 2 * np.pi, size, endpoint=False)
    return radius * np.column_stack([np.cos(angles), np.sin(angles)])


def _one_corpus_point() -> tuple[Floats, Floats]:
    return np.array([[0.3, -0.4]]), np.random.default_rng(0).normal(size=(500, 2))


def _one_corpus_point_far_away() -> tuple[Floats, Floats]:
    return np.array([[30.0, -40.0]]), np.random.default_rng(0).normal(size=(500, 2))


def _one_of_each() -> tuple[Floats, Floats]:
    return np.array([[9.3, 0.0]]), np.array([[0.0, 0.1]])


def _all_equal() -> tuple[Floats, Floats]:
    return np.full((700, 2), 0.123), np.full((300, 2), 0.123)


def _all_equal_but_apart() -> tuple[Floats, Floats]:
    return np.full((700, 2), 0.123), np.full((300, 2), 9.0)


def _ring_around_a_clump() -> tuple[Floats, Floats]:
    return ring(2000, 9.0), 0.1 * np.random.default_rng(1).normal(size=(1000, 2))


def _clump_within_a_ring() -> tuple[Floats, Floats]:
    """All SFT examples are 7 away from the documents: each kernel is at its edge."""
    return 0.1 * np.random.default_rng(1).normal(size=(1000, 2)), ring(2000, 6.6)


def _rings_that_share_no_point() -> tuple[Floats, Floats]:
    return ring(1500, 20.0), ring(1500, 13.3)


def _line_along_an_axis() -> tuple[Floats, Floats]:
    along = np.linspace(-40, 40, 2001)
    return np.column_stack([along, np.zeros(2001)]), np.column_stack(
        [np.linspace(-2, 2, 300), np.full(300, 1.0)]
    )


def _line_across() -> tuple[Floats, Floats]:
    along = np.linspace(-40, 40, 2001)[:, None] * np.array([[1.0, 0.7]])
    return along, np.linspace(-1, 1, 300)[:, None] * np.array([[0.7, -1.0]])


def _parallel_lines() -> tuple[Floats, Floats]:
    along = np.linspace(-30, 30, 1501)
    return np.column_stack([along, np.full(1501, 6.7)]), np.column_stack([along, np.zeros(1501)])


def _needle() -> tuple[Floats, Floats]:
    """A corpus a thousand times as long as wide."""
    random = np.random.default_rng(5)
    return random.normal(size=(2000, 2)) * [100, 0.1], random.normal(size=(1000, 2)) * [1, 8]


def _plate_in_space() -> tuple[Floats, Floats]:
    random = np.random.default_rng(6)
    return random.normal(size=(800, 3)) * [6, 6, 0], random.normal(size=(500, 3)) * [0, 1, 6] + [7, 0, 0]


def _line_in_space() -> tuple[Floats, Floats]:
    return np.linspace(-25, 25, 501)[:, None] * np.array([[1, 1, 1.0]]), np.zeros((4, 3))


def _heavy_tails() -> tuple[Floats, Floats]:
    random = np.random.default_rng(8)
    return 2 * random.standard_t(2, size=(1500, 2)), random.standard_t(2, size=(600, 2))


def _lattice() -> tuple[Floats, Floats]:
    """SFT examples 12.5 apart, so that documents are between the edges of four kernels."""
    near = np.stack(np.meshgrid(*[np.arange(-25, 26, 12.5)] * 2), axis=-1).reshape(-1, 2)
    return np.random.default_rng(9).uniform(-30, 30, size=(2000, 2)), near


SHAPES: list[Callable[[], tuple[Floats, Floats]]] = [
    _one_corpus_point,
    _one_corpus_point_far_away,
    _one_of_each,
    _all_equal,
    _all_equal_but_apart,
    _ring_around_a_clump,
    _clump_within_a_ring,
    _rings_that_share_no_point,
    _line_along_an_axis,
    _line_across,
    _parallel_lines,
    _needle,
    _plate_in_space,
    _line_in_space,
    _heavy_tails,
    _lattice,
]


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.__name__.strip("_"))
def test_shapes(shape: Callable[[], tuple[Floats, Floats]]) -> None:
    corpus, sft = shape()
    assert_promise(corpus, sft, 1.0, MAX_ERROR[corpus.shape[1]])


def test_the_same_point_a_million_times() -> None:
    """Exact: one kernel, however often its point occurs."""
    documents, distances = rays(NEAR, 2)
    told = two_fields(documents, np.full((1_000_000, 2), 0.0), 1.0, 1e-3)[1].at(documents)
    assert_kept(told, alone(distances, 2, 1.0), 1e-3)


def test_a_million_corpus_points_on_one_and_one_document_elsewhere() -> None:
    """The document's own kernel is a millionth of the corpus, 2 to 60 bandwidths from the rest."""
    for away in (2.0, 5.5, 6.5, 60.0):
        sources = np.array([[0.05, -0.11], [away, 0.3]])
        corpus = np.repeat(sources, [1_000_000, 1], axis=0)
        documents = np.vstack([sources, sources.mean(axis=0)])
        exact = np.exp(log_density(documents, sources, 1.0, np.array([1e6, 1.0])))
        assert_kept(two_fields(corpus, sources[1:], 1.0, 1e-3)[0].at(documents), exact, 1e-3)


@pytest.mark.parametrize("apart", [8.0, 10.0, 12.0, 13.0, 14.0, 15.0, 16.0, 18.0])
@pytest.mark.parametrize("dimensions", [1, 2])
def test_one_point_against_twenty_thousand(dimensions: int, apart: float) -> None:
    """Documents between an SFT clump of 20,000 and a lone example, near the edges of both kernels."""
    random = np.random.default_rng(int(apart))
    clump = 0.05 * random.normal(size=(20_000, dimensions))
    lone = np.full((1, dimensions), apart / math.sqrt(dimensions))
    along = np.linspace(-0.7, 1.7, 241)[:, None] * lone
    documents = np.vstack([along, along[::3] + 0.5, along[::3] - [1.0, -1.0][:dimensions]])
    sft = np.vstack([clump, lone])
    told = two_fields(documents, sft, 1.0, 1e-3)[1].at(documents)
    # The clump's points lie close together, yet their sum is taken one by one.
    assert_kept(told, np.exp(log_density(documents, sft, 1.0)), 1e-3)


@pytest.mark.parametrize("max_error", [1e-2, 1e-3, 1e-4, 1e-5])
@pytest.mark.parametrize("apart", [2.0, 6.0, 9.0, 11.0, 12.5, 13.0, 13.4])
def test_saddle_between_two_examples(apart: float, max_error: float) -> None:
    """Half way the slope of the logarithm turns within a fraction of a bandwidth; 21 places in the cells."""
    for shift in np.linspace(0, 1, 21) / cells_per_bandwidth(max_error, 1.0, 1):
        sft = np.array([[-apart / 2], [apart / 2]]) + shift
        documents = np.linspace(-1, 1, 401)[:, None]
        told = two_fields(documents, sft, 1.0, max_error)[1].at(documents)
        assert_kept(told, np.exp(log_density(documents, sft, 1.0)), max_error)


def test_many_equal_weights_at_the_edge_add_up() -> None:
    """Kernels at 6.0 and at 6.9 bandwidths, 1 and 1,000 times: sums on both sides of the floor in 1-D."""
    for low, high in ((1.0, 1000.0), (1000.0, 1.0), (30.0, 30.0)):
        sources, weights = np.array([[-6.0], [6.9]]), np.array([low, high])
        sft = np.repeat(sources, weights.astype(int), axis=0)
        documents = np.linspace(-2, 2, 401)[:, None]
        told = two_fields(documents, sft, 1.0, 1e-3)[1].at(documents)
        assert_kept(told, np.exp(log_density(documents, sources, 1.0, weights)), 1e-3)


# Where points lie in their cells.


@pytest.mark.parametrize("max_error", [1e-2, 1e-3, 1e-4])
@pytest.mark.parametrize("halves", [(0, 0), (0, 1), (1, 0), (1, 1)], ids=str)
@pytest.mark.parametrize("dimensions", [1, 2])
def test_points_on_borders_and_half_way(dimensions: int, halves: tuple[int, int], max_error: float) -> None:
    """SFT points (first) and documents (second) on multiples of the step, or half a step beside."""
    step = 0.3 / cells_per_bandwidth(max_error, 0.3, dimensions)
    random = np.random.default_rng(4)
    sft = (random.integers(-20, 20, size=(50, dimensions)) + halves[0] / 2) * step
    corpus = (random.integers(-300, 300, size=(600, dimensions)) + halves[1] / 2) * step
    assert_promise(corpus, sft, 0.3, max_error)


@pytest.mark.parametrize("dimensions", [1, 2, 3])
def test_points_just_beside_borders(dimensions: int) -> None:
    """One unit in the last place below and above a border."""
    step = 1.0 / cells_per_bandwidth(1e-2, 1.0, dimensions)
    random = np.random.default_rng(4)
    borders = random.integers(-40, 40, size=(200, dimensions)) * step
    corpus = np.vstack([np.nextafter(borders, -np.inf), np.nextafter(borders, np.inf), borders])
    assert_promise(corpus, np.nextafter(borders[:5] / 4, np.inf), 1.0, 1e-2)


# Windows.

#: By dimensions; in space an outlier of 60 already makes a window of tens of millions of cells.
OUTLIERS = [(1, 30.0), (1, 200.0), (1, 1e4), (1, 1e5), (2, 30.0), (2, 200.0), (2, 1e4), (3, 20.0), (3, 1e4)]


@pytest.mark.parametrize(("dimensions", "outlier"), OUTLIERS)
def test_one_outlier_stretches_the_window(dimensions: int, outlier: float) -> None:
    random = np.random.default_rng(11)
    corpus = np.vstack([4 * random.normal(size=(400, dimensions)), np.full((1, dimensions), outlier)])
    assert_promise(corpus, random.normal(size=(300, dimensions)), 1.0, 1e-2)


@pytest.mark.parametrize(("dimensions", "outlier"), OUTLIERS)
def test_an_sft_outlier_covers_its_neighbours_alone(dimensions: int, outlier: float) -> None:
    """Documents around the only far SFT example, as dense as one of 301 kernels, and in its lee."""
    random = np.random.default_rng(12)
    place = np.full((1, dimensions), outlier)
    around = place + rays(np.array([0.0, 0.5, 2, 4, 5, 6, 9, 9.5, 12]), dimensions)[0]
    corpus = np.vstack([4 * random.normal(size=(300, dimensions)), around])
    sft = np.vstack([random.normal(size=(300, dimensions)), place])
    assert_promise(corpus, sft, 1.0, 1e-2)


@pytest.mark.parametrize("away", [15.0, 100.0, 1e5, 1e9, 1e15])
@pytest.mark.parametrize("dimensions", [1, 2, 3])
def test_points_beyond_everything(dimensions: int, away: float) -> None:
    """Points that are neither in the corpus nor near the window have no density to speak of."""
    random = np.random.default_rng(13)
    corpus, sft = 2 * random.normal(size=(200, dimensions)), random.normal(size=(200, dimensions))
    points = away * unit(dimensions)
    for field, sources in zip(two_fields(corpus, sft, 1.0, 1e-2), (corpus, sft), strict=True):
        assert_kept(field.at(points), np.exp(log_density(points, sources, 1.0)), 1e-2)


def test_small_bandwidth_in_all_corners_of_space() -> None:
    """3-D, 2,400 points about the eight corners of a cube 40 bandwidths wide, SFT about four of them."""
    random = np.random.default_rng(14)
    corners = np.stack(np.meshgrid(*[[-1.0, 1.0]] * 3), axis=-1).reshape(-1, 3)
    corpus = np.repeat(corners, 300, axis=0) + 0.1 * random.normal(size=(2400, 3))
    sft = np.repeat(corners[::2], 200, axis=0) + 0.1 * random.normal(size=(800, 3))
    assert_promise(corpus, sft, 0.05, 1e-2)


@pytest.mark.parametrize("bandwidth", [0.05, 1.0])
@pytest.mark.parametrize("dimensions", [1, 2, 3])
def test_sets_far_from_the_origin(dimensions: int, bandwidth: float) -> None:
    """10,000 bandwidths away, towards other signs on each axis."""
    random = np.random.default_rng(15)
    shift = 1e4 * bandwidth * np.array([1.0, -1.0, 1.0])[:dimensions]
    corpus = shift + 4 * bandwidth * random.normal(size=(400, dimensions))
    sft = shift + bandwidth * random.normal(size=(300, dimensions))
    assert_promise(corpus, sft, bandwidth, MAX_ERROR[dimensions])


@pytest.mark.parametrize(("dimensions", "apart"), [(1, 20_000.0), (1, 200_000.0), (2, 600.0)])
def test_sets_far_from_each_other(dimensions: int, apart: float) -> None:
    """Nothing of either is covered by the other."""
    random = np.random.default_rng(16)
    corpus = random.normal(size=(300, dimensions)) - apart / 2
    sft = random.normal(size=(300, dimensions)) + apart / 2
    fields = two_fields(corpus, sft, 1.0, 1e-2)
    assert (fields[1].at(corpus) <= NEAR_FLOOR).all()
    assert (fields[0].at(sft) <= NEAR_FLOOR).all()
    assert_kept(fields[0].at(corpus), np.exp(log_density(corpus, corpus, 1.0)), 1e-2)
    assert_kept(fields[1].at(sft), np.exp(log_density(sft, sft, 1.0)), 1e-2)


# Random mixtures.


@pytest.mark.parametrize("bandwidth", BANDWIDTHS)
@pytest.mark.parametrize(
    ("dimensions", "gap"), [(1, 0), (1, 3), (1, 9), (1, 20), (1, 60), (2, 0), (2, 9), (2, 60), (3, 0), (3, 9)]
)
def test_mixtures(dimensions: int, gap: int, bandwidth: float) -> None:
    random = np.random.default_rng([dimensions, gap, int(100 * bandwidth)])
    size = 250 if dimensions == 3 else 1200
    corpus = bandwidth * mixture(random, size, dimensions, 10)
    sft = bandwidth * mixture(random, size // 2, dimensions, 10)
    sft[:, 0] += gap * bandwidth
    assert_promise(corpus, sft, bandwidth, MAX_ERROR[dimensions])


def test_a_mixture_in_space_sixty_bandwidths_apart() -> None:
    random = np.random.default_rng(60)
    corpus, sft = mixture(random, 250, 3, 10), mixture(random, 100, 3, 10)
    sft[:, 0] += 60
    assert_promise(corpus, sft, 1.0, 1e-2)


@pytest.mark.parametrize("max_error", [1e-2, 1e-3, 1e-4, 1e-5])
@pytest.mark.parametrize("dimensions", [1, 2])
def test_mixtures_at_every_accuracy(dimensions: int, max_error: float) -> None:
    random = np.random.default_rng([dimensions, int(1e5 * max_error)])
    corpus, sft = mixture(random, 1500, dimensions, 15), mixture(random, 700, dimensions, 15)
    assert_promise(corpus, sft, 1.0, max_error)


@pytest.mark.parametrize("gap", [0.0, 5.0, 8.0, 14.0])
@pytest.mark.parametrize("dimensions", [1, 2, 3])
def test_mean_and_quantiles_of_documents(dimensions: int, gap: float) -> None:
    """Documents a few bandwidths from the SFT set and some of them upon it."""
    max_error = MAX_ERROR[dimensions]
    random = np.random.default_rng([dimensions, int(gap)])
    corpus = 2.5 * random.normal(size=(600, dimensions))
    sft = random.normal(size=(400, dimensions)) * 0.7
    sft[:, 0] += gap
    corpus = np.vstack([corpus, sft[:60]])
    for field, sources in zip(two_fields(corpus, sft, 1.0, max_error), (corpus, sft), strict=True):
        assert_same_summary(field.at(corpus), np.exp(log_density(corpus, sources, 1.0)), max_error)


@pytest.mark.parametrize("dimensions", [1, 2, 3])
def test_any_mixture(dimensions: int) -> None:
    """Property: the promise holds whatever the seed, gap, bandwidth and accuracy."""
    widest = 12.0 if dimensions == 3 else 60.0

    @settings(max_examples=8 if dimensions == 3 else 30, derandomize=True, deadline=None, database=None)
    @given(
        seed=st.integers(0, 2**32 - 1),
        gap=st.floats(0, widest),
        bandwidth=st.sampled_from(BANDWIDTHS),
        max_error=st.sampled_from([1e-2, MAX_ERROR[dimensions]]),
        lone=st.booleans(),
    )
    def holds(seed: int, gap: float, bandwidth: float, max_error: float, lone: bool) -> None:
        random = np.random.default_rng(seed)
        corpus, sft = mixture(random, 250, dimensions, gap), mixture(random, 100, dimensions, gap)
        if lone:
            sft = np.vstack([sft, random.uniform(-widest, widest, size=(1, dimensions))])
            corpus = np.vstack([corpus, sft[-1] + rays(np.array([3.0, 6, 8, 9, 9.2, 12]), dimensions)[0]])
        assert_promise(bandwidth * corpus, bandwidth * sft, bandwidth, max_error)

    holds()


# Parts and wholes.


def test_added_grids_are_the_grid_of_all_points() -> None:
    """Seven shards, one of them empty, against the exact sum over all of them."""
    random = np.random.default_rng(17)
    points = 3 * random.normal(size=(1000, 2))
    step = 1.0 / cells_per_bandwidth(1e-3, 1.0, 2)
    shards = np.split(points, [10, 11, 11, 400, 640, 999])
    total = SparseGrid.of(shards[0], step)
    for shard in shards[1:]:
        total = total + SparseGrid.of(shard, step)
    field = Field.of(total, 1.0, Window.around([total], 1.0))
    assert_kept(field.at(points), np.exp(log_density(points, points, 1.0)), 1e-3)


@pytest.mark.parametrize("dimensions", [1, 2, 3])
def test_an_estimate_does_not_depend_on_its_neighbours_in_the_call(dimensions: int) -> None:
    """In the window and outside it, to the last bit: shards are cut differently on other days."""
    random = np.random.default_rng(18)
    corpus = 4 * random.normal(size=(100, dimensions))
    field = two_fields(corpus, random.normal(size=(80, dimensions)), 1.0, 1e-2)[1]
    documents = np.vstack([corpus, 3 * corpus[:50], np.full((2, dimensions), 300.0)])
    together = field.at(documents)
    np.testing.assert_array_equal(field.at(documents[::-1])[::-1], together)
    one_by_one = np.concatenate([field.at(row[None]) for row in documents])
    np.testing.assert_array_equal(one_by_one, together)


@pytest.mark.parametrize("dimensions", [1, 2, 3])
def test_no_points_have_no_densities(dimensions: int) -> None:
    field = two_fields(np.zeros((3, dimensions)), np.ones((2, dimensions)), 1.0, 1e-2)[1]
    assert field.at(np.empty((0, dimensions))).shape == (0,)
