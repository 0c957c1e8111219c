"""The loss on held-out examples amid a training: mean nats per learnt token, of all ranks together.

Sums are added, not means of batches: neither how many examples a batch has, nor its padding,
nor how many ranks there are changes the loss. Also where rows are packed, each example is read
in a row of its own. Nothing is drawn at random.
"""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from aitp_tasks.training.examples import IGNORED

if TYPE_CHECKING:
    import torch
    from datasets import Dataset


def loss(model: Any, examples: "Dataset", batch_size: int, device: "torch.device") -> float:
    """Measure it; all ranks ask together.

    Args:
        model: a module, or DeepSpeed's engine around it; trained on afterwards.
        examples: as ``examples.write`` leaves them, at least one.
        batch_size: examples of a rank in one forward pass.
        device: of the model.
    """
    import torch
    import torch.distributed as dist

    batches = _batches(examples, batch_size)
    rank, ranks = dist.get_rank(), dist.get_world_size()
    total = torch.zeros(2, dtype=torch.float64, device=device)
    model.eval()
    with torch.no_grad():
        for first in range(0, len(batches), ranks):
            # Under ZeRO 3 all ranks read as often: one that lacks a batch reads another and counts nothing.
            own = first + rank < len(batches)
            found = _sum(model, [examples[row] for row in batches[first + rank if own else 0]], device)
            total += found if own else 0
    model.train()
    dist.all_reduce(total)
    return float(total[0] / total[1])


def _batches(examples: "Dataset", batch_size: int) -> list[list[int]]:
    """Rows of similar lengths; the longest first, so that what does not fit is known at once."""
    import pyarrow.compute as pc

    lengths = pc.list_value_length(examples.data["input_ids"]).to_pylist()
    order = sorted(range(len(lengths)), key=lambda row: -lengths[row])
    return [
        order[number * batch_size : (number + 1) * batch_size]
        for number in range(math.ceil(len(order) / batch_size))
    ]


def _sum(
    model: Any, examples: Sequence[Mapping[str, Sequence[int]]], device: "torch.device"
) -> "torch.Tensor":
    """The losses of a batch's learnt tokens, added, and how many these are: float64 (2,)."""
    import torch

    shape = len(examples), max(len(example["input_ids"]) for example in examples)
    read, mask = torch.zeros(shape, dtype=torch.long), torch.zeros(shape, dtype=torch.long)
    labels = torch.full(shape, IGNORED)
    for row, example in enumerate(examples):
        used = len(example["input_ids"])
        read[row, :used] = torch.tensor(example["input_ids"])
        labels[row, :used] = torch.tensor(example["labels"])
        mask[row, :used] = 1
    logits = model(input_ids=read.to(device), attention_mask=mask.to(device), use_cache=False).logits[:, :-1]
    wanted = labels[:, 1:].to(device)
    kept = wanted != IGNORED
    # Only what is learnt is made precise: a vocabulary is wide.
    each = torch.nn.functional.cross_entropy(logits[kept].float(), wanted[kept], reduction="none")
    return torch.stack([each.double().sum(), kept.sum().double()])
