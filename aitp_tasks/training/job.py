"""What the stage tells the ranks, and what they leave for it: files of one private folder.

Nothing here talks to object storage: the ranks see this folder and the model only.
"""

import math
import os
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict

from aitp_tasks.config import Finetune
from aitp_tasks.errors import AitpError, InputError, TransientError
from aitp_tasks.training import curve
from aitp_tasks.training.curve import Point
from aitp_tasks.training.nodes import Node
from aitp_tasks.training.template import ChatTemplates

_ERRORS: dict[str, type[AitpError]] = {kind.__name__: kind for kind in (InputError, TransientError)}


class Job(BaseModel):
    """One training, as the ranks are told it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    folder: Path
    finetune: Finetune
    #: How the base model is called where people read.
    base: str = ""
    #: The content of a team's own DeepSpeed file.
    deepspeed: dict[str, Any] | None = None
    #: The leased GPUs, one a rank: places on the PCI bus, or the UUID of a slice; none on processors.
    gpus: tuple[int | str, ...] = ()
    #: This machine among several; none where it is the only one.
    node: Node | None = None
    #: What is trained with, and what the checkpoint carries.
    templates: ChatTemplates
    #: The step behind which the training ends, where that is before its rate has run down; see ``baseline``.
    last_step: int | None = None
    #: How trackers call it: the dataset, and its version.
    project: str = ""
    title: str = ""

    @property
    def device(self) -> Literal["cpu", "cuda"]:
        """The kind of device that the ranks compute on."""
        return "cuda" if self.gpus else "cpu"

    @property
    def file(self) -> Path:
        """This job as JSON: the ranks' only argument."""
        return self.folder / "job.json"

    @property
    def rendezvous(self) -> Path:
        """Where the ranks of one machine find each other."""
        return self.folder / "rendezvous"

    @property
    def examples(self) -> Path:
        """Tokenised examples, an Arrow stream that all ranks map."""
        return self.folder / "examples.arrow"

    @property
    def packs(self) -> Path:
        """The same in rows of several, where they are packed."""
        return self.folder / "packs.arrow"

    @property
    def validation(self) -> Path:
        """Examples that are validated on, as ``examples``; there where ``eval_steps`` is set."""
        return self.folder / "validation.arrow"

    @property
    def operators(self) -> Path:
        """This job's own copy of DeepSpeed's compiled operators; on processors only."""
        return self.folder / "operators"

    @property
    def checkpoint(self) -> Path:
        """Folder of the trained model."""
        return self.folder / "checkpoint"

    @property
    def states(self) -> Path:
        """Folder of the states that the ranks leave while they train; see ``training.states``."""
        return self.folder / "states"

    @property
    def resumed(self) -> Path:
        """The state to go on from; there is none where the training begins."""
        return self.folder / "resumed"

    @property
    def best(self) -> Path:
        """The state of the best validation so far; there with ``keep_best``."""
        return self.folder / "best"

    @property
    def log_history(self) -> Path:
        """One JSON object a step, and one a validation behind that of its step."""
        return self.folder / "log_history.json"

    @property
    def outcome(self) -> Path:
        """The figures, written last; see ``Outcome``."""
        return self.folder / "outcome.json"

    @property
    def _failure(self) -> Path:
        return self.folder / "failure.json"

    def write(self) -> None:
        """Leave the job for the ranks."""
        self.file.write_text(self.model_dump_json())

    @classmethod
    def read(cls, path: Path) -> "Job":
        """The job that the stage has left."""
        return cls.model_validate_json(path.read_bytes())

    def leave_failure(self, error: AitpError) -> None:
        """Tell the stage why this rank ends; the last rank to fail wins."""
        unfinished = self.folder / f"failure-{os.getpid()}.json"
        unfinished.write_text(_Failure(kind=type(error).__name__, message=str(error)).model_dump_json())
        unfinished.replace(self._failure)

    def failure(self) -> AitpError | None:
        """Why a rank failed, when it could say so."""
        if not self._failure.exists():
            return None
        failure = _Failure.model_validate_json(self._failure.read_bytes())
        return _ERRORS[failure.kind](failure.message)


class _Failure(BaseModel):
    kind: str
    message: str


class Outcome(BaseModel):
    """What a finished training has done; losses are in nats per token."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    steps: int
    #: Means over the first and the last quarter of the steps: a single step's hangs on its examples.
    train_loss_first: float
    train_loss_last: float
    #: As many as the rate was to run over; None where they were made.
    planned_steps: int | None = None
    #: Where it was validated: the first validation, the best one with its step, and the last.
    eval_loss_first: float | None = None
    eval_loss_best: float | None = None
    eval_loss_last: float | None = None
    best_step: int | None = None

    @classmethod
    def of(cls, losses: Sequence[float], points: Sequence[Point] = (), planned_steps: int = 0) -> Self:
        """The outcome of a training with these losses, one a step, and these validations."""
        quarter = math.ceil(len(losses) / 4)
        best = curve.best(points)
        validated = (
            {}
            if best is None
            else {
                "eval_loss_first": round(points[0].loss, 4),
                "eval_loss_best": round(best.loss, 4),
                "eval_loss_last": round(points[-1].loss, 4),
                "best_step": best.step,
            }
        )
        return cls(
            steps=len(losses),
            train_loss_first=round(fmean(losses[:quarter]), 4),
            train_loss_last=round(fmean(losses[-quarter:]), 4),
            planned_steps=planned_steps if planned_steps > len(losses) else None,
            **validated,
        )
