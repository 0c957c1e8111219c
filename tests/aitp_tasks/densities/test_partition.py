"""Regions hold as many points each, whatever their order, and every other point lies in one of them."""

import json
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aitp_tasks.densities.grid import Points
from aitp_tasks.densities.partition import Partition

RANDOM = np.random.default_rng(3)


def plain(points: list[list[float]], regions: int) -> list[list[list[float]]]:
    """The points of each region, cut in plain Python."""
    if regions == 1:
        return [points]
    low = regions // 2
    if not points:
        return plain([], low) + plain([], regions - low)
    columns = [sorted(point[axis] for point in points) for axis in range(len(points[0]))]
    inner = [column[3 * (len(column) - 1) // 4] - column[(len(column) - 1) // 4] for column in columns]
    axis = inner.index(max(inner))
    at = columns[axis][len(points) * low // regions]
    return plain([point for point in points if point[axis] < at], low) + plain(
        [point for point in points if point[axis] >= at], regions - low
    )


@pytest.mark.parametrize("axes", [1, 2, 3])
@pytest.mark.parametrize("regions", [1, 2, 3, 7, 8, 64])
def test_regions_are_those_of_a_plain_program_and_hold_as_many_points(axes: int, regions: int) -> None:
    points = RANDOM.normal(size=(1000, axes)) * np.arange(1, axes + 1)
    partition = Partition.of(points, regions)
    found = partition.at(points)
    assert partition.regions == regions
    for number, own in enumerate(plain(points.tolist(), regions)):
        assert sorted(points[found == number].tolist()) == sorted(own)
    counts = np.bincount(found, minlength=regions)
    assert counts.max() - counts.min() <= np.log2(regions) + 1


@given(st.integers(0, 2**32 - 1))
def test_the_order_of_the_points_cuts_nothing_otherwise(seed: int) -> None:
    points = RANDOM.normal(size=(100, 2))
    assert Partition.of(np.random.default_rng(seed).permutation(points), 8) == Partition.of(points, 8)


@pytest.mark.parametrize(
    "points", [np.zeros((1, 2)), np.zeros((50, 2)), np.array([[0.0, 1.0]] * 9 + [[5.0, 1.0]])]
)
def test_equal_points_lie_in_one_region(points: Points) -> None:
    partition = Partition.of(points, 8)
    found = partition.at(points)
    assert len(Counter(map(tuple, points.tolist()))) >= len(set(found.tolist()))
    for point in np.unique(points, axis=0):
        assert len(set(partition.at(np.repeat(point[None], 3, axis=0)).tolist())) == 1


def test_every_point_lies_in_a_region_however_far_it_is() -> None:
    partition = Partition.of(RANDOM.normal(size=(100, 2)), 8)
    far = np.array([[1e300, -1e300], [-1e300, 1e300], [np.inf, np.inf], [-np.inf, -np.inf]])
    assert set(partition.at(far).tolist()) <= set(range(8))
    assert partition.at(np.empty((0, 2))).tolist() == []


def test_what_json_holds_of_the_cuts_is_the_same_partition() -> None:
    points = RANDOM.normal(size=(100, 2)) * 1e-7
    partition = Partition.of(points, 5)
    assert Partition.told(json.loads(json.dumps(partition.cuts))) == partition


def test_boxes_are_where_the_points_of_each_region_lie() -> None:
    points = RANDOM.normal(size=(500, 3))
    partition = Partition.of(points, 7)
    found = partition.at(points)
    for region, box in enumerate(partition.boxes()):
        low, high = np.array(box).T
        inside = ((points >= low) & (points < high)).all(axis=1)
        assert (inside == (found == region)).all()
