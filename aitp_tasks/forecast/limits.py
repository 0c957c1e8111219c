"""What a run may take at most, and what is said of one that would take more."""

from collections.abc import Mapping
from typing import Any

from aitp_tasks import config
from aitp_tasks.errors import InputError
from aitp_tasks.forecast import table

#: Stages that a message names.
_NAMED = 3


def check(settings: config.Plan, told: Mapping[str, Any]) -> None:
    """Refuse a run that would take more than it may.

    A run that may take just as much goes on. A limit that cannot be checked does not pass in silence.

    Args:
        settings: with the limits.
        told: the estimate, of ``told.tell``.

    Raises:
        InputError: names the estimate, the limit, what costs most, and what can be done; or the stages of
            which nothing is known.
    """
    limits: list[tuple[str, float, float, str]] = []
    if settings.max_gpu_hours is not None:
        limits.append(("plan.max_gpu_hours", settings.max_gpu_hours, told["gpu_hours"], "GPU-hours"))
    if settings.max_cost is not None:
        limits.append(("plan.max_cost", settings.max_cost, told["cost"], settings.currency))
    for name, limit, estimated, unit in limits:
        if estimated > limit:
            raise InputError(
                _too_much(told, f"{table.amount(estimated)} {unit}".strip(), f"{name}={limit:g}")
            )
    if limits and told["unknown"]:
        raise InputError(_not_known(told, " and ".join(f"{name}={limit:g}" for name, limit, *_ in limits)))


def _too_much(told: Mapping[str, Any], estimated: str, limit: str) -> str:
    dearest = sorted(
        (stage["gpu_hours"], name) for name, stage in told["stages"].items() if stage["gpu_hours"]
    )[::-1]
    named = ", ".join(f"{name} ({table.amount(hours)} GPU-hours)" for hours, name in dearest[:_NAMED])
    message = (
        f"the run would take {'at least ' if told['unknown'] else ''}{estimated}, more than {limit} allows; "
        f"most of it: {named}. Select fewer documents (difference.max_documents), train less "
        "(finetune.epochs), or raise the limit; `aitp estimate` tries other settings"
    )
    if told["at_most"]:
        message += (
            f". Counted as many as there can be, for want of a figure: {', '.join(told['at_most'])}; "
            "`aitp estimate --rehearse` measures them"
        )
    return message


def _not_known(told: Mapping[str, Any], limits: str) -> str:
    return (
        f"{limits} cannot be checked: no earlier run of this dataset tells what "
        f"{', '.join(told['unknown'])} will take with these models and settings. Run `aitp estimate` with "
        "this configuration on a machine like those that do the work, whose rehearsal counts until runs have "
        "figures, or leave the limit out of this run"
    )
