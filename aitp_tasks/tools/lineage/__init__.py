"""lineage: where a pair comes from, step by step, with its texts; and why it is in a version or not.

All of it is read from what is stored: the version's own rows, the run that has made the pair, and
the shard that its document lay in. What one of these has not, or has no more, is told as not on
record, and the rest is told all the same. Nothing is written.
"""

import sys
from collections.abc import Mapping
from typing import Any

from aitp_tasks.config import RunConfig
from aitp_tasks.records import pairs, versions
from aitp_tasks.storage import open_storage
from aitp_tasks.tools.dataset import catalog
from aitp_tasks.tools.dataset.leaving import Left
from aitp_tasks.tools.lineage import document, found, way
from aitp_tasks.tools.lineage.document import Document
from aitp_tasks.tools.lineage.told import render

_PLACE = ("doc_id", "dump", "source", "shard", "row")
#: What is named where it is not on record.
_FACTS = (
    *_PLACE,
    "etag",
    "span",
    "density_ratio",
    "coordinates",
    "prompt_digests",
    "model",
    "sampling",
    "run",
    "text",
)


def execute(config: RunConfig, pair_id: str, version: str = versions.LATEST) -> dict[str, Any]:
    """Tell the way of a pair, and print it to standard error.

    Args:
        config: names the root and the dataset.
        pair_id: its id, or the first 8 digits of it or more.
        version: where it is looked for first; then in all others, and in what runs have left out.

    Raises:
        InputError: there is no such version, or no such pair, or several.
    """
    storage, line = open_storage(config.root), config.assemble.dataset
    asked = catalog.named(storage, line, version)
    pair = found.find(storage, line, pair_id, asked)
    run, no_run = way.opened(storage, pair.run)
    rows = way.answered(run, pair.row["doc_id"], pair.pair_id)
    drawn = way.drawn(run, pair.row["doc_id"])
    # A row of the dataset says its place; of a pair that no version holds, the difference set does.
    place = {name: pair.row.get(name, drawn.get(name)) for name in _PLACE}
    there = None
    if place["shard"] is not None and place["row"] is not None:
        there = document.of_pair(
            storage, run.config if run else config, place, drawn.get("etag"), drawn.get("text")
        )
    marked = pairs.marks_of(storage, line).get(pair.pair_id)
    told = {
        "pair_id": pair.pair_id,
        "asked": asked.name,
        "in_version": pair.left is None,
        "found_in": pair.version,
        "left": _left(pair.left),
        "came_with": pair.row.get("version"),
        "mark": marked and marked.model_dump(),
        **place,
        "etag": drawn.get("etag"),
        **_seen(there, pair.row, rows),
        **way.region(drawn, pair.row.get("density_ratio")),
        **way.engine(run, pair.row),
        "run": pair.run,
        "no_run": no_run,
        # A pair that a version holds, or has held, was let in by all of them.
        "gates": way.gates(run, rows, pair.left.reason if pair.left and pair.version is None else None),
        **_said(pair.row),
    }
    missing = [name for name in _FACTS if told[name] is None]
    result = {"stage": "lineage", "dataset": line, **told, "not_on_record": missing}
    sys.stderr.write(render(result))
    return result


def _left(left: Left | None) -> dict[str, Any] | None:
    """Why a pair is not in the version that was asked for."""
    if left is None:
        return None
    like = {name: value for name, value in (left.told or {}).items() if name not in ("reason", "question")}
    return {"reason": left.reason, "version": left.version, **like}


def _seen(
    there: Document | None, row: Mapping[str, Any], rows: Mapping[str, Mapping[str, Any]]
) -> dict[str, Any]:
    """The document, and which of its characters the engine has seen."""
    text = there.text if there else None
    return {
        "document": {"state": there.state, "why": there.why, "text_from": there.text_from} if there else None,
        "characters": None if text is None else len(text),
        "span": way.span(text, row.get("cut_characters")),
        "spans": {
            stage: way.span(text, one["cut_characters"])
            for stage, one in rows.items()
            if "cut_characters" in one
        },
        # What is cut off is counted with marks made plain, which are longer then.
        "marks_made_plain": any(one["neutralised"] for one in rows.values()),
        "text": text,
    }


def _said(row: Mapping[str, Any]) -> dict[str, str]:
    """Question and answer, of a version's row or of an answer's."""
    if "messages" not in row:
        return {"question": row["question"], "answer": row["answer"]}
    said = {turn["role"]: str(turn["content"]) for turn in row["messages"]}
    return {"question": said.get("user", ""), "answer": said.get("assistant", "")}
