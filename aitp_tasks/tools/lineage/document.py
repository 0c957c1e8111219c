"""The document of a pair: its text as the bucket has it now, or as the run has kept it."""

from dataclasses import dataclass
from typing import Any

from aitp_tasks.config import RunConfig
from aitp_tasks.errors import InputError
from aitp_tasks.inputs import parts, shards
from aitp_tasks.records import digest
from aitp_tasks.storage import ObjectChangedError, ObjectInfo, Storage

#: What has become of a shard.
THERE, DELETED, REPLACED, DAMAGED = "there", "deleted", "replaced", "damaged"


@dataclass(frozen=True)
class Document:
    """What is known of a document.

    Attributes:
        state: of its shard: ``there``, ``deleted``, ``replaced`` by other content, or ``damaged``.
        why: what a person should know of that; empty where it is there.
        text: of the document, whose digest is its id; None where nobody has it any more.
        text_from: ``bucket``, ``run``, or None.
    """

    state: str
    why: str
    text: str | None
    text_from: str | None


def of_pair(
    storage: Storage, config: RunConfig, row: dict[str, Any], etag: str | None, kept: str | None
) -> Document:
    """Look for the document of a pair.

    What lies at its place is shown as the document only where it has the document's digest.

    Args:
        storage: where the shard lies.
        config: by which a row's text is read.
        row: with the document's ``doc_id``, ``shard`` and ``row``.
        etag: of the shard as the run has read it; None where that is not on record.
        kept: the text that the run has kept, if it has.
    """
    known = kept if kept is not None and digest.of_text(kept) == row["doc_id"] else None
    where = f"{storage.uri(row['shard'])} row {row['row']}"
    info = parts.find(storage, row["shard"])
    if info is None:
        state, why = DELETED, f"{storage.uri(row['shard'])} was deleted"
        return Document(state, why, known, "run" if known is not None else None)
    found, why = _at(storage, config, info, int(row["row"]), where)
    if found is not None and digest.of_text(found) == row["doc_id"]:
        changed = etag is not None and info.etag != etag
        note = (
            f"{storage.uri(row['shard'])} was replaced, but holds this document at the same row"
            if changed
            else ""
        )
        return Document(REPLACED if changed else THERE, note, found, "bucket")
    state = DAMAGED if etag is not None and info.etag == etag else REPLACED
    why = why or f"{where} holds another text by now: its shard was {state}"
    return Document(state, why, known, "run" if known is not None else None)


def _at(
    storage: Storage, config: RunConfig, info: ObjectInfo, row: int, where: str
) -> tuple[str | None, str]:
    """The text at a place, or why there is none."""
    try:
        for _, text in shards.Corpus(storage, info, config.text_columns).pick([row]):
            return text, ""
    except (InputError, ObjectChangedError) as error:
        return None, " ".join(str(error).split())
    return None, f"{where} is not there any more"
