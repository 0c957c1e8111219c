"""A team's own benchmark tasks: the files of lm-evaluation-harness in one folder, as data.

What they say decides a run's results, so their content is a part of its identity. They bring no
code: ``!function`` and a reader of pickles are refused. Templates in them are Jinja's, and run with what
Jinja allows: a task file is trusted as the configuration is.
"""

from pathlib import Path
from typing import Any

import yaml

from aitp_tasks.config import Evaluate
from aitp_tasks.errors import InputError
from aitp_tasks.records import digest

#: Of datasets' readers, the ones that load pickles.
_PICKLES = {"pandas", "webdataset"}
#: More is no folder of task files.
_MOST_BYTES = 2**30


def identity(settings: Evaluate) -> str:
    """Digest of all files in the folder; empty where no task is asked for, or none of a folder.

    Raises:
        InputError: there is no such folder, it is huge, or a file brings code.
    """
    if settings.task_folder is None:
        return ""
    folder = Path(settings.task_folder)
    if not folder.is_dir():
        raise InputError(f"evaluate.task_folder {folder} is no folder: name one with YAML task files")
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    size = sum(path.stat().st_size for path in paths)
    if size > _MOST_BYTES:
        raise InputError(
            f"evaluate.task_folder {folder} holds {size / 2**30:.1f} GiB, more than 1: leave only task files "
            "and their rows in it"
        )
    for path in paths:
        if path.suffix == ".yaml":
            _require_data(path, folder)
    return digest.of_value(
        [[str(path.relative_to(folder)), digest.of_bytes(path.read_bytes())] for path in paths]
    )


def require_planned(settings: Evaluate, planned: str) -> None:
    """Make sure that the files are those that the run was planned with.

    Raises:
        InputError: they are not, or there is no such folder.
    """
    if identity(settings) != planned:
        raise InputError(
            f"the files in evaluate.task_folder {settings.task_folder} are not those that the run was "
            "planned with: put them back, or plan anew"
        )


def _require_data(path: Path, folder: Path) -> None:
    try:
        read = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        reason = " ".join(str(error).split())
        raise InputError(
            f"task file {path} is no plain YAML ({reason}): correct it; code (!function) is not run"
        ) from None
    values: dict[str, Any] = read if isinstance(read, dict) else {}
    included = values.get("include") or []
    for name in [included] if isinstance(included, str) else included:
        # What is included has been looked at only if it is one of these files.
        if Path(name).suffix != ".yaml" or not (path.parent / name).resolve().is_relative_to(
            folder.resolve()
        ):
            raise InputError(
                f"task file {path} includes {name!r}: put it into {folder}, with a name that ends in .yaml"
            )
    if values.get("dataset_path") in _PICKLES:
        raise InputError(
            f"task file {path} has dataset_path {values['dataset_path']!r}, which loads pickles: "
            "store the rows as JSON Lines and write json"
        )
