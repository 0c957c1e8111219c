"""What a training says of itself: a line now and then, and an end where it diverges."""

import logging
import math
import time
from typing import TYPE_CHECKING, Any

from aitp_tasks.errors import InputError
from aitp_tasks.training import curve
from aitp_tasks.training.job import Job

if TYPE_CHECKING:
    from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

log = logging.getLogger("aitp_tasks.training.train")

#: Between lines, but for the first and the last.
_LINE_SECONDS = 10.0


def callback(job: Job) -> "TrainerCallback":
    """Tells step, loss, tokens a second without padding, share of padding, and time left."""
    from transformers import TrainerCallback

    class Progress(TrainerCallback):  # type: ignore[misc]
        def on_train_begin(
            self, args: "TrainingArguments", state: "TrainerState", control: "TrainerControl", **values: Any
        ) -> None:
            steps = (entry for entry in reversed(state.log_history) if "loss" in entry)
            last = next(steps, {"seconds": 0.0, "num_tokens": 0})
            # What it took before it was stopped.
            self._seconds_before, self._tokens_before = last["seconds"], last["num_tokens"]
            self._start, self._first = time.monotonic(), state.global_step
            self._told = -math.inf

        def on_log(
            self, args: "TrainingArguments", state: "TrainerState", control: "TrainerControl", **values: Any
        ) -> None:
            entry = values["logs"]
            named = next((name for name in ("loss", curve.NAME) if name in entry), None)
            if named is None:
                return
            loss, step, steps = entry[named], state.global_step, state.max_steps
            if not math.isfinite(loss):
                raise InputError(
                    f"the {'loss' if named == 'loss' else 'loss on what is held out'} is {loss} at step "
                    f"{step}: lower finetune.learning_rate={job.finetune.learning_rate}"
                )
            now = time.monotonic()
            seconds = now - self._start
            state.log_history[-1]["seconds"] = round(self._seconds_before + seconds, 3)
            if named == curve.NAME:
                best = curve.best(curve.of(state.log_history))
                assert best is not None
                log.info("step=%d eval_loss=%.4f best=%.4f best_step=%d", step, loss, best.loss, best.step)
                return
            if now - self._told < _LINE_SECONDS and step < steps:
                return
            self._told = now
            log.info(
                "step=%d of=%d loss=%.4f tokens_per_second=%.0f padding=%.3f seconds_left=%.0f",
                *(step, steps, loss, (entry["num_tokens"] - self._tokens_before) / seconds),
                *(entry["padding"], seconds / (step - self._first) * (steps - step)),
            )

    return Progress()
