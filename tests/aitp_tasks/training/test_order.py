"""The order of examples: each once an epoch, by seed and epoch alone."""

import random

import torch
from accelerate.data_loader import SeedableRandomSampler

from aitp_tasks.training.order import Order


def _epoch(order: Order, number: int) -> list[int]:
    order.set_epoch(number)
    return list(order)


def test_each_epoch_has_an_order_of_its_own_and_draws_from_nobody_else() -> None:
    torch.manual_seed(0)
    one = [_epoch(Order(50, seed=3), number) for number in range(3)]
    torch.manual_seed(1)
    before = torch.get_rng_state()
    assert [_epoch(Order(50, seed=3), number) for number in range(3)] == one
    assert torch.equal(before, torch.get_rng_state())
    assert len({tuple(order) for order in one}) == 3
    assert all(sorted(order) == list(range(50)) for order in one)
    assert _epoch(Order(50, seed=4), 0) != one[0]


def test_the_order_is_accelerates() -> None:
    theirs = SeedableRandomSampler(range(50), generator=torch.Generator(), data_seed=3)
    for number in range(3):
        theirs.set_epoch(number)
        assert _epoch(Order(50, seed=3), number) == list(theirs)


def test_empty_rows_come_last_and_change_nothing_before_them() -> None:
    assert len(Order(10, 2)) == 12
    assert _epoch(Order(10, 2, seed=1), 1) == [*_epoch(Order(10, seed=1), 1), 10, 11]


def test_examples_of_similar_length_come_together() -> None:
    drawn = random.Random(0)
    lengths = [drawn.randrange(1, 1000) for _ in range(400)]

    def padded(order: Order) -> float:
        taken = _epoch(order, 0)
        assert sorted(taken) == list(range(400))
        batches = [[lengths[place] for place in taken[first : first + 8]] for first in range(0, 400, 8)]
        return 1 - sum(lengths) / sum(max(batch) * len(batch) for batch in batches)

    assert padded(Order(400)) > 0.3
    grouped = Order(400, lengths=lengths, together=8)
    assert padded(grouped) < 0.15
    assert _epoch(grouped, 1) != _epoch(grouped, 0)
