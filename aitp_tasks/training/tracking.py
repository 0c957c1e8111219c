"""Losses on their way to trackers while a model is trained, by transformers' own integrations.

The first rank reports, and nobody else. Which server, and with what secret, are the tracker's own
environment variables to say; the dataset is its project, and the version its run. A tracker
that fails costs its own reports and no training: it is told once, by the kind of its error alone,
whose text may hold what nobody is to see.
"""

import importlib.util
import logging
import os
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import urlsplit

from aitp_tasks.config import Finetune, Tracker
from aitp_tasks.errors import InputError
from aitp_tasks.training.job import Job

if TYPE_CHECKING:
    from transformers import TrainerCallback

log = logging.getLogger("aitp_tasks.training.train")


class _Client(NamedTuple):
    """What to install, where the server's address stands, and where its secrets do."""

    package: str
    address: str
    secrets: str


_CLIENTS = {
    Tracker.MLFLOW: _Client(
        "mlflow-skinny", "MLFLOW_TRACKING_URI", "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"
    ),
    Tracker.TRACKIO: _Client("trackio", "TRACKIO_SERVER_URL", "TRACKIO_WRITE_TOKEN"),
    Tracker.WANDB: _Client("wandb", "WANDB_BASE_URL", "WANDB_API_KEY"),
}
#: As the trackers call a project; who has set it means it.
_PROJECT = ("WANDB_PROJECT", "MLFLOW_EXPERIMENT_NAME")


def require(settings: Finetune) -> None:
    """Make sure that trackers are installed, and that no log can show a secret of theirs.

    Raises:
        InputError: one is not there, or a server's address has a user, a password or a query in it.
    """
    for tracker in settings.report_to:
        client = _CLIENTS[tracker]
        if importlib.util.find_spec(tracker.value) is None:
            raise InputError(
                f"finetune.report_to names {tracker}, which is not installed where stages run: "
                f"pip install {client.package} there, or take it out"
            )
        address = urlsplit(os.environ.get(client.address, ""))
        if "@" in address.netloc or address.query:
            raise InputError(
                f"{client.address} has a user, a password or a query in it, which logs would show: "
                f"leave the address alone there, and set {client.secrets}"
            )


def callbacks(job: Job) -> "list[TrainerCallback]":
    """What reports to the job's trackers; of the first rank, whose process knows their project then."""
    from transformers.integrations.integration_utils import INTEGRATION_TO_CALLBACK

    for name in _PROJECT:
        os.environ.setdefault(name, job.project)
    # Else it warns of each setting that is long.
    os.environ.setdefault("MLFLOW_FLATTEN_PARAMS", "1")
    return [_reporting(tracker, INTEGRATION_TO_CALLBACK[tracker.value]) for tracker in job.finetune.report_to]


def _reporting(tracker: Tracker, make: "Callable[[], TrainerCallback]") -> "TrainerCallback":
    from transformers import TrainerCallback

    class Reporting(TrainerCallback):  # type: ignore[misc]
        """Passes on how a training begins, goes on and ends; no weights, whatever the environment says."""

        def __init__(self) -> None:
            self._inner: Any = None
            self._passes_on = True

        def on_train_begin(self, *given: Any, **values: Any) -> None:
            self._pass_on("on_train_begin", given, values)

        def on_log(self, *given: Any, **values: Any) -> None:
            self._pass_on("on_log", given, values)

        def on_train_end(self, *given: Any, **values: Any) -> None:
            self._pass_on("on_train_end", given, values)

        def _pass_on(self, event: str, given: tuple[Any, ...], values: Mapping[str, Any]) -> None:
            if not self._passes_on:
                return
            try:
                self._inner = self._inner or make()
                getattr(self._inner, event)(*given, **values)
            except Exception as error:
                self._passes_on = False
                log.warning(
                    "tracker=%s fails (%s) and is told nothing more; the training goes on",
                    *(tracker, type(error).__name__),
                )

    return Reporting()
