"""How far criteria agree, counted by hand."""

import numpy as np
import pytest

from aitp_tasks.config import Criterion
from aitp_tasks.selection import agreement

ONE, OTHER, THIRD = Criterion.DENSITY_RATIO, Criterion.SFT_DENSITY, Criterion.GAUSSIAN


def test_what_both_select_is_counted() -> None:
    scores = {
        ONE: np.array([1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0]),
        OTHER: np.array([0.1, 9.0, 0.3, 0.2, 8.0, 7.0, 0.4, 6.0]),
        THIRD: -np.array([1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0]),
    }
    found = agreement.figures(scores, share=0.5)
    assert (found["documents"], found["selected"]) == (8, 4)
    # The first takes 0 1 2 3, the second 0 2 3 6, the third 4 5 6 7.
    assert found["shared"] == {
        "density_ratio": {"sft_density": 0.75, "gaussian": 0.0},
        "sft_density": {"density_ratio": 0.75, "gaussian": 0.25},
        "gaussian": {"density_ratio": 0.0, "sft_density": 0.25},
    }


@pytest.mark.parametrize(
    ("share", "count", "selected"), [(0.0, 8, 1), (1.0, 8, 7), (0.3, 1, 1), (0.25, 8, 2)]
)
def test_some_are_selected_and_some_are_not(share: float, count: int, selected: int) -> None:
    assert agreement.figures({ONE: np.arange(float(count))}, share)["selected"] == selected


def test_equal_scores_agree_and_infinite_ones_are_last() -> None:
    scores = {ONE: np.zeros(4), OTHER: np.array([1.0, 1.0, np.inf, 1.0])}
    assert agreement.figures(scores, 0.5)["shared"]["density_ratio"]["sft_density"] == 1.0
