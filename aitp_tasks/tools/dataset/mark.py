"""dataset mark: what somebody thinks of a pair.

Written down under ``datasets/<name>/marks/``. A pair that is marked bad leaves with the next
version, and does not come in again.
"""

import logging
from typing import Any, Literal

from aitp_tasks.config import RunConfig
from aitp_tasks.errors import InputError
from aitp_tasks.records import pairs, version_rows, versions
from aitp_tasks.storage import open_storage
from aitp_tasks.tools.terminal import printable

log = logging.getLogger(__name__)


def execute(config: RunConfig, pair_id: str, mark: Literal["good", "bad"], note: str) -> dict[str, Any]:
    """Mark a pair of the dataset's latest version, or one that is marked already.

    Args:
        config: names the root and the dataset.
        pair_id: the pair's id, or its beginning.
        mark: good or bad.
        note: why, for people.

    Raises:
        InputError: no pair has that id, or several begin with it.
    """
    storage, line = open_storage(config.root), config.assemble.dataset
    latest = versions.latest(storage, line)
    known = set(version_rows.starting_with(storage, line, latest.name, pair_id)) if latest else set()
    found = sorted(known | {key for key in pairs.marked(storage, line) if key.startswith(pair_id)})
    # With nothing, every id begins: where there is one pair, that is no choice of it.
    if len(found) != 1 or not pair_id:
        version = latest.name if latest else "none yet"
        raise InputError(
            f"{len(found) or 'no'} pairs of {line} ({version}) have an id that begins with "
            f"'{printable(pair_id)}': take it from the column pair_id of its rows, or from the report"
        )
    key = pairs.mark(storage, line, found[0], pairs.Mark(mark=mark, note=note))
    log.info("%s is marked %s", found[0], mark)
    return {"stage": "dataset", "action": "mark", "pair_id": found[0], "mark": mark, "key": storage.uri(key)}
