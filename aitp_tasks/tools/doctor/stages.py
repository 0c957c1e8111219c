"""What each stage will use with a configuration: device, slots, threads, precision, model against memory."""

import os
from collections.abc import Callable, Iterator

from aitp_tasks.config import Model, Require, RunConfig
from aitp_tasks.config.engine import gpus
from aitp_tasks.errors import AitpError
from aitp_tasks.generation import checks, engine
from aitp_tasks.machine import devices, models, processors
from aitp_tasks.tools.doctor.bounded import level_of
from aitp_tasks.tools.doctor.finding import Finding, Level
from aitp_tasks.training import memory

_PROMPT_STAGES = "rewrite, score, answer"
_OTHERS = ("plan", "merge", "density", "index", "difference", "allocate", "promote", "report")


def found(config: RunConfig) -> Iterator[Finding]:
    """One finding for each stage that loads a model, and one for all others."""
    yield _stage("embed, assemble", config.encoder, lambda: _embedding(config))
    yield _stage(_PROMPT_STAGES, config.engine, lambda: _generating(config))
    yield _stage("finetune", config.finetune, lambda: _training(config))
    if config.evaluate.held_out or config.evaluate.tasks:
        yield Finding("evaluate", Level.OK, f"trains as finetune does, and answers on {_device(1)}")
    yield Finding("other stages", Level.OK, f"{', '.join(_OTHERS)}: no model; {_threads()}")


def at_hand(model: Model) -> bool:
    """Whether a model's files are on this machine."""
    if model.folder is not None:
        return model.folder.is_dir()
    if model.stored:
        return False
    from huggingface_hub import try_to_load_from_cache

    return isinstance(try_to_load_from_cache(model.model, "config.json", revision=model.revision), str)


def _stage(about: str, model: Model, uses: Callable[[], str]) -> Finding:
    """What it uses, or why it cannot."""
    try:
        if model.folder is not None:
            models.identity(model)
        where = "" if at_hand(model) or getattr(model, "endpoint", None) else "; fetched at its first use"
        return Finding(about, Level.OK, uses() + where)
    except AitpError as error:
        return Finding(about, level_of(error), str(error))


def _embedding(config: RunConfig) -> str:
    if config.encoder.endpoint is not None:
        return f"{config.encoder.label} on a server ({config.encoder.endpoint.url})"
    devices.require(1, "encoder.model")
    size = _size(config.encoder, 1)
    where = f"{_device(1)}{_slots(1)}"
    return f"{config.encoder.label}{size} on {where} in {_precision(bool(devices.visible()))}"


def _generating(config: RunConfig) -> str:
    ranks = config.prompts.answers_per_question > 1
    ranking = f"; answer ranks on {_device(1)}{_slots(1)}" if ranks else ""
    if config.engine.endpoint is not None:
        if ranks:
            devices.require(1, "prompts.answers_per_question")
        return f"{config.engine.label} on a server ({config.engine.endpoint.url}){ranking}"
    wanted = gpus(config.engine.engine_args)
    devices.require(wanted, "engine.engine_args")
    checks.require_memory(config.engine)
    size = _size(config.engine, wanted)
    computed_in = engine.dtype(config.engine) or "what vLLM takes"
    at_once = engine.requests_at_once(config.engine, bool(devices.visible()))
    context = f"{config.engine.max_model_len:,} tokens, up to {at_once:,} requests at once"
    where = f"{_device(wanted)}{_slots(wanted)}"
    return f"{config.engine.label}{size} on {where} in {computed_in}, {context}"


def _training(config: RunConfig) -> str:
    settings = config.finetune
    devices.require(settings.processes, "finetune.processes")
    memory.require(settings)
    ranks = f"{settings.processes} rank{'s' if settings.ranks > 1 else ''}" + (
        f" on each of {settings.nodes}" if settings.nodes > 1 else ""
    )
    kind = "an adapter" if settings.lora else "all weights"
    needed = ""
    if not settings.stored and devices.visible():
        needed = f", about {memory.need(memory.shape(settings), settings).total / 1e9:.0f} GB on each"
    precision = _precision(bool(devices.visible()))
    # Airflow has ranks counted where GPUs are required: on processors they lease none.
    counted = settings.processes if config.devices.require is Require.GPU else 1
    where = f"{_device(settings.processes)}{_slots(counted)}"
    if counted < settings.processes and devices.visible():
        where += "; devices.require=gpu counts all of them"
    return f"{settings.label}, {kind}, ZeRO {settings.zero_stage}, {ranks} on {where} in {precision}{needed}"


def _device(count: int) -> str:
    """GPUs, or processors."""
    return f"{count} GPU{'s' if count > 1 else ''}" if devices.visible() else _threads()


def _slots(count: int) -> str:
    """The slots of the pool that a task on GPUs takes, as the DAG has them."""
    return f" (slots of the pool gpu: {count})" if devices.visible() else ""


def _threads() -> str:
    limit = os.environ.get("OMP_NUM_THREADS")
    said = f", OMP_NUM_THREADS={limit}" if limit else ""
    return f"{len(os.sched_getaffinity(0))} processors{said}"


def _precision(on_gpus: bool) -> str:
    able = all(gpu.bfloat16 for gpu in devices.visible()) if on_gpus else processors.compute_bfloat16()
    return "bfloat16" if able else "float32"


def _size(model: Model, share: int) -> str:
    """What a model's weights take of each GPU's memory, where both are known."""
    if model.folder is None or not (weights := checks.weights(model.folder) / share):
        return ""
    room = [gpu.memory for gpu in devices.usable(share, devices.visible()) if gpu.memory]
    return f" ({weights / 1e9:.1f} GB{f' of {min(room) / 1e9:.0f} on each' if room else ''})"
