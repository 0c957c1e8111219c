"""Whole parameters of a model that DeepSpeed has cut up, and how they are put back.

Under every ZeRO stage the ranks share out what is trained: weights in float32 and Adam's
two moments. Here each is put together, one parameter at a time, so that what is written
depends neither on the stage nor on how many ranks there were. What is not trained, as LoRA's
base, is left out.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

#: Adam's moments, as PyTorch calls them.
MOMENTS = ("exp_avg", "exp_avg_sq")


def weights(engine: Any) -> Iterator[tuple[str, "torch.Tensor"]]:
    """The trained parameters as the optimiser has them, by name; tied ones once.

    All ranks have to ask together.
    """
    from deepspeed.utils import safe_get_full_fp32_param

    own = _own(engine)
    for name, parameter in _trained(engine):
        whole = safe_get_full_fp32_param(parameter) if _is_cut_up(parameter) else own(parameter)
        yield name, whole.detach()


def moments(engine: Any) -> Iterator[tuple[str, "torch.Tensor"]]:
    """Adam's moments, each as ``<parameter>.<moment>``. All ranks have to ask together."""
    from deepspeed.utils import safe_get_full_optimizer_state

    _link_moments(engine)
    own, adam = _own(engine), engine.basic_optimizer.state
    for name, parameter in _trained(engine):
        for moment in MOMENTS:
            cut_up = _is_cut_up(parameter)
            whole = (
                safe_get_full_optimizer_state(parameter, moment) if cut_up else adam[own(parameter)][moment]
            )
            yield f"{name}.{moment}", whole


def steps(engine: Any) -> int:
    """How many steps Adam has counted; without ZeRO, one more than were made."""
    return int(next(iter(engine.basic_optimizer.state.values()))["step"])


def restore(engine: Any, read: Callable[[str], "torch.Tensor"], steps: int) -> None:
    """Put weights and moments back.

    Args:
        engine: DeepSpeed's, before the first step or behind the last one.
        read: gives a whole tensor by its name in ``weights`` or ``moments``.
        steps: as Adam has counted them.
    """
    import torch

    own, adam = _own(engine), engine.basic_optimizer.state
    _make_moments(engine, steps)
    for name, parameter in _trained(engine):
        master = read(name).float().to(parameter.device)
        with torch.no_grad(), _gathered(parameter):
            parameter.data.copy_(master)
        values = {moment: read(f"{name}.{moment}").to(parameter.device) for moment in MOMENTS}
        if _is_cut_up(parameter):
            _set(parameter, master, values)
            continue
        own(parameter).data.copy_(master)
        for moment, value in values.items():
            adam[own(parameter)][moment].copy_(value)


def _trained(engine: Any) -> Iterator[tuple[str, Any]]:
    return (item for item in engine.module.named_parameters() if item[1].requires_grad)


def _set(parameter: Any, master: "torch.Tensor", values: Mapping[str, "torch.Tensor"]) -> None:
    from deepspeed.utils import safe_set_full_fp32_param, safe_set_full_optimizer_state

    safe_set_full_fp32_param(parameter, master)
    for moment, value in values.items():
        safe_set_full_optimizer_state(parameter, value, moment)


def _make_moments(engine: Any, steps: int) -> None:
    """What Adam makes at its first step, and DeepSpeed's views of it."""
    import torch

    optimizer = engine.basic_optimizer
    # Under ZeRO 3 it is told at each step which they are.
    flats = getattr(engine.optimizer, "fp32_partitioned_groups_flat", None)
    fused = optimizer.param_groups[0].get("fused")
    for flat in flats or [flat for group in optimizer.param_groups for flat in group["params"]]:
        optimizer.state[flat] = {
            "step": torch.tensor(float(steps), device=flat.device if fused else "cpu"),
            **{moment: torch.zeros_like(flat, memory_format=torch.preserve_format) for moment in MOMENTS},
        }
    _link_moments(engine)


def _link_moments(engine: Any) -> None:
    """Let DeepSpeed know where the moments of each parameter are, under ZeRO 1 and 2.

    It finds out after the step of its first group of parameters, when the others have none yet.
    """
    link = getattr(engine.optimizer, "_lazy_init_hp_params_optimizer_state", None)
    if link is not None:
        engine.optimizer._hp_optimizer_states_linked = False
        link()


def _is_cut_up(parameter: Any) -> bool:
    """Whether the ranks have parts of it, as from ZeRO 1 on."""
    return hasattr(parameter, "ds_id") or hasattr(parameter, "_hp_mapping")


def _own(engine: Any) -> Callable[[Any], Any]:
    """Gives what the optimiser has of a parameter without ZeRO: itself, or its copy in float32."""
    copies = {
        id(parameter): copy
        for parameters, of in zip(
            getattr(engine.optimizer, "fp16_groups", []),
            getattr(engine.optimizer, "fp32_groups", []),
            strict=False,
        )
        for parameter, copy in zip(parameters, of, strict=True)
    }
    return lambda parameter: copies.get(id(parameter), parameter)


def _gathered(parameter: Any) -> Any:
    """A context in which the very parameter is whole, and each rank keeps its part of what it becomes."""
    if not hasattr(parameter, "ds_id"):
        return nullcontext()
    from deepspeed.runtime.zero import GatheredParameters

    return GatheredParameters([parameter], modifier_rank=0)
