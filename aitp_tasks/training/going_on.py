"""TRL's trainer, as one that leaves its state now and then, and goes on from one.

transformers' own checkpoints hold pickles, and DeepSpeed's one file a rank; see
states.py for what is left in their place. It takes the examples as they are, packed or
grouped, and counts what it is given.
"""

import logging
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow.compute as pc
from datasets import Dataset
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from trl.trainer.sft_trainer import SFTTrainer

from aitp_tasks.training import curve, packing, states, validation
from aitp_tasks.training.job import Job
from aitp_tasks.training.order import Order

if TYPE_CHECKING:
    import torch


log = logging.getLogger("aitp_tasks.training.train")


class GoingOnTrainer(SFTTrainer):  # type: ignore[misc]
    """Saves and loads by ``states``."""

    def __init__(self, job: Job, **arguments: Any) -> None:
        self._job = job
        settings = job.finetune
        self._examples_per_step = settings.examples_per_step
        found = Dataset.from_file(str(job.packs if settings.packing else job.examples))
        self._rows = len(found)
        if settings.packing:
            found = packing.filled(found, settings.ranks * settings.batch_size)
            arguments["data_collator"] = packing.collate
        #: Of this rank in the steps since the last entry of the log.
        self._places = self._padding = 0
        super().__init__(train_dataset=found, **arguments)
        self.add_callback(_Saving(job))
        if job.last_step is not None:
            self.add_callback(_Ending(job.last_step))
        if settings.eval_steps is not None:
            self._validated = Dataset.from_file(str(job.validation))
            self.add_callback(_Validating(job))

    def train_on(self) -> None:
        """Train, from the state that the stage has fetched where there is one."""
        resumed = self._job.resumed
        self.train(resume_from_checkpoint=str(resumed) if resumed.is_dir() else None)

    def take_best(self) -> None:
        """Take the weights of the best validation, where these are wanted and are not the last ones."""
        best = self._best()
        if best is not None and best < self.state.global_step:
            log.info("the checkpoint is that of step=%d, the best of %d", best, self.state.global_step)
            states.restore(self._job.best, self, self._examples_per_step)

    def _best(self) -> int | None:
        """The step of the best validation so far, where its state is kept."""
        found = curve.best(curve.of(self.state.log_history))
        return found.step if found is not None and self._job.finetune.keep_best else None

    def _prepare_for_training(
        self, max_steps: int, train_dataloader: Any, resume_from_checkpoint: str | None
    ) -> Any:
        # Without its own way of loading.
        prepared = super()._prepare_for_training(max_steps, train_dataloader, None)
        if self._job.finetune.packing:
            vocabulary = self.deepspeed.module.config.get_text_config().vocab_size
            label = self._job.finetune.label
            packing.require_separate(self.deepspeed, vocabulary, self.args.device, label)
        if resume_from_checkpoint is not None:
            states.restore(Path(resume_from_checkpoint), self, self._examples_per_step)
        return prepared

    def _get_train_sampler(self, train_dataset: Any = None) -> Order:
        lengths = None
        if self._job.finetune.group_by_length:
            lengths = pc.list_value_length(self.train_dataset.data["input_ids"]).to_pylist()
        empty = len(self.train_dataset) - self._rows
        self._order = Order(
            self._rows, empty, self._job.finetune.seed, lengths, together=self._examples_per_step
        )
        return self._order

    def _run_epoch(self, **arguments: Any) -> Any:
        # accelerate does not reach the sampler where several ranks go on within an epoch.
        self._order.set_epoch(arguments["epoch"])
        return super()._run_epoch(**arguments)

    def training_step(self, model: Any, inputs: dict[str, Any], *arguments: Any) -> Any:
        """Train on one batch, and count it."""
        padding = inputs.pop("padding") if "padding" in inputs else (inputs["attention_mask"] == 0).sum()
        self._places += inputs["input_ids"].numel()
        self._padding += int(padding)
        return super().training_step(model, inputs, *arguments)

    def evaluate(self, *_: Any, **values: Any) -> dict[str, float]:
        """Validate, and keep the state or end the training by what comes of it."""
        settings, step = self._job.finetune, self.state.global_step
        metrics = {
            curve.NAME: validation.loss(
                self.deepspeed, self._validated, settings.batch_size, self.args.device
            )
        }
        # TRL's own would add what it has counted since the last step.
        Trainer.log(self, metrics)
        control: TrainerControl = self.control
        self.callback_handler.on_evaluate(self.args, self.state, control, metrics)
        ended = step >= _last(self._job, self.state)
        waited = curve.since_best(curve.of(self.state.log_history))
        if not ended and settings.patience is not None and waited >= settings.patience:
            log.info("validations without a new best: %d, the training ends at step=%d", waited, step)
            ended = control.should_training_stop = True
        # Behind the last step comes the checkpoint.
        control.should_save = not ended and (control.should_save or self._best() == step)
        return metrics

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Log a step, with the tokens of all ranks since the training began."""
        if "loss" in logs:
            places, padding = _sum([self._places, self._padding], self.args.device)
            self._places = self._padding = 0
            steps = (entry["num_tokens"] for entry in reversed(self.state.log_history) if "loss" in entry)
            before = next(steps, 0)
            # TRL counts padding where rows are packed, and from nothing after a stop.
            self._metrics["train"]["num_tokens"] = [before + places - padding]
            logs["padding"] = padding / places
        super().log(logs, start_time)

    def _load_rng_state(self, checkpoint: str | None) -> None:
        if checkpoint is not None:
            states.restore_random(Path(checkpoint), self.args.device)

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        step, best = self.state.global_step, self._best()
        also = self._job.best if best == step else None
        states.write(self._job.states / states.name(step), self, self._examples_per_step, best, also)


class _Saving(TrainerCallback):  # type: ignore[misc]
    """Says after which steps the state is left."""

    def __init__(self, job: Job) -> None:
        self._job, self._steps = job, job.finetune.save_steps
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
        if due and state.global_step < _last(self._job, state):
            control.should_save = True
            self._last = time.monotonic()


class _Validating(TrainerCallback):  # type: ignore[misc]
    """Says behind which steps is validated."""

    def __init__(self, job: Job) -> None:
        self._job, self._steps = job, job.finetune.eval_steps

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **values: Any
    ) -> None:
        assert self._steps is not None
        if state.global_step % self._steps == 0 or state.global_step >= _last(self._job, state):
            control.should_evaluate = True


class _Ending(TrainerCallback):  # type: ignore[misc]
    """Ends a training before its rate has run down."""

    def __init__(self, last_step: int) -> None:
        self._last_step = last_step

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **values: Any
    ) -> None:
        if state.global_step >= self._last_step:
            control.should_training_stop = True


def _last(job: Job, state: TrainerState) -> int:
    """The step behind which a training ends, whatever is found until then."""
    steps: int = state.max_steps
    return min(steps, job.last_step or steps)


def _of_first(value: bool, device: "torch.device") -> bool:
    import torch
    import torch.distributed as dist

    told = torch.tensor([int(value)], device=device)
    dist.broadcast(told, 0)
    return bool(told.item())


def _sum(counts: list[int], device: "torch.device") -> list[int]:
    """Of all ranks."""
    import torch
    import torch.distributed as dist

    told = torch.tensor(counts, device=device)
    dist.all_reduce(told)
    return [int(count) for count in told.tolist()]
