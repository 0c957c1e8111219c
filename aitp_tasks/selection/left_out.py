"""left_out: the pairs that a version does not hold, of those that it might, and why."""

from typing import Any

import pyarrow as pa

from aitp_tasks.records.pair_texts import Pair

#: ``earlier``: the version before held it. What came instead of it: an SFT example with its place and cosine.
SCHEMA = pa.schema(
    [
        ("pair_id", pa.string()),
        ("question", pa.large_string()),
        ("earlier", pa.bool_()),
        ("version", pa.string()),  # that it came with; null of a new one
        ("reason", pa.string()),
        ("similarity", pa.float64()),
        ("nearest_shard", pa.string()),
        ("nearest_row", pa.int64()),
        ("like", pa.string()),  # what else it was left out for, by name: an evaluation item, another text
    ]
)


def row(
    pair: Pair,
    reason: str,
    *,
    earlier: bool,
    example: dict[str, Any] | None = None,
    like: str | None = None,
) -> dict[str, Any]:
    """A row of ``SCHEMA``.

    Args:
        pair: that is left out.
        reason: why.
        earlier: whether the version before held it.
        example: the SFT example that says the same: ``shard``, ``row`` and ``similarity``.
        like: what else it was left out for, by name.
    """
    nearest = {f"nearest_{name}": example[name] for name in ("shard", "row")} if example else {}
    return {
        "pair_id": pair["pair_id"],
        "question": pair["messages"][0]["content"],
        "earlier": earlier,
        "version": pair.get("version") if earlier else None,
        "reason": reason,
        "similarity": example["similarity"] if example else None,
        **nearest,
        "like": like,
    }
