"""What is held out of every dataset version, so that models can be compared on what none has seen.

Who is held out follows from an identity alone: the digest of a document, or that of an SFT
example's text. So it is the same in every night and run, in whatever order and files it
comes, and a larger share holds out the same ones and more.
"""

import heapq
import unicodedata
from collections.abc import Iterable
from typing import Any

from aitp_tasks.records import digest

#: The reason of all that is left out for this.
HELD_OUT = "held_out"
#: What of it is for choosing by; see ``is_validation``.
VALIDATION = "validation"
#: What is held out, by the names that manifests and reports call it by.
SFT, PAIRS, DOCUMENTS = "sft", "pairs", "documents"
_SPACE = 2**64


def identity(text: str) -> str:
    """Identity of an example's text: what looks the same in every letter falls together."""
    return digest.of_bytes(unicodedata.normalize("NFC", text).encode("utf-8", "surrogatepass"))


def is_held_out(identity: str, share: float) -> bool:
    """Whether what has this identity is held out, where so large a share is."""
    return place(identity) < share * _SPACE


def is_validation(identity: str) -> bool:
    """Whether what is held out is for choosing by while a model is trained, and so not for the proof.

    By a hash of its own, so that it is half of any share, and the same half in every night.
    """
    return int(digest.of_text(f"validation {identity}")[:1], 16) < 8


def place(identity: str) -> int:
    """Where an identity lies among all; another hash than that by which parts and samples are drawn."""
    return int(digest.of_text(f"held out {identity}")[:16], 16)


def first(rows: Iterable[dict[str, Any]], name: str, count: int) -> list[dict[str, Any]]:
    """So many rows: those that a smaller share would hold out too.

    Args:
        rows: each with an ``id`` of its own.
        name: of the column with the identity.
        count: at most.
    """
    return heapq.nsmallest(count, rows, key=lambda row: (place(row[name]), row["id"]))
