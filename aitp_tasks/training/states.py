"""The state of a training in one folder, from which it goes on as if it had not stopped.

All ranks write it together and read it together, each machine's into a folder of its own that holds
their share; what one goes on from is whole: weights and moments whole, in
safetensors (so that their number may differ), the trainer's own figures in JSON, and each
rank's random numbers. No pickle. A folder has its name only when all of it is written.
"""

import json
import os
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict

from aitp_tasks.errors import InputError
from aitp_tasks.training import parameters

if TYPE_CHECKING:
    import torch

#: Of one file, so that a rank holds no more of the model at a time.
_FILE_BYTES = 2 * 2**30
#: What transformers reads when it goes on.
_TRAINER = "trainer_state.json"
#: What a state was left by, as JSON.
LAYOUT = "layout.json"


class _Layout(BaseModel):
    """What a state was left by."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    ranks: int
    #: Examples of all ranks in one step.
    examples_per_step: int
    #: As Adam counts them.
    steps: int
    #: Of PyTorch's scheduler.
    scheduler: dict[str, Any]
    #: The step of the best validation so far, where its state is kept.
    best: int | None = None


def name(step: int) -> str:
    """A state's folder."""
    return f"step-{step:08d}"


def best(layout: bytes) -> int | None:
    """The step of the best validation until a state, by its ``LAYOUT``; None if none is kept."""
    found: int | None = json.loads(layout).get("best")
    return found


def write(
    folder: Path, trainer: Any, examples_per_step: int, best: int | None = None, also: Path | None = None
) -> None:
    """Write the state; all ranks together.

    Args:
        folder: named by ``name``.
        trainer: of transformers, at the end of a step.
        examples_per_step: of all ranks.
        best: the step of the best validation so far, where its state is kept.
        also: a folder in which the same files are to stay, however soon others take ``folder`` away.

    Raises:
        InputError: the weights are not finite: nothing goes on from there.
    """
    import torch.distributed as dist

    rank, ranks = dist.get_rank(), dist.get_world_size()
    unfinished, own = folder.with_suffix(".unfinished"), trainer.is_local_process_zero()
    if own:
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(parents=True)
    dist.barrier()
    try:
        _write_tensors(unfinished, trainer.deepspeed, rank, ranks)
        _write_random(unfinished / f"random-{rank:05d}.safetensors", trainer.args.device)
        if rank == 0:
            trainer.state.save_to_json(str(unfinished / _TRAINER))
            layout = _Layout(
                ranks=ranks,
                examples_per_step=examples_per_step,
                steps=parameters.steps(trainer.deepspeed),
                scheduler=trainer.lr_scheduler.state_dict(),
                best=best,
            )
            (unfinished / LAYOUT).write_text(layout.model_dump_json())
    except Exception:
        # On a disk that is full, room to say so.
        shutil.rmtree(unfinished, ignore_errors=True)
        raise
    dist.barrier()
    if own:
        if also is not None:
            link(unfinished, also)
        unfinished.rename(folder)


def link(folder: Path, target: Path) -> None:
    """Let a folder hold a state's files too, in the place of what it held."""
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(folder, target, copy_function=os.link)


def restore(folder: Path, trainer: Any, examples_per_step: int) -> None:
    """Put the state back.

    Raises:
        InputError: it was left by ranks that took other examples in a step.
    """
    layout = _Layout.model_validate_json((folder / LAYOUT).read_bytes())
    if layout.examples_per_step != examples_per_step:
        raise InputError(
            f"the training's state was left by {layout.ranks} ranks with {layout.examples_per_step} examples "
            f"a step, but now {examples_per_step} are taken: set finetune.nodes, processes, batch_size and "
            "gradient_accumulation so that their product is the same"
        )
    with _Reader(folder) as reader:
        parameters.restore(trainer.deepspeed, reader.read, layout.steps)
    trainer.lr_scheduler.load_state_dict(layout.scheduler)
    rates = trainer.lr_scheduler.get_last_lr()
    for group, rate in zip(trainer.lr_scheduler.optimizer.param_groups, rates, strict=True):
        group["lr"] = rate


def restore_random(folder: Path, device: "torch.device") -> None:
    """Put this rank's random numbers back; a rank that had none goes on with its own."""
    import torch
    import torch.distributed as dist
    from safetensors.torch import load_file

    path = folder / f"random-{dist.get_rank():05d}.safetensors"
    if not path.exists():
        return
    found = load_file(path)
    torch.set_rng_state(found["processor"])
    if "device" in found:
        torch.cuda.set_rng_state(found["device"], device)


def require_finite(name: str, tensor: "torch.Tensor") -> None:
    """Make sure that a tensor of a training holds numbers.

    Raises:
        InputError: some are not finite.
    """
    if not bool(tensor.isfinite().all()):
        raise InputError(f"{name} is not finite any more: lower finetune.learning_rate")


def _write_random(path: Path, device: "torch.device") -> None:
    """Leave PyTorch's random numbers: nothing else is drawn by others once a training has begun."""
    import torch
    from safetensors.torch import save_file

    found = {"processor": torch.get_rng_state()}
    if device.type == "cuda":
        found["device"] = torch.cuda.get_rng_state(device)
    save_file(found, path)


def _write_tensors(folder: Path, engine: Any, rank: int, ranks: int) -> None:
    """Write this rank's share; all ranks put each tensor together."""
    from safetensors.torch import save_file

    share: dict[str, torch.Tensor] = {}
    files = size = 0

    def flush() -> None:
        nonlocal files, size
        if share:
            save_file(share, folder / f"tensors-{rank:05d}-{files:05d}.safetensors")
            share.clear()
            files, size = files + 1, 0

    for number, (name, tensor) in enumerate(_tensors(engine)):
        if number % ranks == rank:
            require_finite(name, tensor)
            share[name] = tensor.to("cpu", copy=True).contiguous()
            size += share[name].nbytes
            if size >= _FILE_BYTES:
                flush()
    flush()


def _tensors(engine: Any) -> Iterable[tuple[str, "torch.Tensor"]]:
    yield from parameters.weights(engine)
    yield from parameters.moments(engine)


class _Reader:
    """The tensors of a state, each read when it is asked for."""

    def __init__(self, folder: Path) -> None:
        self._files = sorted(folder.glob("tensors-*.safetensors"))

    def __enter__(self) -> "_Reader":
        from safetensors import safe_open

        self._open: list[Any] = [safe_open(path, "pt") for path in self._files]
        self._places = {name: file for file in self._open for name in list(file.keys())}
        return self

    def __exit__(self, *_: object) -> None:
        self._places.clear()
        self._open.clear()

    def read(self, name: str) -> "torch.Tensor":
        tensor: torch.Tensor = self._places[name].get_tensor(name)
        return tensor
