"""The trained model as its base's twin: the same files, names and dtypes, with other weights.

What may differ beside the weights is the chat template, where another one was trained
with, and ``eos_token_id`` in ``generation_config.json``: the end of a turn, by which the
model has learnt to stop, stands there beside what the base stops at.
"""

import json
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aitp_tasks.training.template import ChatTemplates

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

_SAFETENSORS = ".safetensors"
_INDEX = "model.safetensors.index.json"
#: Weights in one form or another, code that is not run, and what tells of the base alone.
_NOT_COPIED = (
    *(_SAFETENSORS, ".bin", ".pt", ".pth", ".ckpt", ".msgpack", ".h5", ".onnx", ".gguf", ".pkl", ".py"),
    *(".index.json", ".md", ".lock", ".gitattributes", ".gitignore"),
)
#: Of a base whose weights are not safetensors.
_SHARD_SIZE = "5GB"


@dataclass(frozen=True)
class Place:
    """Where the base has a tensor, and as what."""

    file: str
    dtype: "torch.dtype"
    shape: tuple[int, ...]


def collect(
    model: "PreTrainedModel", weights: Iterable[tuple[str, "torch.Tensor"]], base: Path
) -> dict[str, Any]:
    """All weights by their names in the base's files, as precise as the base has them, and the buffers that
    belong to them; on this processor.
    """
    import torch
    from transformers.core_model_loading import revert_weight_conversion

    wide = torch.float32 in {place.dtype for place in places(base).values()}
    dtype = torch.float32 if wide else model.dtype
    collected = {name: tensor.to("cpu", dtype=dtype, copy=True) for name, tensor in weights}
    left_out = {*model.all_tied_weights_keys, *(model._keys_to_ignore_on_save or ())}
    for name, tensor in model.state_dict().items():
        if name not in collected and name not in left_out:
            collected[name] = tensor.cpu()
    reverted: dict[str, Any] = revert_weight_conversion(model, collected)
    return reverted


def write(
    folder: Path, base: Path, model: "PreTrainedModel", tensors: dict[str, Any], templates: ChatTemplates
) -> None:
    """Write the checkpoint.

    Args:
        folder: is made.
        base: the base model's folder.
        model: as it was loaded from there.
        tensors: its weights as they are to be stored; what is not among them is the base's own.
        templates: what was trained with.
    """
    folder.mkdir(parents=True)
    for path in sorted(base.iterdir()):
        if path.is_file() and not path.name.endswith(_NOT_COPIED):
            shutil.copyfile(path, folder / path.name)
    _write_weights(folder, base, tensors, model.all_tied_weights_keys)
    _save_template(folder, templates)
    _add_end(folder, templates.turn_end)


def _write_weights(folder: Path, base: Path, tensors: Mapping[str, Any], tied: Mapping[str, str]) -> None:
    """Write each tensor into the file, and in the dtype, that the base has it in."""
    from safetensors.torch import save_file

    all_places = places(base) or _shards(base, tensors)
    last = max(place.file for place in all_places.values())
    by_file: dict[str, dict[str, Place | None]] = {}
    for name, place in all_places.items():
        by_file.setdefault(place.file, {})[name] = place
    for name in tensors.keys() - all_places.keys():
        # The base has left it out, and got it at random.
        by_file[last][name] = None
    for file, names in sorted(by_file.items()):
        content = {}
        for name, known in sorted(names.items()):
            tensor = tensors.get(name, tensors.get(tied.get(name, "")))
            if tensor is None:
                # Not trained, or nothing that the model has by this name, such as frequencies of an older
                # release.
                tensor = stored(base, name, file)
            content[name] = (tensor if known is None else tensor.to(known.dtype)).contiguous().clone()
        save_file(content, folder / file, metadata={"format": "pt"})
    if list(by_file) != ["model.safetensors"]:
        _write_index(folder, by_file)


def _write_index(folder: Path, by_file: Mapping[str, Mapping[str, Any]]) -> None:
    size = sum((folder / file).stat().st_size for file in by_file)
    weight_map = {name: file for file, names in by_file.items() for name in names}
    index = {"metadata": {"total_size": size}, "weight_map": dict(sorted(weight_map.items()))}
    (folder / _INDEX).write_text(json.dumps(index, indent=2) + "\n")


def places(base: Path) -> dict[str, Place]:
    """Where the base has its tensors; empty where it has no safetensors."""
    from safetensors import safe_open

    index = base / _INDEX
    files = set(json.loads(index.read_bytes())["weight_map"].values()) if index.exists() else set()
    if not files and (base / "model.safetensors").exists():
        files = {"model.safetensors"}
    found = {}
    for file in sorted(files):
        with safe_open(base / file, "pt") as opened:
            names = opened.keys()
            for name in names:
                part = opened.get_slice(name)
                found[name] = Place(file, _dtype(part.get_dtype()), tuple(part.get_shape()))
    return found


def stored(base: Path, name: str, file: str) -> "torch.Tensor":
    """A tensor of the base, as it lies there."""
    from safetensors import safe_open

    with safe_open(base / file, "pt") as opened:
        tensor: torch.Tensor = opened.get_tensor(name)
    return tensor


def _dtype(name: str) -> "torch.dtype":
    from safetensors.torch import _TYPES

    return _TYPES[name]


def _shards(base: Path, tensors: Mapping[str, Any]) -> dict[str, Place]:
    """Places for the tensors of a base that is stored otherwise, in the dtype that it says it has."""
    import torch
    from huggingface_hub import split_torch_state_dict_into_shards

    config = json.loads((base / "config.json").read_bytes())
    named = config.get("dtype") or config.get("torch_dtype") or "float32"
    split = split_torch_state_dict_into_shards(dict(tensors), max_shard_size=_SHARD_SIZE)
    dtype = getattr(torch, named)
    return {
        name: Place(
            file,
            dtype if tensors[name].is_floating_point() else tensors[name].dtype,
            tuple(tensors[name].shape),
        )
        for file, names in split.filename_to_tensors.items()
        for name in names
    }


def _save_template(folder: Path, templates: ChatTemplates) -> None:
    """Leave the template beside the tokenizer, unless the base's is the one that was trained with."""
    if templates.saved == templates.own:
        return
    path = folder / "tokenizer_config.json"
    config = json.loads(path.read_bytes()) if path.exists() else {}
    if config.pop("chat_template", None) is not None:
        path.write_text(json.dumps(config, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    (folder / "chat_template.jinja").write_text(templates.saved, encoding="utf-8")


def _add_end(folder: Path, turn_end: int) -> None:
    """Let generation stop at the end of a turn too."""
    from transformers import AutoConfig, GenerationConfig

    path = folder / "generation_config.json"
    if path.exists():
        config = json.loads(path.read_bytes())
    else:
        # What transformers makes of a model without the file.
        config = GenerationConfig.from_model_config(AutoConfig.from_pretrained(folder)).to_diff_dict()
    before = config.get("eos_token_id")
    ends = before if isinstance(before, list) else [] if before is None else [before]
    if turn_end not in ends:
        config["eos_token_id"] = [*ends, turn_end]
        path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
