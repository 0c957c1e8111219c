"""Masks that are taken as they are: a forward pass asks the device for none of their values.

Before its first layer, transformers looks whether a mask can be left out: the host
waits for all that the device has been given, and the device then waits for the host.
Who formed the batch knows it: one of equal lengths comes without a mask, and a mask that
comes masks something. What a model does itself remains: MPNet sends the buckets of its
positions each time.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from transformers import masking_utils


@contextmanager
def masks_as_they_are() -> Iterator[None]:
    """While this lasts, no transformer of this process looks into a mask.

    For torch's own attention and for that which models write out; not for others.
    """
    functions = masking_utils.ALL_MASK_ATTENTION_FUNCTIONS
    for name, function in _FUNCTIONS.items():
        functions[name] = function
    try:
        yield
    finally:
        for name in _FUNCTIONS:
            del functions[name]


def _allowed(*, attention_mask: torch.Tensor | None = None, **wanted: Any) -> torch.Tensor | None:
    """Whether each token attends to each, bool (n, 1, q, k); None where all do."""
    if attention_mask is not None:
        wanted |= {"allow_is_causal_skip": False, "allow_is_bidirectional_skip": False}
    found: torch.Tensor | None = masking_utils.sdpa_mask(attention_mask=attention_mask, **wanted)
    return found


def _added(*, dtype: torch.dtype = torch.float32, **wanted: Any) -> torch.Tensor | None:
    """The same as what is added to the scores."""
    found = _allowed(**wanted | {"allow_is_causal_skip": False})
    if found is None:
        return None
    return torch.zeros(found.shape, dtype=dtype, device=found.device).masked_fill_(
        ~found, torch.finfo(dtype).min
    )


_FUNCTIONS = {"sdpa": _allowed, "eager": _added}
