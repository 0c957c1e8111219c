"""One training from the base model to the job's outcome, as each stage that trains has it."""

import uuid
from pathlib import Path

from aitp_tasks.config import Finetune
from aitp_tasks.errors import InputError
from aitp_tasks.machine import base_model, devices, processes
from aitp_tasks.records import digest
from aitp_tasks.records.run import Run
from aitp_tasks.training import (
    deepspeed_config,
    kept,
    launcher,
    lora,
    meeting,
    template,
    tracking,
)
from aitp_tasks.training.examples import ExampleMaker
from aitp_tasks.training.job import Job, Outcome
from aitp_tasks.training.meeting import Meeting
from aitp_tasks.training.nodes import Node


def prepare(settings: Finetune, folder: Path, node: Node | None = None) -> tuple[Job, ExampleMaker]:
    """What the ranks are told, and what makes their examples; the model is on this machine then.

    Args:
        settings: of the training.
        folder: the job's.
        node: this machine among several; None where it trains alone, with as many examples a step as they.

    Raises:
        InputError: the model or its chat template cannot be used.
        TransientError: the hub does not answer, or the model was replaced while it was copied.
    """
    label, own = settings.label, deepspeed_config.read(settings)
    if node is None:
        settings, own = settings.on_one_machine, deepspeed_config.on_one_machine(settings, own)
    settings = settings.model_copy(update={"model": str(base_model.fetch(settings))})
    tokenizer = base_model.load_tokenizer(settings)
    templates = template.choose(tokenizer, settings.chat_template)
    lora.require(settings)
    tracking.require(settings)
    job = Job(folder=folder, finetune=settings, base=label, deepspeed=own, node=node, templates=templates)
    return job, ExampleMaker(tokenizer, templates.training, settings.max_length)


def meet(run: Run, job: Job) -> Meeting:
    """Meet the other machines, where there are some, and make sure that all train on the same.

    Raises:
        InputError: another machine is at another run, or has made other examples.
        TransientError: some have not come in time.
    """
    with processes.sigterm_as_exit():
        met = meeting.join(job.node, job.finetune.timeout_minutes)
        if job.node is not None:
            met.require_same("run", run.digest)
            met.require_same("examples", digest.of_file(job.examples))
    return met


def train(run: Run, stage: str, job: Job, met: Meeting) -> Outcome:
    """Run the ranks, from the last state on where an earlier try has left one.

    Only now are devices leased: nothing else needs them, and the stage itself must not occupy them.

    Raises:
        InputError: a rank found the model unusable, the loss diverged, or there are fewer devices than ranks.
        TransientError: no GPUs became free, a rank or the launcher failed otherwise, or another machine did.
    """
    with processes.sigterm_as_exit():
        attempt = met.agree("attempt", uuid.uuid4().hex)
        state = kept.agreed(run, stage, met)
    if state is not None:
        kept.fetch(run, state, job, stage)
    lease = devices.lease(job.finetune.processes, "finetune.processes")
    if lease is not None:
        gpus = tuple(gpu.place for gpu in lease.gpus[: job.finetune.processes])
        job = job.model_copy(update={"gpus": gpus})
    try:
        with kept.keeping(run, job, stage, met, attempt):
            return launcher.run(job)
    except InputError as error:
        # Mostly a loss that is no number: other settings are another run, which begins anew.
        last = kept.newest(run, stage)
        if last is None:
            raise
        raise InputError(
            f"{error}; the last good state, of step {last.step}, stays in {run.storage.uri(last.prefix)}"
        ) from None
