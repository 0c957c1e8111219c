"""What memory a training takes on each GPU, from the model's configuration alone.

Model states by arithmetic: in bfloat16 the weights and their gradients, in float32 a copy of
the weights and Adam's two moments, each whole or shared out among the ranks as the ZeRO
stage has it; of LoRA's base the weights alone. The rest is an estimate: what one forward pass
of the longest examples keeps for the backward one, DeepSpeed's buckets, and the device's own
context.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from aitp_tasks.config import Finetune, Offload
from aitp_tasks.errors import InputError
from aitp_tasks.machine import base_model, devices
from aitp_tasks.training import lora

log = logging.getLogger(__name__)

_GIGABYTE = 1e9
_WEIGHT_BYTES, _GRADIENT_BYTES = 2, 2
#: 4 bits, a scale of 8 bits for 64 weights, and one of 32 for 256 of those.
_QUANTISED_BYTES = (4 + 8 / 64 + 32 / (64 * 256)) / 8
#: The copy in float32 and two moments.
_OPTIMISER_BYTES = 12
#: DeepSpeed's bucket holds up to so many gradients on their way; under ZeRO 3 so many weights are whole.
_BUCKET_ELEMENTS, _LIVE_ELEMENTS = 500_000_000, 1_000_000_000
#: What CUDA, NCCL and libraries take before anything is loaded.
_CONTEXT_BYTES = 1_200_000_000
#: Of a token in one layer, in multiples of the hidden and the inner size, at two bytes: what attention in
#: tiles, the norms and the gated MLP keep for the backward pass.
_HIDDEN_KEPT, _INNER_KEPT = 8, 3
#: Of a logit: in bfloat16, and its softmax and gradient in float32.
_LOGIT_BYTES = 10
#: Room that is left for fragments.
_USABLE = 0.95


@dataclass(frozen=True)
class Shape:
    """What counts of a model."""

    parameters: int
    #: Of which so many are trained; with LoRA they are others, beside the model's own.
    trained: int
    #: Of the model's, so many are in 4 bits.
    quantised: int
    layers: int
    hidden: int
    inner: int
    vocabulary: int


@dataclass(frozen=True)
class Need:
    """Bytes on each GPU."""

    states: int
    activations: int
    others: int
    #: In the machine's memory, for each GPU.
    offloaded: int

    @property
    def total(self) -> int:
        """All of it that is on the GPU."""
        return self.states + self.activations + self.others


def shape(settings: Finetune) -> Shape:
    """The model's, with its parameters counted and none made.

    Raises:
        InputError: the model's configuration cannot be read, or LoRA's layers are none of its.
        TransientError: the hub does not answer.
    """
    model = base_model.outline(settings)
    text = model.config.get_text_config()
    hidden = int(text.hidden_size)
    # Tied ones once.
    parameters = sum(parameter.numel() for parameter in model.parameters())
    return Shape(
        parameters=parameters,
        trained=lora.trained(model, settings.lora) if settings.lora else parameters,
        quantised=lora.quantised(model, settings.lora) if settings.lora else 0,
        layers=int(text.num_hidden_layers),
        hidden=hidden,
        inner=int(getattr(text, "intermediate_size", None) or 4 * hidden),
        vocabulary=int(text.vocab_size),
    )


def need(of: Shape, settings: Finetune) -> Need:
    """What the training takes on each GPU."""
    ranks, stage = settings.ranks, settings.zero_stage
    weights = of.parameters + (of.trained if settings.lora else 0)
    weight_bytes = (weights - of.quantised) * _WEIGHT_BYTES + of.quantised * _QUANTISED_BYTES
    weight_bytes /= ranks if stage >= 3 else 1
    trained_bytes = of.trained * (
        _GRADIENT_BYTES / (ranks if stage >= 2 else 1) + _OPTIMISER_BYTES / (ranks if stage >= 1 else 1)
    )
    # The optimiser takes the gradients along.
    offloaded = (trained_bytes if settings.offload is not Offload.NONE else 0) + (
        weight_bytes if settings.offload is Offload.PARAMETERS else 0
    )
    tokens = settings.batch_size * settings.max_length
    one_layer = tokens * 2 * (_HIDDEN_KEPT * of.hidden + _INNER_KEPT * of.inner)
    checkpointed = settings.gradient_checkpointing is not False
    logits = tokens * of.vocabulary * _LOGIT_BYTES
    # The logits are let go of before the first layer is computed a second time.
    checkpoints = tokens * 2 * of.hidden * of.layers + max(one_layer, logits)
    buffers = _GRADIENT_BYTES * min(_BUCKET_ELEMENTS, of.trained)
    if stage >= 3:
        buffers += _WEIGHT_BYTES * min(_LIVE_ELEMENTS, of.parameters)
    return Need(
        states=round(weight_bytes + trained_bytes - offloaded),
        activations=checkpoints if checkpointed else one_layer * of.layers + logits,
        others=buffers + _CONTEXT_BYTES,
        offloaded=round(offloaded),
    )


def require(settings: Finetune, what: str = "the fine-tune") -> None:
    """Tell what the training takes, and make sure that the GPUs that are visible here can hold it.

    Not checked where there are none, nor for a model whose files are in the storage: its configuration
    is not on this machine yet.

    Args:
        settings: of the training.
        what: it is, for people.

    Raises:
        InputError: they cannot; the message says what would help.
        TransientError: the hub does not answer.
    """
    if settings.stored:
        log.info("plan: the training's memory is not estimated: %s is not on this machine", settings.label)
        return
    of = shape(settings)
    needed = need(of, settings)
    log.info(
        "plan: %s of %s (%.2f billion parameters) takes about %.0f GB on each of %d GPUs "
        "(states=%.1f activations=%.1f others=%.1f)",
        *(what, settings.label, of.parameters / 1e9, needed.total / _GIGABYTE, settings.ranks),
        *(part / _GIGABYTE for part in (needed.states, needed.activations, needed.others)),
    )
    if needed.offloaded:
        log.info(
            "plan: offload=%s takes about %.0f GB of each machine's memory",
            *(settings.offload.value, needed.offloaded * settings.processes / _GIGABYTE),
        )
    visible = devices.visible()
    found = devices.usable(settings.processes, visible)
    memories = sorted((gpu.memory for gpu in found if gpu.memory), reverse=True)
    if not memories:
        return
    smallest = memories[: settings.processes][-1]
    together = max(1, len(devices.usable(2, visible)))
    if needed.total > smallest * _USABLE:
        raise InputError(
            f"{what} of {settings.label} takes about {needed.total / _GIGABYTE:.0f} GB on each of "
            f"{settings.ranks} GPUs, which have {smallest / _GIGABYTE:.0f} GB: "
            f"{remedy(of, settings, round(smallest * _USABLE), together)}"
        )


def fits(of: Shape, settings: Finetune, gpu_memory: int) -> bool:
    """Whether ``require`` would let the training begin on GPUs of so many bytes."""
    return _fits(of, settings, round(gpu_memory * _USABLE))


def remedy(of: Shape, settings: Finetune, room: int, gpus: int) -> str:
    """What would make it fit, the least change first."""
    least = {"zero_stage": 3, "batch_size": 1, "gradient_checkpointing": True}
    tries: list[dict[str, Any]] = [
        {"gradient_checkpointing": True},
        {"gradient_checkpointing": True, "batch_size": 1},
        *({"zero_stage": stage} for stage in range(settings.zero_stage + 1, 4)),
        least,
        {"processes": gpus, "zero_stage": max(settings.zero_stage, 2)},
        {"processes": gpus, **least},
    ]
    if wanted := _first_that_fits(of, settings, tries, room):
        return f"set {wanted}"
    offers = []
    tries = [
        {"offload": Offload.OPTIMIZER, "zero_stage": max(settings.zero_stage, 2)},
        {"offload": Offload.PARAMETERS, **least},
    ]
    if wanted := _first_that_fits(of, settings, tries, room):
        offers.append(f"set {wanted}, which is slower")
    best = settings.model_copy(update=least | {"nodes": 1})
    fitting = (
        ranks for ranks in range(1, 4097) if _fits(of, best.model_copy(update={"processes": ranks}), room)
    )
    if (ranks := next(fitting, None)) is not None:
        offers.append(f"take {ranks} such GPUs with finetune.zero_stage=3 and batch_size=1")
    return ", or ".join([*(offers or ["lower finetune.max_length"]), "take a smaller model"])


def _first_that_fits(of: Shape, settings: Finetune, tries: Sequence[dict[str, Any]], room: int) -> str:
    for changes in tries:
        changed = {name: value for name, value in changes.items() if getattr(settings, name) != value}
        if changed and _fits(of, settings.model_copy(update=changed), room):
            return " and ".join(f"finetune.{name}={str(value).lower()}" for name, value in changed.items())
    return ""


def _fits(of: Shape, settings: Finetune, room: int) -> bool:
    return need(of, settings).total <= room
