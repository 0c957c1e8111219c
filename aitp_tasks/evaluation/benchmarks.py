"""lm-evaluation-harness on a checkpoint, in a process of its own (``harness.py``).

That process has no credentials of the storage or a hub, asks no server, and ends with this one;
its end gives the device's memory back.
"""

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from aitp_tasks.config import Evaluate, Finetune
from aitp_tasks.errors import InputError, TransientError
from aitp_tasks.machine import processes
from aitp_tasks.training import nodes

_MODULE = "aitp_tasks.evaluation.harness"
_PACKAGE_ROOT = Path(__file__).parents[2]
_STANDARD_ERROR = 2
_SECRET = re.compile(r"^(AWS|AZURE|GOOGLE)_|(_KEY|TOKEN|SECRET|PASSWORD|CREDENTIALS)$", re.IGNORECASE)
_OFFLINE = {
    **dict.fromkeys(("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "HF_EVALUATE_OFFLINE"), "1"),
    **{"HF_HUB_DISABLE_TELEMETRY": "1", "TOKENIZERS_PARALLELISM": "false"},
    # Whatever asks a server all the same finds none: nothing listens on the discard port.
    **dict.fromkeys(("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"), "http://127.0.0.1:9"),
    **{"no_proxy": "", "NO_PROXY": ""},
}


class Asked(BaseModel):
    """What the process is told."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    tasks: tuple[str, ...]
    task_folder: str | None
    limit: int | None
    #: Whether the tasks' rows are read too; else it is only seen that there are such tasks.
    load: bool = True
    #: None: no model is asked.
    model: Finetune | None = None
    #: The model computes in it.
    dtype: str = "float32"
    device: str = "cpu"


class Told(BaseModel):
    """What the process leaves: one of two."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    #: Why a task cannot be used.
    refused: str = ""
    version: str = ""
    #: The harness's own ``results`` and ``n-samples``, by task.
    results: dict[str, dict[str, Any]] = {}
    counts: dict[str, dict[str, int]] = {}


def require(settings: Evaluate, load: bool) -> None:
    """Make sure that the tasks are known and, if wanted, that their rows are on this machine.

    Raises:
        InputError: one is not, or they are not.
        TransientError: the process failed otherwise.
    """
    if settings.tasks:
        _run(
            Asked(
                tasks=settings.tasks, task_folder=settings.task_folder, limit=settings.task_limit, load=load
            )
        )


def of_model(settings: Evaluate, model: Finetune, dtype: str, device: str) -> Told:
    """What the harness measures.

    Args:
        settings: which tasks, of which folder, and how many rows of each.
        model: where it lies, and how it is loaded.
        dtype: that it computes in.
        device: ``cuda`` or ``cpu``.

    Raises:
        InputError: a task cannot be used, or the model cannot.
        TransientError: the process failed otherwise.
    """
    return _run(
        Asked(
            tasks=settings.tasks,
            task_folder=settings.task_folder,
            limit=settings.task_limit,
            model=model,
            dtype=dtype,
            device=device,
        )
    )


def figures(told: Mapping[str, Told], limit: int | None) -> dict[str, Any]:
    """As a manifest holds it: of each task and metric, what each model has, with its standard error.

    A metric that is no number has None; one that a filter was put before is called by both.
    """
    tasks: dict[str, Any] = {}
    for model, found in told.items():
        for task, values in found.results.items():
            counts = found.counts.get(task, {})
            entry = tasks.setdefault(task, {"n": counts.get("effective"), "metrics": {}})
            for metric, value, error in _metrics(values):
                entry["metrics"].setdefault(metric, {})[model] = [value, error]
    versions = sorted({found.version for found in told.values()})
    return {"harness": ", ".join(versions), "limit": limit, "results": tasks}


def _metrics(values: Mapping[str, Any]) -> list[tuple[str, float | None, float | None]]:
    found = []
    for name, value in values.items():
        metric, separator, chosen = name.partition(",")
        if separator and not metric.endswith("_stderr"):
            shown = metric if chosen == "none" else name
            found.append((shown, _number(value), _number(values.get(f"{metric}_stderr,{chosen}"))))
    return found


def _number(value: Any) -> float | None:
    """A finite number; the harness writes "N/A" where there is no error."""
    is_number = isinstance(value, int | float) and abs(value) < float("inf")
    return round(float(value), 6) if is_number else None


def _run(asked: Asked) -> Told:
    with (
        tempfile.TemporaryDirectory(prefix="aitp-harness-") as name,
        processes.sigterm_as_exit(),
        processes.lifeline() as pipe,
    ):
        folder = Path(name)
        (folder / "asked.json").write_text(asked.model_dump_json(), encoding="utf-8")
        process = subprocess.Popen(
            # Not where it is started lies what it imports: a task folder brings no code.
            [sys.executable, "-P", "-m", _MODULE, name],
            stdin=subprocess.DEVNULL,
            stdout=_STANDARD_ERROR,
            stderr=_STANDARD_ERROR,
            pass_fds=(pipe,),
            env={**_environment(), processes.LIFELINE: str(pipe)},
        )
        try:
            code = process.wait()
        finally:
            process.kill()
            process.wait()
        path = folder / "told.json"
        if code != 0 or not path.exists():
            raise TransientError(
                f"lm-evaluation-harness ended with code {code}: see its output above, then retry"
            )
        told = Told.model_validate_json(path.read_bytes())
    if told.refused:
        raise InputError(told.refused)
    return told


def _environment() -> dict[str, str]:
    # With another launcher's LOCAL_RANK, the harness takes itself for one that has nothing to tell.
    inherited = nodes.without(os.environ)
    kept = {name: value for name, value in inherited.items() if not _SECRET.search(name)}
    return {**kept, **_OFFLINE, "PYTHONPATH": str(_PACKAGE_ROOT)}
