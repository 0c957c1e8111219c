"""search: the documents of a run's corpus, or its SFT examples, that are nearest to a text.

Embeds the text with the run's own encoder, as a document of it would be, and looks
into the run's index. Reads of the input shards the rows that it tells.
"""

import os
import sys
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aitp_tasks.encoder.opened import open_encoder
from aitp_tasks.errors import InputError
from aitp_tasks.inputs import parts, paths, shards
from aitp_tasks.inputs.examples import Rejection
from aitp_tasks.inputs.rows import Refusal
from aitp_tasks.records import indexed
from aitp_tasks.records.manifest import Stopwatch
from aitp_tasks.records.prefetched import prefetched
from aitp_tasks.records.run import Run
from aitp_tasks.storage import ObjectChangedError, ObjectInfo
from aitp_tasks.tools.terminal import printable
from aitp_tasks.vector_index.opened import OpenIndex

#: Characters of a text in the result, and in print.
_TOLD, _PRINTED = 300, 160


def execute(run: Run, text: str, role: str = "corpus", k: int = 10) -> dict[str, Any]:
    """Search, and print what is found to standard error.

    Args:
        run: the run; its index must have been built.
        text: what to search for.
        role: ``corpus`` or ``sft``.
        k: how many are wanted.

    Raises:
        InputError: k is below 1, the text has no vector, or there is no index yet.
    """
    watch = Stopwatch()
    if k < 1:
        raise InputError(f"-k {k} is too small: give 1 or more")
    with OpenIndex(run.storage, indexed.keys(run, role), role, few_queries=True) as index:
        similarities, ids = index.search(_vector(run, text), k)
        found = matches(run, role, index, similarities[0], ids[0])
    sys.stderr.write(render(found))
    return {"stage": "search", "run": run.uri, "in": role, "matches": found, "seconds": watch.seconds()}


def matches(
    run: Run, role: str, index: OpenIndex, similarities: NDArray[np.float32], ids: NDArray[np.int64]
) -> list[dict[str, Any]]:
    """What a search has found, the nearest first: similarity, place and the start of the text.

    Args:
        run: the run.
        role: whose index it is.
        index: that index.
        similarities: float32 (k,).
        ids: int64 (k,), -1 where nothing was found.
    """
    found = ids >= 0
    places = index.places(ids[found]).to_pylist()
    texts = prefetched(lambda place: text_at(run, role, place), places, run.storage.concurrency)
    return [
        {
            "similarity": round(float(similarity), 4),
            **{name: place[name] for name in ("doc_id", "source", "shard", "row")},
            "text": text,
        }
        for similarity, place, text in zip(similarities[found], places, texts, strict=True)
    ]


def text_at(run: Run, role: str, place: dict[str, Any]) -> str | None:
    """The start of the text at a place; None where its shard was deleted or replaced since."""
    info = parts.find(run.storage, place["shard"])
    if info is None:
        return None
    reader = shards.reader(run.storage, ObjectInfo(info.key, info.size, place["etag"]), role, run.config)
    try:
        text: str | Rejection | Refusal | None
        if isinstance(reader, shards.Corpus):
            ((_, text),) = reader.pick([place["row"]])
        else:
            text = reader.text_at(place["row"])
    except ObjectChangedError:
        return None
    return text[:_TOLD] if isinstance(text, str) else None


def render(found: list[dict[str, Any]]) -> str:
    """What was found as a person reads it."""
    lines = []
    for match in found:
        lines.append(
            f"{match['similarity']:7.4f}  {match['doc_id']}  {printable(match['shard'])} row {match['row']:,}"
        )
        lines.append(f"         {described(match['text'])}")
    return "\n".join([*lines, ""])


def described(text: str | None) -> str:
    """The start of a text in one line."""
    return "(its shard was deleted or replaced)" if text is None else printable(text, _PRINTED)


def _vector(run: Run, text: str) -> NDArray[np.float16]:
    # A command line is bytes; those that are not UTF-8 are refused as in a shard.
    checked = paths.join([os.fsencode(text)])
    if not isinstance(checked, Refusal):
        encoder = open_encoder(run.config.encoder, run.plan.encoder_identity)
        vector = encoder.vector_of(checked)
        if not isinstance(vector, Refusal):
            return vector
        checked = vector
    raise InputError(f"the text that is searched for has no vector ({checked.message}): give another")
