"""What holds an evaluation item, by cases of somebody who had not read the code."""

import pytest

from aitp_tasks.inputs.benchmarks import Item
from aitp_tasks.selection.contamination.index import Index
from tests.aitp_tasks.selection.contamination.contamination_cases import CONTAMINATED, Contaminated


@pytest.mark.parametrize("case", CONTAMINATED, ids=lambda case: case.name)
def test_what_a_pair_holds(case: Contaminated) -> None:
    items = [Item(one["question"], one["answer"]) for one in case.evaluation]
    (hits,) = Index(items, case.n).hits([[case.pair["question"], case.pair["answer"]]])
    assert bool(hits) is case.hit
    if case.share_of_item is not None:
        most = max((hit.share_of_item for hit in hits), default=0.0)
        assert most == pytest.approx(case.share_of_item)
