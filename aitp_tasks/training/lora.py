"""LoRA: what is trained beside a base that stays as it is, and how both become one model again.

The adapter is peft's. It is merged by hand: peft would merge into the weights that were
trained with, which under DeepSpeed are cut up, and rounded where the base is more precise.
Here the product is added in float32 to the base's own weights, as they lie in its files, and
the sum is rounded once to their dtype.
"""

import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aitp_tasks.config import Finetune, Lora
from aitp_tasks.errors import InputError
from aitp_tasks.machine import base_model
from aitp_tasks.training import checkpoint

if TYPE_CHECKING:
    import torch
    from peft import PeftModel
    from transformers import PreTrainedModel

#: The adapter's folder in the checkpoint.
FOLDER = "adapter"
_ADAPTER = "default"
_BITSANDBYTES = "bitsandbytes>=0.50,<0.51"
#: What peft puts before a model's own names.
_PREFIX = "base_model.model."


def require(settings: Finetune) -> None:
    """Make sure that the model has the layers that are to be trained; it is on this machine or on the hub.

    Raises:
        InputError: it has not, and the message names those that there are; or there is no bitsandbytes.
        TransientError: the hub does not answer.
    """
    require_library(settings)
    if settings.lora is not None:
        targets(base_model.outline(settings), settings.lora)


def require_library(settings: Finetune) -> None:
    """Make sure that weights can be quantised where they are to be.

    Raises:
        InputError: bitsandbytes is not installed.
    """
    if settings.lora is not None and settings.lora.quantised and find_spec("bitsandbytes") is None:
        raise InputError(
            f"finetune.lora.quantised needs bitsandbytes, which is not installed in {sys.prefix}: run "
            f"{sys.executable} -m pip install '{_BITSANDBYTES}', or take quantised out"
        )


def targets(model: "PreTrainedModel", settings: Lora) -> list[str]:
    """Names of the layers to train, as peft takes them: the last parts of their paths.

    Raises:
        InputError: the model has no layer of such a name.
    """
    paths = [path for path, _ in _linear(model)]
    names = sorted({path.rpartition(".")[2] for path in paths})
    if settings.target_modules is None:
        return names
    for target in settings.target_modules:
        if not any(_is(path, target) for path in paths):
            raise InputError(
                f"finetune.lora.target_modules names {target}, but no linear layer of the model is called "
                f"so: there are {', '.join(names)}"
            )
    return sorted(set(settings.target_modules))


def trained(model: "PreTrainedModel", settings: Lora) -> int:
    """How many parameters are trained."""
    wanted = targets(model, settings)
    return sum(
        settings.rank * sum(layer.weight.shape)
        for path, layer in _linear(model)
        if any(_is(path, target) for target in wanted)
    )


def quantised(model: "PreTrainedModel", settings: Lora) -> int:
    """How many of the base's weights are in 4 bits."""
    return sum(layer.weight.numel() for _, layer in _linear(model)) if settings.quantised else 0


def attach(model: "PreTrainedModel", settings: Finetune, base: Path) -> "PeftModel":
    """The model with an adapter, of which nothing else is trained.

    Raises:
        InputError: the model has no such layers, or has its weights in a form that nothing can be added to.
    """
    from peft import LoraConfig, get_peft_model
    from transformers import set_seed
    from transformers.pytorch_utils import Conv1D

    assert settings.lora is not None
    wanted = targets(model, settings.lora)
    kinds = {type(layer) for path, layer in _linear(model) if any(_is(path, target) for target in wanted)}
    config = LoraConfig(
        task_type="CAUSAL_LM",
        r=settings.lora.rank,
        lora_alpha=settings.lora.alpha,
        lora_dropout=settings.lora.dropout,
        target_modules=wanted,
        # GPT-2's layers have their weights the other way round.
        fan_in_fan_out=kinds == {Conv1D},
    )
    # The same on all ranks, and each time.
    set_seed(settings.seed)
    # In the base's dtype, as DeepSpeed would have it anyway: the optimiser has them in float32.
    made = get_peft_model(model, config, autocast_adapter_dtype=False)
    _require_mergeable(made, base)
    return made


def merged(model: "PeftModel", weights: Iterable[tuple[str, "torch.Tensor"]], base: Path) -> "Adapted":
    """The adapter as it was trained, and the base's weights with it, by their names in the base's files.

    Args:
        model: as ``attach`` has made it.
        weights: its trained parameters, in float32.
        base: the base model's folder.
    """
    adapter = {name.replace(f".{_ADAPTER}.", "."): tensor.to("cpu", copy=True) for name, tensor in weights}
    places, changed = checkpoint.places(base), {}
    for path, layer in _adapted(model):
        narrow, wide = (adapter[f"{_PREFIX}{path}.lora_{part}.weight"] for part in "AB")
        product = (wide @ narrow) * layer.scaling[_ADAPTER]
        name = _stored_name(model, path, product.shape)
        before = checkpoint.stored(base, name, places[name].file)
        changed[name] = (before.float() + (product.T if layer.fan_in_fan_out else product)).to(before.dtype)
    return Adapted(adapter, changed)


class Adapted:
    """What came of a training with an adapter."""

    def __init__(self, adapter: "dict[str, torch.Tensor]", changed: "dict[str, torch.Tensor]") -> None:
        self.adapter = adapter
        #: Tensors of the merged model that are not the base's own.
        self.changed = changed

    def write(self, folder: Path, model: "PeftModel", base: str) -> None:
        """Leave the adapter as peft and vLLM read it.

        Args:
            folder: is made.
            model: as ``attach`` has made it.
            base: how the adapter calls what it belongs to.
        """
        from safetensors.torch import save_file

        folder.mkdir()
        tensors = {name: tensor.contiguous() for name, tensor in self.adapter.items()}
        save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})
        config = model.peft_config[_ADAPTER].to_dict() | {
            "base_model_name_or_path": base,
            "inference_mode": True,
        }
        text = json.dumps(config, indent=2, sort_keys=True, default=sorted)
        (folder / "adapter_config.json").write_text(text + "\n", encoding="utf-8")


def _linear(model: "PreTrainedModel") -> Iterator[tuple[str, Any]]:
    """The layers that may be trained, by their paths."""
    import torch
    from transformers.pytorch_utils import Conv1D

    logits = model.get_output_embeddings()
    for path, layer in model.named_modules():
        if isinstance(layer, torch.nn.Linear | Conv1D) and layer is not logits:
            yield path, layer


def _is(path: str, target: str) -> bool:
    """Whether a layer is what peft takes a name for."""
    return path == target or path.endswith(f".{target}")


def _adapted(model: "PeftModel") -> Iterator[tuple[str, Any]]:
    from peft.tuners.lora import LoraLayer

    for path, layer in model.get_base_model().named_modules():
        if isinstance(layer, LoraLayer):
            yield path, layer


def _stored_name(model: "PeftModel", path: str, shape: Sequence[int]) -> str:
    """How the base's files call the weight of a layer."""
    import torch
    from transformers.core_model_loading import revert_weight_conversion

    weight = torch.empty(tuple(shape), device="meta")
    names = list(revert_weight_conversion(model.get_base_model(), {f"{path}.weight": weight}))
    return names[0] if len(names) == 1 else ""


def _require_mergeable(model: "PeftModel", base: Path) -> None:
    places = checkpoint.places(base)
    if not places:
        raise InputError(
            f"finetune.lora needs the base model in safetensors, and {base.name} has none: load it with "
            "transformers and save it with save_pretrained"
        )
    for path, layer in _adapted(model):
        sizes = (layer.out_features, layer.in_features)
        shape = sizes[::-1] if layer.fan_in_fan_out else sizes
        place = places.get(_stored_name(model, path, shape))
        if place is None or place.shape != shape:
            raise InputError(
                f"finetune.lora cannot train {path}: the base's files have its weight in another form; "
                "name other layers in finetune.lora.target_modules, or train without finetune.lora"
            )
