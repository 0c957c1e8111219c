"""TRL's trainer, as one that leaves its state now and then, and goes on from one.

transformers' own checkpoints hold pickles, and DeepSpeed's one file a rank; see
states.py for what is left in their place.
"""

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from trl.trainer.sft_trainer import SFTTrainer

from aitp_tasks.training import states
from aitp_tasks.training.job import Job

if TYPE_CHECKING:
    import torch


class GoingOnTrainer(SFTTrainer):  # type: ignore[misc]
    """Saves and loads by ``states``."""

    def __init__(self, job: Job, **arguments: Any) -> None:
        super().__init__(**arguments)
        self._job = job
        settings = job.finetune
        self._examples_per_step = settings.processes * settings.batch_size * settings.gradient_accumulation
        self.add_callback(_Saving(job))

    def train_on(self) -> None:
        """Train, from the state that the stage has fetched where there is one."""
        resumed = self._job.resumed
        self.train(resume_from_checkpoint=str(resumed) if resumed.is_dir() else None)

    def _prepare_for_training(
        self, max_steps: int, train_dataloader: Any, resume_from_checkpoint: str | None
    ) -> Any:
        # Without its own way of loading.
        prepared = super()._prepare_for_training(max_steps, train_dataloader, None)
        if resume_from_checkpoint is not None:
            states.restore(Path(resume_from_checkpoint), self, self._examples_per_step)
        return prepared

    def _load_rng_state(self, checkpoint: str | None) -> None:
        if checkpoint is not None:
            states.restore_random(Path(checkpoint), self.args.device)

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        states.write(self._job.states / states.name(self.state.global_step), self, self._examples_per_step)


class _Saving(TrainerCallback):  # type: ignore[misc]
    """Says after which steps the state is left."""

    def __init__(self, job: Job) -> None:
        self._steps = job.finetune.save_steps
        self._minutes = job.finetune.save_minutes
        self._last = time.monotonic()

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **values: Any
    ) -> None:
        due = self._steps is not None and state.global_step % self._steps == 0
        if self._minutes is not None:
            # The ranks' clocks differ.
            due = due or _of_first(time.monotonic() - self._last >= self._minutes * 60, args.device)
        # Behind the last step comes the checkpoint.
        if due and state.global_step < state.max_steps:
            control.should_save = True
            self._last = time.monotonic()


def _of_first(value: bool, device: "torch.device") -> bool:
    import torch
    import torch.distributed as dist

    told = torch.tensor([int(value)], device=device)
    dist.broadcast(told, 0)
    return bool(told.item())
