"""init: write a configuration for this machine and these buckets.

What can be found out is not asked for: the GPUs, the folders below ``corpus/`` and
``sft/``, the column that holds the texts, the models that fit by plan's own reckoning.
Writes one new YAML file, all at once, and overwrites none.
"""

import logging
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from aitp_tasks.config import RunConfig
from aitp_tasks.config.file import described, masked
from aitp_tasks.errors import InputError
from aitp_tasks.machine import devices
from aitp_tasks.machine.gpus import Gpu
from aitp_tasks.records.manifest import Stopwatch
from aitp_tasks.storage import open_storage
from aitp_tasks.tools.init import choice, found, written
from aitp_tasks.tools.init.choice import CHECKOUT, Choice
from aitp_tasks.tools.terminal import printable

log = logging.getLogger(__name__)

_PROMPTS = CHECKOUT / "prompts"


def execute(
    root: str,
    output: Path,
    dump: str | None = None,
    sft: str | None = None,
    text_columns: Sequence[str] = (),
    dataset: str | None = None,
    encoder: str | None = None,
    engine: str | None = None,
    finetune: str | None = None,
) -> dict[str, Any]:
    """Write a configuration.

    Args:
        root: of the storage that holds the inputs, and will hold all else.
        output: the file to write, which must not exist.
        dump: by default the newest one below ``corpus/``.
        sft: by default the only set below ``sft/``.
        text_columns: of the corpus; by default, what is there.
        dataset: the name of the line of versions; by default the SFT set's.
        encoder: a folder, a storage prefix, or a hub name, perhaps with ``@revision``; by default, what
            suits this machine. So are the other two models, the one that generates and the base.
        engine: see ``encoder``.
        finetune: see ``encoder``.

    Raises:
        InputError: the file is there, or its folder is not; there is no dump, or no or more than one SFT set;
            no column is known to hold the texts; no model fits this machine's GPUs; a name is
            none that a configuration takes; or a URI holds credentials.
        TransientError: the storage does not answer.
    """
    watch = Stopwatch()
    written.require_new(output)
    # An empty one, as of a variable that is not set, is none.
    models = {"encoder": encoder or None, "engine": engine or None, "finetune": finetune or None}
    _require_no_secrets({"root": root, **models})
    storage = open_storage(root)
    gpus = devices.visible()
    if gpus and not devices.built_for_gpus():
        log.warning(
            "%d GPUs are here, but torch is built for processors: install requirements/worker-gpu.txt",
            len(gpus),
        )
    inputs = {"dump": found.dump(storage, dump), "sft": found.sft(storage, sft)}
    chosen = choice.choose(gpus, models)
    values = {
        "root": storage.root,
        **inputs,
        **chosen.values,
        "prompts": {"folder": str(_prompts()), **chosen.values.get("prompts", {})},
        "assemble": {"dataset": dataset or inputs["sft"]},
    }
    _require_valid(values)
    values["text_columns"] = found.text_columns(storage, values, text_columns)
    written.write(output, written.text(values, _head(gpus, chosen, output), chosen.reasons))
    config = RunConfig.load(output)
    log.info("wrote %s; see what plan says: aitp plan --config %s --check", output, shlex.quote(str(output)))
    return {
        "stage": "init",
        "config": str(output),
        **inputs,
        "text_columns": values["text_columns"],
        "gpus": len(gpus),
        **{name: getattr(config, name).label for name in models},
        "seconds": watch.seconds(),
    }


def _require_no_secrets(given: dict[str, str | None]) -> None:
    for name, value in given.items():
        if value is not None and masked(value) != value:
            raise InputError(
                f"--{name} holds credentials, which a configuration must not: give {masked(value)} without "
                "what stands before the @, and put credentials into AWS_* variables"
            )


def _require_valid(values: dict[str, Any]) -> None:
    try:
        RunConfig.model_validate(values)
    except ValidationError as error:
        raise InputError(
            f"no configuration takes what was given: {described(error, RunConfig)}; correct it"
        ) from None


def _prompts() -> Path:
    if not _PROMPTS.is_dir():
        raise InputError(
            f"the prompts are not at {_PROMPTS}: run aitp from a checkout of the project, installed with "
            "`pip install --editable`"
        )
    return _PROMPTS


def _head(gpus: Sequence[Gpu], chosen: Choice, output: Path) -> list[str]:
    """What the file says above all settings."""
    return [
        f"Written by `aitp init` for {choice.described(gpus)}.",
        *chosen.about,
        f"Plan a run with it: aitp plan --config {printable(shlex.quote(output.name))}",
        "All other settings, with their defaults: docs/reference/configuration.md",
    ]
