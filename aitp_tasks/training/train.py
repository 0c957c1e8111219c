"""One rank of the fine-tuning: what the ``deepspeed`` launcher starts, once per device.

Reads the job file named by its only argument, the tokenised examples beside it
and the model; leaves checkpoint, log history and outcome in the same folder.
Ends when its standard input ends (see launcher.py), so it is not for running by
hand: ``aitp finetune`` is.
"""

import errno
import json
import logging
import math
import os
import sys
import threading
from collections import deque
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from aitp_tasks.errors import AitpError, ExitCode, TransientError
from aitp_tasks.machine import base_model, processors
from aitp_tasks.training import (
    checkpoint,
    curve,
    deepspeed_config,
    lora,
    meeting,
    parameters,
    progress,
    states,
    tracking,
)
from aitp_tasks.training.job import Job, Outcome

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    import torch
    from trl.trainer.sft_config import SFTConfig

    from aitp_tasks.training.going_on import GoingOnTrainer

log = logging.getLogger("aitp_tasks.training.train")


def main(path: Path) -> int:
    """Train as told in the job file; the exit code is the stage's."""
    _end_with_the_stage()
    job = Job.read(path)
    rank = int(os.environ["RANK"])
    level = logging.INFO if rank == 0 else logging.WARNING
    logging.basicConfig(level=level, format="%(message)s", stream=sys.stderr)
    # DeepSpeed and its neighbours log on every import and step.
    logging.getLogger().setLevel(logging.WARNING)
    log.setLevel(level)
    try:
        train(job)
    except Exception as error:
        failure = _classify(error, job)
        if failure is None:
            raise
        log.error("rank=%d ends: %s", rank, failure)
        # On a disk that is full there may be no room for it.
        with suppress(OSError):
            job.leave_failure(failure)
        return failure.exit_code
    return ExitCode.DONE


def _end_with_the_stage() -> None:
    def watch() -> None:
        if not os.read(sys.stdin.fileno(), 1):
            os._exit(ExitCode.TRANSIENT)

    threading.Thread(target=watch, daemon=True).start()


def _classify(error: Exception, job: Job) -> AitpError | None:
    """The error as one of ours, or None when it is not a known one."""
    import torch

    if isinstance(error, AitpError):
        return error
    if isinstance(error, torch.OutOfMemoryError):
        return TransientError(
            f"out of device memory at finetune.batch_size={job.finetune.batch_size}, "
            f"max_length={job.finetune.max_length}: lower one, or raise zero_stage or processes"
        )
    # gloo has no error type of its own.
    if job.node is not None and (isinstance(error, torch.distributed.DistError) or "/gloo/" in str(error)):
        return TransientError(
            "ranks of another machine are not reached any more: see the other machines' logs, "
            f"then retry on all ({str(error).splitlines()[0]})"
        )
    # safetensors has an error type of its own, with the number in its text only.
    if getattr(error, "errno", None) == errno.ENOSPC or f"os error {errno.ENOSPC}" in str(error):
        return TransientError(f"no space left in {job.folder}: free space or set TMPDIR, then retry")
    return None


def train(job: Job) -> None:
    """Train, and leave checkpoint, log history and outcome in the job's folder."""
    import torch.distributed

    _meet(job)
    trainer = _trainer(job)
    trainer.train_on()
    trainer.take_best()
    _leave_checkpoint(job, trainer)
    # All ranks have the same figures; the stage of each machine looks for its own.
    if trainer.is_local_process_zero():
        _leave_outcome(job, trainer)
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()


def _meet(job: Job) -> None:
    """Join the process group before accelerate and DeepSpeed do.

    They would open a TCP store, which listens on all interfaces.
    """
    import deepspeed.comm
    import torch
    from torch.distributed import FileStore, PrefixStore, init_process_group

    if job.device == "cuda":
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
        _reckon_memory_with_torch()
    backend = "nccl" if job.device == "cuda" else "gloo"
    patience, ranks = timedelta(minutes=job.finetune.timeout_minutes), int(os.environ["WORLD_SIZE"])
    found = (
        FileStore(str(job.rendezvous), ranks)
        if job.node is None
        else PrefixStore(meeting.RANKS, meeting.store(job.node, patience))
    )
    found.set_timeout(patience)
    rank = int(os.environ["RANK"])
    init_process_group(backend, store=found, rank=rank, world_size=ranks, timeout=patience)
    # Under ZeRO 3 weights are loaded in slices, before the trainer tells DeepSpeed how many ranks there are.
    deepspeed.comm.init_distributed(backend, auto_mpi_discovery=False, verbose=False)


def _reckon_memory_with_torch() -> None:
    """Have DeepSpeed ask torch how much memory a GPU has left, and not the driver.

    It would ask that by the numbers in ``CUDA_VISIBLE_DEVICES``: a slice has none, and the driver counts GPUs
    that a batch system keeps from this job.
    """
    from deepspeed.accelerator import cuda_accelerator, get_accelerator

    # It looks for the library when it is made.
    get_accelerator()
    cuda_accelerator.pynvml = None


def _leave_checkpoint(job: Job, trainer: "GoingOnTrainer") -> None:
    """Write the checkpoint by the first rank; all of them put the weights together."""
    model, weights = trainer.deepspeed.module, _finite(parameters.weights(trainer.deepspeed))
    if not trainer.is_world_process_zero():
        deque(weights, maxlen=0)
        return
    base = Path(job.finetune.model)
    if job.finetune.lora is None:
        checkpoint.write(job.checkpoint, base, model, checkpoint.collect(model, weights, base), job.templates)
        return
    adapted = lora.merged(model, weights, base)
    checkpoint.write(job.checkpoint, base, model.get_base_model(), adapted.changed, job.templates)
    adapted.write(job.checkpoint / lora.FOLDER, model, job.base)


def _finite(weights: "Iterable[tuple[str, torch.Tensor]]") -> "Iterator[tuple[str, torch.Tensor]]":
    """The same: the last step may have broken them, and no loss behind it tells."""
    for name, tensor in weights:
        states.require_finite(name, tensor)
        yield name, tensor


def _bf16_supported(job: Job) -> bool:
    import torch

    if job.device == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return processors.compute_bfloat16()


def _arguments(job: Job, bf16: bool) -> "SFTConfig":
    from trl.trainer.sft_config import SFTConfig

    settings = job.finetune
    return SFTConfig(
        output_dir=str(job.folder),
        deepspeed=deepspeed_config.of(settings, job.deepspeed, bf16),
        use_cpu=job.device == "cpu",
        bf16=bf16,
        num_train_epochs=settings.epochs,
        max_steps=settings.max_steps,
        learning_rate=settings.learning_rate,
        lr_scheduler_type=settings.scheduler,
        # From 1 on, transformers reads a number of steps and no share.
        warmup_steps=min(settings.warmup_share, 1 - 1e-9),
        per_device_train_batch_size=settings.batch_size,
        gradient_accumulation_steps=settings.gradient_accumulation,
        weight_decay=settings.weight_decay,
        max_grad_norm=settings.max_grad_norm,
        neftune_noise_alpha=settings.neftune_noise or None,
        gradient_checkpointing=_checkpoints_gradients(job),
        seed=settings.seed,
        data_seed=settings.seed,
        # Examples come tokenised, cut and with labels on the assistant's turns only (examples.py):
        # TRL's own preparation drops rows without counting them.
        dataset_kwargs={"skip_prepare_dataset": True},
        max_length=None,
        logging_steps=1,
        logging_nan_inf_filter=False,
        # By tracking.py, which survives them.
        report_to="none",
        run_name=job.title or None,
        project=job.project or "aitp",
        # States are left by going_on.py.
        save_strategy="no",
        disable_tqdm=True,
        # The process group is there already, with the same patience.
        ddp_timeout=int(settings.timeout_minutes * 60),
    )


def _checkpoints_gradients(job: Job) -> bool:
    """Whether activations are computed twice; unless told, where devices are short of memory."""
    chosen = job.finetune.gradient_checkpointing
    return job.device == "cuda" if chosen is None else chosen


def _trainer(job: Job) -> "GoingOnTrainer":
    import torch
    from transformers import PrinterCallback
    from transformers.utils.logging import disable_progress_bar

    from aitp_tasks.training.going_on import GoingOnTrainer

    disable_progress_bar()
    bf16 = _bf16_supported(job)
    log.info("training dtype=%s", "bfloat16" if bf16 else "float32")
    # Before the model: with ZeRO 3 these make its weights load in slices.
    arguments = _arguments(job, bf16)
    tokenizer = base_model.load_tokenizer(job.finetune)
    model = base_model.load_model(job.finetune, torch.bfloat16 if bf16 else torch.float32)
    if job.finetune.lora is not None:
        model = lora.attach(model, job.finetune, Path(job.finetune.model))
    trainer = GoingOnTrainer(
        job,
        model=model,
        args=arguments,
        processing_class=tokenizer,
        callbacks=[progress.callback(job), *(tracking.callbacks(job) if os.environ["RANK"] == "0" else [])],
    )
    trainer.remove_callback(PrinterCallback)
    return trainer


def _leave_outcome(job: Job, trainer: "GoingOnTrainer") -> None:
    history = trainer.state.log_history
    told = [_sound(entry) for entry in history if "loss" in entry or curve.NAME in entry]
    job.log_history.write_text(json.dumps(told, indent=1, allow_nan=False))
    losses = [entry["loss"] for entry in history if "loss" in entry]
    outcome = Outcome.of(losses, curve.of(history), trainer.state.max_steps)
    job.outcome.write_text(outcome.model_dump_json())


def _sound(entry: dict[str, float]) -> dict[str, float | None]:
    """The same with None for what is no number in JSON, as the norm of gradients may be."""
    return {name: value if math.isfinite(value) else None for name, value in entry.items()}


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[-1])))
