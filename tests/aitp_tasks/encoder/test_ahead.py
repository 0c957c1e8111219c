"""Reading ahead in a thread: the same items, the same errors, and an end."""

import threading
from collections.abc import Iterator

import pytest

from aitp_tasks.encoder.ahead import ahead


def test_items_come_in_order() -> None:
    with ahead(iter(range(50)), 2) as items:
        assert list(items) == list(range(50))


def test_an_error_is_raised_where_its_item_would_be() -> None:
    def source() -> Iterator[int]:
        yield 1
        raise ValueError("row 2")

    with ahead(source(), 2) as items:
        assert next(items) == 1
        with pytest.raises(ValueError, match="row 2"):
            next(items)


def test_leaving_early_ends_the_thread() -> None:
    def endless() -> Iterator[int]:
        while True:
            yield 1

    with ahead(endless(), 1) as items:
        next(items)
    assert not [thread for thread in threading.enumerate() if thread.name == "ahead"]
