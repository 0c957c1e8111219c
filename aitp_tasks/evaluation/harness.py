"""One process of lm-evaluation-harness: ``python -m aitp_tasks.evaluation.harness FOLDER``.

Reads what is asked from the folder and leaves there what it has to tell (see ``benchmarks``). The
model is loaded as in training, without remote code, and handed to the harness as it is.
"""

import difflib
import logging
import os
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

from aitp_tasks.config import Finetune
from aitp_tasks.errors import InputError
from aitp_tasks.evaluation.benchmarks import Asked, Told
from aitp_tasks.machine import base_model, processes

_PACKAGE = "lm_eval"
#: Texts that the model reads at once.
_BATCH = 8
_REASON_CHARACTERS = 300


def main() -> None:
    """Entry point of the process."""
    processes.end_with_starter()
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s %(message)s")
    # It warns of each metric whose sense it takes from its own table.
    logging.getLogger(_PACKAGE).setLevel(logging.ERROR)
    folder = Path(sys.argv[1])
    asked = Asked.model_validate_json((folder / "asked.json").read_bytes())
    try:
        told = tell(asked)
    except InputError as error:
        told = Told(refused=str(error))
    (folder / "told.json").write_text(told.model_dump_json(), encoding="utf-8")


def tell(asked: Asked) -> Told:
    """Look for the tasks, and put them to the model if there is one.

    Raises:
        InputError: a task is not known or has no rows here, or the model cannot be used.
    """
    manager = _manager(asked)
    if not asked.load:
        return Told(version=version(_PACKAGE))
    if asked.task_folder is not None:
        # A task names its files from there.
        os.chdir(asked.task_folder)
    for name in asked.tasks:
        _require_rows(manager, name)
    if asked.model is None:
        return Told(version=version(_PACKAGE))
    found = _evaluate(asked, asked.model, manager)
    return Told(version=version(_PACKAGE), results=found["results"], counts=found["n-samples"])


def _manager(asked: Asked) -> Any:
    """The harness's own index of the tasks; of its 14,000 only where they are asked for."""
    from lm_eval.tasks import TaskManager

    folder = asked.task_folder
    own = TaskManager(include_path=folder, include_defaults=False) if folder is not None else None
    if own is not None and set(asked.tasks) <= set(own.all_subtasks):
        return own
    every = TaskManager(include_path=folder)
    for name in asked.tasks:
        if name not in every.task_index:
            near = difflib.get_close_matches(name, every.all_tasks, n=3)
            where = (
                f"nor {folder} has"
                if folder is not None
                else "nor evaluate.task_folder has, which is not set"
            )
            raise InputError(
                f"evaluate.tasks names {name!r}, which neither lm-evaluation-harness {version(_PACKAGE)} "
                f"{where}: " + (f"write {' or '.join(near)}" if near else "correct it or take it out")
            )
    return every


def _require_rows(manager: Any, name: str) -> None:
    try:
        manager.load([name])
    except Exception as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:_REASON_CHARACTERS]
        raise InputError(
            f"task {name} of evaluate.tasks cannot be loaded ({reason}): nothing is fetched meanwhile, so "
            "have its data set in the cache of Hugging Face's datasets on this machine, or its rows in a "
            "file that a task file in evaluate.task_folder names (dataset_path: json)"
        ) from None


def _evaluate(asked: Asked, settings: Finetune, manager: Any) -> Any:
    import torch
    from lm_eval import simple_evaluate
    from lm_eval.models.huggingface import HFLM

    model = base_model.load_model(settings, getattr(torch, asked.dtype)).to(asked.device).eval()
    asks = HFLM(
        pretrained=model,
        tokenizer=base_model.load_tokenizer(settings),
        batch_size=_BATCH,
        trust_remote_code=False,
    )
    return simple_evaluate(
        model=asks,
        tasks=list(asked.tasks),
        task_manager=manager,
        limit=asked.limit,
        log_samples=False,
        confirm_run_unsafe_code=False,
    )


if __name__ == "__main__":
    main()
