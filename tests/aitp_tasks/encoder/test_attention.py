"""Attention that looks at no mask: how often a forward pass asks the device, and what it gives."""

import collections
import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from torch.utils._python_dispatch import TorchDispatchMode

from aitp_tasks.encoder.attention import masks_as_they_are

pytestmark = [pytest.mark.slow, pytest.mark.side_by_side]

#: Values that the host reads off a tensor; on a GPU it waits for the device at each.
LOOKS = {"aten::_local_scalar_dense", "aten::is_nonzero", "aten::item", "aten::equal", "aten::nonzero",
         "aten::masked_select", "aten::unique_dim", "aten::_unique2"}  # fmt: skip
SMALL: dict[str, Any] = {
    "vocab_size": 50,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "max_position_embeddings": 80,
    "pad_token_id": 1,
}
ENCODERS: dict[str, Callable[[], Any]] = {
    "bert": lambda: transformers.BertModel(transformers.BertConfig(**SMALL)),
    "xlm-roberta": lambda: transformers.XLMRobertaModel(transformers.XLMRobertaConfig(**SMALL)),
    "mpnet": lambda: transformers.MPNetModel(transformers.MPNetConfig(**SMALL)),
    "modernbert": lambda: transformers.ModernBertModel(transformers.ModernBertConfig(**SMALL)),
    "nomic-bert": lambda: transformers.NomicBertModel(transformers.NomicBertConfig(**SMALL)),
    "bert-eager": lambda: transformers.BertModel(
        transformers.BertConfig(**SMALL, attn_implementation="eager")
    ),
    "qwen3": lambda: transformers.Qwen3Model(
        transformers.Qwen3Config(**SMALL, num_key_value_heads=2, head_dim=8)
    ),
}
Ids = tuple[torch.Tensor, torch.Tensor]


class Counted(TorchDispatchMode):
    """Counts what the host reads off tensors."""

    def __init__(self) -> None:
        super().__init__()
        self.looks: collections.Counter[str] = collections.Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func._schema.name
        self.looks[name] += name in LOOKS
        return func(*args, **(kwargs or {}))


def batch(*lengths: int) -> Ids:
    """Token ids and mask of sequences of these lengths."""
    random = np.random.default_rng(0)
    ids = torch.ones((len(lengths), max(lengths)), dtype=torch.int64)
    mask = torch.zeros_like(ids)
    for row, length in enumerate(lengths):
        ids[row, :length] = torch.from_numpy(random.integers(3, 50, length))
        mask[row, :length] = 1
    return ids, mask


def pooled(model: Any, ids: torch.Tensor, mask: torch.Tensor, given: torch.Tensor | None) -> torch.Tensor:
    """Means over the tokens; ``given`` is the mask that the model gets."""
    with torch.inference_mode():
        found = model(input_ids=ids, attention_mask=given).last_hidden_state
        weights = mask.unsqueeze(-1)
        means: torch.Tensor = (found * weights).sum(1) / weights.sum(1)
    return means


@pytest.fixture(scope="module", params=ENCODERS)
def model(request: pytest.FixtureRequest) -> Any:
    torch.manual_seed(0)
    return ENCODERS[request.param]().eval()


def looks(model: Any, ids: torch.Tensor, mask: torch.Tensor, given: torch.Tensor | None) -> int:
    with Counted() as counted:
        pooled(model, ids, mask, given)
    return counted.looks.total()


BATCHES = [(9, 9, 9), (1,), (70, 69, 68), (40, 1), (2, 1, 1)]


def test_vectors_are_those_of_the_library_and_no_forward_pass_looks(model: Any) -> None:
    padded = batch(12, 11, 3)
    before = [pooled(model, *batch(*lengths), batch(*lengths)[1]) for lengths in BATCHES]
    # The library's own way looks: that there are none below says something.
    assert looks(model, *padded, padded[1]) > 0
    with masks_as_they_are():
        for lengths, wanted in zip(BATCHES, before, strict=True):
            ids, mask = batch(*lengths)
            assert torch.allclose(pooled(model, ids, mask, mask), wanted, atol=1e-5)
            assert looks(model, ids, mask, mask) == 0
            if len(set(lengths)) == 1:
                assert torch.allclose(pooled(model, ids, mask, None), wanted, atol=1e-5)
                assert looks(model, ids, mask, None) == 0
    assert looks(model, *padded, padded[1]) > 0


def test_without_values_a_forward_pass_still_runs(model: Any) -> None:
    """On a device that holds no values, whatever looks for one fails."""
    bare = copy.deepcopy(model).to("meta")
    ids, mask = (tensor.to("meta") for tensor in batch(12, 11, 3))
    with pytest.raises(RuntimeError, match="meta tensors"):
        pooled(bare, ids, mask, mask)
    with masks_as_they_are():
        assert pooled(bare, ids, mask, mask).shape == (3, 32)
        assert pooled(bare, ids, mask, None).shape == (3, 32)


def test_masks_are_looked_at_again_after_an_error(model: Any) -> None:
    with pytest.raises(IndexError), masks_as_they_are():
        pooled(model, torch.full((1, 2), 10**6), torch.ones((1, 2)), None)
    assert looks(model, *batch(12, 3), batch(12, 3)[1]) > 0
