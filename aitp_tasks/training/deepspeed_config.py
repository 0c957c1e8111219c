"""DeepSpeed's configuration: what follows from the settings, in a team's own file where one is named.

The file says what the settings do not. What both say has to be the same, and is found out at
plan; ``auto``, or nothing, stands for what the settings say. Keys that are not named here are
DeepSpeed's own matter.
"""

import copy
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from aitp_tasks.config import Finetune, Offload
from aitp_tasks.errors import InputError

_SETTING = "finetune.deepspeed"
#: Of a file with a dozen settings.
_LARGEST_BYTES = 1_000_000
_AUTO = "auto"
#: transformers' own values of AdamW, which no setting changes.
_ADAM = {"type": "AdamW", "params.betas": [0.9, 0.999], "params.eps": 1e-8}
_SECTIONS = (
    *("bf16", "fp16", "optimizer", "optimizer.params", "zero_optimization"),
    *("zero_optimization.offload_optimizer", "zero_optimization.offload_param"),
)
#: As DeepSpeed says that nothing is offloaded.
_NOWHERE = "none"
#: What may be said of the precision beside "auto".
_PRECISION = {"bf16.enabled": True, "fp16.enabled": False}
#: What the settings say in another form.
_TAKEN_OUT = {
    "scheduler": "finetune.scheduler={settings.scheduler}, learning_rate={settings.learning_rate} and "
    "warmup_share={settings.warmup_share} say how the rate runs",
    "elasticity": "finetune.batch_size={settings.batch_size}, processes={settings.processes} and "
    "nodes={settings.nodes} say how many examples a step has",
}
#: Stands for what is not in the file.
_NOTHING = object()
#: Characters of a value in a message.
_SHOWN = 100
#: Filled in by transformers, and wanted by DeepSpeed.
_FILLED = (
    "gradient_accumulation_steps",
    "gradient_clipping",
    "train_batch_size",
    "train_micro_batch_size_per_gpu",
)


def read(settings: Finetune) -> dict[str, Any] | None:
    """The configured file's content; None where none is.

    Raises:
        InputError: it is no JSON object, or contradicts the settings; all contradictions are named.
    """
    if settings.deepspeed is None:
        return None
    values = _parse(Path(settings.deepspeed))
    problems = contradictions(values, settings)
    if problems:
        raise InputError(f"{_SETTING}={settings.deepspeed} contradicts the settings: {'; '.join(problems)}")
    return values


def of(settings: Finetune, given: Mapping[str, Any] | None, bf16: bool) -> dict[str, Any]:
    """What DeepSpeed is told; ``auto`` values follow the trainer's.

    Args:
        settings: of the training.
        given: see ``read``.
        bf16: whether this device computes in bfloat16.

    Raises:
        InputError: the file wants it, and the device does not.
    """
    config = copy.deepcopy(dict(given or {}))
    # The trainer's own is AdamW with the same values.
    config.pop("optimizer", None)
    if _at(config, "bf16.enabled") is True and not bf16:
        raise InputError(
            f"{_SETTING}={settings.deepspeed} has bf16.enabled=true, but it is false on this device, which "
            f'does not compute in bfloat16: write "{_AUTO}" there'
        )
    for name in _FILLED:
        config.setdefault(name, _AUTO)
    config.setdefault("bf16", {}).setdefault("enabled", _AUTO)
    zero = config.setdefault("zero_optimization", {})
    zero["stage"] = settings.zero_stage
    if settings.zero_stage == 3:
        zero.setdefault("stage3_gather_16bit_weights_on_model_save", True)
    for name, device in _offloaded(settings).items():
        if device != _NOWHERE:
            zero.setdefault(name, {})["device"] = device
            # PyTorch's own AdamW for processors: DeepSpeed's has to be compiled.
            config["zero_force_ds_cpu_optimizer"] = False
    return config


def on_one_machine(settings: Finetune, given: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """A file's content for one machine that takes as many examples a step as several: without their count."""
    if given is None or settings.nodes == 1:
        return None if given is None else dict(given)
    return {name: value for name, value in given.items() if name != "gradient_accumulation_steps"}


def contradictions(values: Mapping[str, Any], settings: Finetune) -> list[str]:
    """What a file says otherwise than the settings, each with both values and the remedy."""
    found = []
    for key, (setting, expected) in _expected(settings).items():
        value = _at(values, key)
        if value is _NOTHING or value == _AUTO or _equal(value, expected):
            continue
        remedy = f'write "{_AUTO}" there'
        if setting.startswith("finetune."):
            remedy = f"set it to the file's, or {remedy}"
        found.append(f"{key}={_json(value)}, but {setting}={_json(expected)}: {remedy}")
    for key in _SECTIONS:
        value = _at(values, key)
        if value is not _NOTHING and not isinstance(value, dict):
            found.append(f"{key}={_json(value)} is no object of settings: correct it")
    for key, allowed in _PRECISION.items():
        value = _at(values, key)
        if value is not _NOTHING and value != _AUTO and value is not allowed:
            found.append(
                f"{key}={_json(value)}, but training computes in bfloat16 (true) wherever the device does, "
                f'and never in float16 (false): write "{_AUTO}" there'
            )
    for key, remedy in _TAKEN_OUT.items():
        if (value := _at(values, key)) is not _NOTHING:
            found.append(f"{key}={_json(value)}, but {remedy.format(settings=settings)}: take it out")
    return found


def _expected(settings: Finetune) -> dict[str, tuple[str, Any]]:
    """The setting that says what a key does, and its value."""
    settings_of = {
        "train_micro_batch_size_per_gpu": "batch_size",
        "gradient_accumulation_steps": "gradient_accumulation",
        "gradient_clipping": "max_grad_norm",
        "zero_optimization.stage": "zero_stage",
        "optimizer.params.lr": "learning_rate",
        "optimizer.params.weight_decay": "weight_decay",
    }
    offload = f"finetune.offload={settings.offload} at zero_stage={settings.zero_stage}, which means "
    return {
        **{
            f"zero_optimization.{name}.device": (f"{offload}{name}.device", device)
            for name, device in _offloaded(settings).items()
        },
        **{key: (f"finetune.{name}", getattr(settings, name)) for key, name in settings_of.items()},
        "train_batch_size": (
            "nodes x processes x batch_size x gradient_accumulation",
            settings.examples_per_step,
        ),
        **{f"optimizer.{name}": ("the trainer's own", value) for name, value in _ADAM.items()},
    }


def _offloaded(settings: Finetune) -> dict[str, str]:
    """Where DeepSpeed is to have what need not be on the devices."""
    return {
        "offload_optimizer": _NOWHERE if settings.offload is Offload.NONE else "cpu",
        "offload_param": "cpu" if settings.offload is Offload.PARAMETERS else _NOWHERE,
    }


def _at(values: Mapping[str, Any], key: str) -> Any:
    """The value of a dotted key."""
    found: Any = values
    for name in key.split("."):
        found = found.get(name, _NOTHING) if isinstance(found, Mapping) else _NOTHING
    return found


def _equal(value: Any, expected: Any) -> bool:
    if isinstance(value, list) and isinstance(expected, list):
        return len(value) == len(expected) and all(map(_equal, value, expected))
    if isinstance(value, float) and not isinstance(expected, str | list):
        return math.isclose(value, expected, rel_tol=1e-9)
    return bool(value == expected and not isinstance(value, bool))


def _json(value: Any) -> str:
    """A value as it stands in a file, its beginning where it is long."""
    text = json.dumps(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"


def _parse(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise InputError(f"{_SETTING}={path} is not there, or no file: name a JSON file")
    try:
        with path.open("rb") as file:
            data = file.read(_LARGEST_BYTES + 1)
    except OSError as error:
        raise InputError(f"{_SETTING}={path} cannot be read ({error.strerror}): name a JSON file") from None
    if len(data) > _LARGEST_BYTES:
        raise InputError(
            f"{_SETTING}={path} has more than {_LARGEST_BYTES} bytes: name DeepSpeed's configuration"
        )
    try:
        values = json.loads(data, object_pairs_hook=_once)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{_SETTING}={path} is not JSON ({error}): correct it") from None
    if not isinstance(values, dict):
        raise InputError(f"{_SETTING}={path} is no object of DeepSpeed's settings: correct it")
    return values


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise ValueError(f"it has {name!r} twice")
        found[name] = value
    return found
