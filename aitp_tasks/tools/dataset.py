"""dataset: what people think of a dataset's pairs.

``mark`` writes it down under ``datasets/<name>/marks/``. A pair that is marked bad
leaves with the next version, and does not come in again.
"""

import logging
from typing import Any, Literal

from aitp_tasks.config import RunConfig
from aitp_tasks.errors import InputError
from aitp_tasks.records import pairs, versions
from aitp_tasks.storage import open_storage

log = logging.getLogger(__name__)


def execute(
    config: RunConfig, action: str, pair_id: str, mark: Literal["good", "bad"], note: str
) -> dict[str, Any]:
    """Mark a pair of the dataset's latest version, or one that is marked already.

    Args:
        config: names the root and the dataset.
        action: ``mark``.
        pair_id: the pair's id, or its beginning.
        mark: good or bad.
        note: why, for people.

    Raises:
        InputError: no pair has that id, or several begin with it.
    """
    storage, line = open_storage(config.root), config.assemble.dataset
    latest = versions.latest(storage, line)
    table = pairs.read(storage, latest.pairs) if latest else None
    known = {*(table["pair_id"].to_pylist() if table else ()), *pairs.marked(storage, line)}
    found = sorted(key for key in known if key.startswith(pair_id))
    if len(found) != 1:
        version = latest.name if latest else "none yet"
        raise InputError(
            f"{len(found) or 'no'} pairs of {line} ({version}) have an id that begins with {pair_id!r}: "
            "take it from the column pair_id of its rows, or from the report"
        )
    key = pairs.mark(storage, line, found[0], pairs.Mark(mark=mark, note=note))
    log.info("%s is marked %s", found[0], mark)
    return {"stage": "dataset", "action": action, "pair_id": found[0], "mark": mark, "key": storage.uri(key)}
