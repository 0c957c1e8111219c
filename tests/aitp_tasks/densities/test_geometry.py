"""A geometry: what it refuses, and that storage keeps every bit of it."""

import numpy as np
import pytest

from aitp_tasks.densities.geometry import Geometry
from aitp_tasks.densities.moments import Moments
from aitp_tasks.errors import InputError
from tests.aitp_tasks.conftest import Configure

CORPUS = np.random.default_rng(0).normal(size=(100, 8)).astype(np.float16)


def test_a_rule_needs_points_that_spread(configure: Configure) -> None:
    moments = {"corpus": Moments.of(CORPUS), "sft": Moments.of(np.repeat(CORPUS[:1], 5, axis=0))}
    with pytest.raises(InputError, match="density.bandwidth=scott .* these 5 spread by 0 .*: give a number"):
        Geometry.fit(configure(density={"bandwidth": "scott"}).density, moments)
    assert Geometry.fit(configure().density, moments).bandwidths == {"corpus": 1.0, "sft": 1.0}


def test_storage_keeps_every_bit(configure: Configure) -> None:
    geometry = Geometry.fit(
        configure().density, {"corpus": Moments.of(CORPUS), "sft": Moments.of(CORPUS[:9])}
    )
    again = Geometry.from_bytes(geometry.to_bytes())
    assert again.to_bytes() == geometry.to_bytes()
    assert np.array_equal(again.projections["sft"].axes, geometry.projections["corpus"].axes)
