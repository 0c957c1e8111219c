"""Several examples in one row of ``max_length`` tokens, so that hardly anything is padded.

Each token has its position in its own example and there is no mask: from positions alone
transformers makes masks in which no example sees another. A mask beside them would undo that.
"""

import inspect
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aitp_tasks.errors import InputError
from aitp_tasks.training.examples import IGNORED

if TYPE_CHECKING:
    import torch
    from datasets import Dataset
    from transformers import PreTrainedModel

#: Examples among which those are looked for that fill a row together.
_TOGETHER = 10_000
#: How attention is computed where positions alone are enough, for any number of rows.
_ATTENTIONS = ("sdpa", "eager")
#: Of each of two examples that are looked at; how much less of one the other may see than if they were one.
_PROBE_TOKENS, _PROBE_SHARE = 16, 0.1


def pack(examples: Path, target: Path, max_length: int, seed: int) -> int:
    """Write rows of whole examples; how many.

    Args:
        examples: as ``examples.write`` leaves them, none longer than ``max_length``.
        target: is written: an Arrow stream with each row's ``seq_lengths`` beside its tokens.
        max_length: of a row, in tokens.
        seed: of the order in which examples come to a row, so that none holds neighbours only.
    """
    from datasets import Dataset, disable_progress_bars
    from trl.data_utils import pack_dataset

    disable_progress_bars()
    shuffled = Dataset.from_file(str(examples)).shuffle(seed=seed, keep_in_memory=True)
    packed = pack_dataset(
        shuffled, max_length, "bfd", {"batch_size": _TOGETHER, "cache_file_name": str(target)}
    )
    return len(packed)


def filled(packs: "Dataset", multiple: int) -> "Dataset":
    """The same with empty rows at its end: ranks that lack a row would be given one for the second time."""
    from datasets import Dataset, concatenate_datasets

    lacking = -len(packs) % multiple
    if not lacking:
        return packs
    empty: dict[str, Any] = {name: [[]] * lacking for name in packs.column_names}
    return concatenate_datasets([packs, Dataset.from_dict(empty, packs.features)])


def collate(packs: Sequence[Mapping[str, Sequence[int]]]) -> "dict[str, torch.Tensor]":
    """A batch of rows, with the number of its places that hold nothing as ``padding``."""
    import torch

    length = max(1, *(len(pack["input_ids"]) for pack in packs))
    shape = len(packs), length
    input_ids, positions = torch.zeros(shape, dtype=torch.long), torch.zeros(shape, dtype=torch.long)
    labels = torch.full(shape, IGNORED)
    for row, pack in enumerate(packs):
        used = len(pack["input_ids"])
        input_ids[row, :used] = torch.tensor(pack["input_ids"], dtype=torch.long)
        labels[row, :used] = torch.tensor(pack["labels"], dtype=torch.long)
        # What holds nothing is an example of its own.
        lengths = [*pack["seq_lengths"], length - used]
        positions[row] = torch.cat([torch.arange(one) for one in lengths])
    # Else an example's last token would be taught to foretell the next one.
    labels[positions == 0] = IGNORED
    padding = input_ids.numel() - sum(len(pack["input_ids"]) for pack in packs)
    return {
        "input_ids": input_ids,
        "labels": labels,
        "position_ids": positions,
        "padding": torch.tensor(padding),
    }


def require_positions(model: "PreTrainedModel", label: str) -> None:
    """Make sure that a model is told positions and goes by nothing else; its weights need not be there.

    Raises:
        InputError: it is not.
    """
    attention = model.config._attn_implementation
    if "position_ids" not in inspect.signature(model.forward).parameters:
        reason = f"{type(model).__name__} takes no positions"
    elif getattr(model, "_is_stateful", False):
        reason = f"{type(model).__name__} has layers whose state goes on from one example to the next"
    elif attention not in _ATTENTIONS:
        reason = f"it computes attention by {attention}, and not by one of {', '.join(_ATTENTIONS)}"
    else:
        return
    raise _not_packable(label, reason)


def require_separate(model: Any, vocabulary: int, device: "torch.device", label: str) -> None:
    """Make sure that no example sees another, by the model's own logits; all ranks together.

    A second example behind two different first ones: what of it changes, beside what would
    change if it were the end of the first.

    Args:
        model: a module, or DeepSpeed's engine around it.
        vocabulary: number of tokens.
        device: of the model.
        label: of the model, for the message.

    Raises:
        InputError: an example sees the one before it.
    """
    import torch

    drawn = torch.randint(vocabulary, (3, _PROBE_TOKENS), generator=torch.Generator().manual_seed(0))
    rows = [torch.cat([first, drawn[2]]).tolist() for first in (drawn[0], drawn[1])]
    apart, joined = [_PROBE_TOKENS] * 2, [2 * _PROBE_TOKENS]
    batch = collate(
        [
            {"input_ids": row, "labels": row, "seq_lengths": lengths}
            for lengths in (apart, joined)
            for row in rows
        ]
    )
    inputs = {name: batch[name].to(device) for name in ("input_ids", "position_ids")}
    model.eval()
    with torch.no_grad():
        logits = model(**inputs, use_cache=False).logits[:, _PROBE_TOKENS:].float()
    model.train()
    seen, whole = ((logits[first] - logits[first + 1]).square().mean().sqrt().item() for first in (0, 2))
    if not seen <= whole * _PROBE_SHARE:
        raise _not_packable(
            label,
            f"its logits change by {seen:.2g} with the example before, and by {whole:.2g} where both are one",
        )


def _not_packable(label: str, reason: str) -> InputError:
    return InputError(
        f"examples of one row would see each other in {label}: {reason}: set finetune.packing=false"
    )
