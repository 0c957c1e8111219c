"""The order of examples in each epoch: the same for all ranks, for any number of them, and after a stop."""

from collections.abc import Iterator, Sequence

import torch
from torch.utils.data import Sampler
from transformers.trainer_pt_utils import get_length_grouped_indices


class Order(Sampler[int]):  # type: ignore[misc]
    """A new one each epoch: at random as accelerate has it, or by length.

    transformers' own sampler by length draws from each rank's own random numbers.
    """

    def __init__(
        self,
        count: int,
        empty: int = 0,
        seed: int = 0,
        lengths: Sequence[int] | None = None,
        together: int = 1,
    ) -> None:
        """
        Args:
            count: of examples.
            empty: rows at the end of the data, which stay there.
            seed: of the training.
            lengths: of the examples, where those of similar length shall come together.
            together: how many of these.
        """
        self._count, self._empty, self._seed = count, empty, seed
        self._lengths, self._together = lengths, together
        self._epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Called by accelerate, with the number of the epoch that begins."""
        self._epoch = epoch

    def __len__(self) -> int:
        return self._count + self._empty

    def __iter__(self) -> Iterator[int]:
        drawn = torch.Generator().manual_seed(self._seed + self._epoch)
        if self._lengths is None:
            yield from torch.randperm(self._count, generator=drawn).tolist()
        else:
            yield from get_length_grouped_indices(self._lengths, self._together, generator=drawn)
        yield from range(self._count, len(self))
