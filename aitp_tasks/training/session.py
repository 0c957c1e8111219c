"""One training from the base model to the job's outcome, as each stage that trains has it."""

from pathlib import Path

from aitp_tasks.config import Finetune
from aitp_tasks.errors import InputError
from aitp_tasks.machine import devices
from aitp_tasks.records.run import Run
from aitp_tasks.training import base_model, deepspeed_config, kept, launcher, lora, template, tracking
from aitp_tasks.training.examples import ExampleMaker
from aitp_tasks.training.job import Job, Outcome


def prepare(settings: Finetune, folder: Path) -> tuple[Job, ExampleMaker]:
    """What the ranks are told, and what makes their examples; the model is on this machine then.

    Raises:
        InputError: the model or its chat template cannot be used.
        TransientError: the hub does not answer, or the model was replaced while it was copied.
    """
    label, own = settings.label, deepspeed_config.read(settings)
    settings = settings.model_copy(update={"model": str(base_model.fetch(settings))})
    tokenizer = base_model.load_tokenizer(settings)
    templates = template.choose(tokenizer, settings.chat_template)
    lora.require(settings)
    tracking.require(settings)
    job = Job(folder=folder, finetune=settings, base=label, deepspeed=own, templates=templates)
    return job, ExampleMaker(tokenizer, templates.training, settings.max_length)


def train(run: Run, stage: str, job: Job) -> Outcome:
    """Run the ranks, from the last state on where an earlier try has left one.

    Only now are devices leased: nothing else needs them, and the stage itself must not occupy them.

    Raises:
        InputError: a rank found the model unusable, the loss diverged, or there are fewer devices than ranks.
        TransientError: no GPUs became free, or a rank or the launcher failed otherwise.
    """
    state = kept.newest(run, stage)
    if state is not None:
        kept.fetch(run, state, job, stage)
    lease = devices.lease(job.finetune.processes, "finetune.processes")
    if lease is not None:
        gpus = tuple(gpu.index for gpu in lease.gpus[: job.finetune.processes])
        job = job.model_copy(update={"gpus": gpus})
    try:
        with kept.keeping(run, job, stage):
            return launcher.run(job)
    except InputError as error:
        # Mostly a loss that is no number: other settings are another run, which begins anew.
        last = kept.newest(run, stage)
        if last is None:
            raise
        raise InputError(
            f"{error}; the last good state, of step {last.step}, stays in {run.storage.uri(last.prefix)}"
        ) from None
