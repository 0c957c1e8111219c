"""Manifests: what has none does not exist.

A unit writes its data objects first and its manifest last, with
``If-None-Match: *``; of two writers that race, one manifest remains. Each
manifest carries a ledger in which no row is missing.
"""

import json
import os
import resource
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from aitp_tasks.errors import BudgetExceededError, InputError, TransientError
from aitp_tasks.records import damage
from aitp_tasks.storage import Storage

#: What has no manifest does not exist, and is made again.
_AGAIN = "delete it, then clear the task that has made it"
#: Characters of a row's message that an error repeats.
_QUOTED = 200


class Ledger(BaseModel):
    """Where every row of a unit went."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    rows_in: int = Field(ge=0)
    rows_out: int = Field(ge=0)
    #: Rows that could not be processed, by error class; each lies in the quarantine object.
    quarantined: dict[str, int] = {}
    #: Rows left out on purpose (a gate, the sample, a duplicate), by reason.
    rejected: dict[str, int] = {}

    @model_validator(mode="after")
    def _adds_up(self) -> Self:
        total = self.rows_out + self.rows_quarantined + sum(self.rejected.values())
        if total != self.rows_in:
            raise ValueError(f"the ledger does not add up: {self.rows_in} rows in, {total} accounted for")
        return self

    @property
    def rows_quarantined(self) -> int:
        """All quarantined rows."""
        return sum(self.quarantined.values())

    def plus(self, other: "Ledger") -> "Ledger":
        """The ledger of both units together."""
        return Ledger(
            rows_in=self.rows_in + other.rows_in,
            rows_out=self.rows_out + other.rows_out,
            quarantined=add_counts(self.quarantined, other.quarantined),
            rejected=add_counts(self.rejected, other.rejected),
        )

    def check_usable(self, what: str, quarantine: str, commonest: str, blank: bool = False) -> None:
        """Fail when all rows were quarantined: then the rows are not to blame, and no budget helps.

        Args:
            what: the file, for the message.
            quarantine: URI of the quarantined rows, for the message.
            commonest: what is said of most of them.
            blank: whether all rows may have blank texts: such rows are sound.

        Raises:
            InputError: with the classes and what is said.
        """
        if blank and self.quarantined.keys() <= {"empty"}:
            return
        if self.rows_in and self.rows_quarantined == self.rows_in:
            raise InputError(
                f"{what}: none of its {self.rows_in} rows can be used {self.quarantined}, mostly: "
                f"{commonest}: it is not what the configuration reads, or is damaged; see {quarantine}"
            )

    def check_budget(self, budget: float, what: str, quarantine: str, commonest: str = "") -> None:
        """Fail when too many rows were quarantined.

        Args:
            budget: largest share of ``rows_in``.
            what: the unit, for the message.
            quarantine: URI of the quarantined rows, for the message.
            commonest: what is said of most of them.

        Raises:
            BudgetExceededError: with the classes and where the rows lie.
        """
        if self.rows_quarantined > budget * self.rows_in:
            # Where no row can be used, the rows are not to blame, and no budget helps.
            remedy = "then repair the rows or raise the budget" if self.rows_out else "and mend what they say"
            said = f", mostly: {commonest}" if commonest else ""
            raise BudgetExceededError(
                f"{what}: {self.rows_quarantined} of {self.rows_in} rows quarantined {self.quarantined}{said}"
                f", more than failure_budget={budget}: see {quarantine}, {remedy}"
            )

    def check_rejected(self, what: str, chosen: str, first: Mapping[str, str]) -> None:
        """Fail when most of the sound rows were left out because they hold no example.

        Args:
            what: the unit, for the message.
            chosen: the reason of those that the configuration leaves out.
            first: of each reason, the first such row and what is said of it.

        Raises:
            BudgetExceededError: with the reasons, and a row of the commonest.
        """
        rejected = {reason: rows for reason, rows in self.rejected.items() if reason != chosen}
        count = sum(rejected.values())
        if count > 0.5 * (self.rows_in - self.rows_quarantined):
            most = max(rejected, key=rejected.__getitem__)
            raise BudgetExceededError(
                f"{what}: {count} of {self.rows_in} rows ({count / self.rows_in:.0%}) hold no example "
                f"{rejected}, e.g. {first.get(most, most)}: give a set of which at least half the rows are "
                "examples"
            )


def commonest(messages: Iterable[str]) -> str:
    """The message that comes most often, on one line and cut; empty where there is none."""
    counted = Counter(messages).most_common(1)
    return " ".join(counted[0][0].split())[:_QUOTED] if counted else ""


def add_counts(left: Mapping[str, int], right: Mapping[str, int]) -> dict[str, int]:
    """Sum of two tallies."""
    return {key: left.get(key, 0) + right.get(key, 0) for key in sorted({*left, *right})}


class Manifest(BaseModel):
    """What one unit of one stage has done."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    stage: str
    label: str
    ledger: Ledger | None = None
    #: Keys of the data objects, by what they hold.
    outputs: dict[str, str] = {}
    #: Small figures and facts of the unit.
    figures: dict[str, Any] = {}
    seconds: float = 0.0
    peak_memory_mb: float = 0.0

    def output(self, name: str) -> str:
        """Key of one data object."""
        return self.outputs[name]


def load(storage: Storage, key: str) -> Manifest | None:
    """The manifest under ``key``, or None when the unit has not been done.

    Raises:
        DamagedError: it is there, and cannot be read.
    """
    if storage.find(key) is None:
        return None
    return damage.read(storage, key, Manifest.model_validate_json, _AGAIN)


def load_all(storage: Storage, keys: Iterable[str], remedy: str) -> list[Manifest]:
    """Manifests that an earlier unit has used.

    Raises:
        InputError: one was deleted; the message ends with ``remedy``.
    """

    def required(key: str) -> Manifest:
        done = load(storage, key)
        if done is None:
            raise InputError(f"{storage.uri(key)} was deleted: {remedy}")
        return done

    with ThreadPoolExecutor(storage.concurrency) as pool:
        return list(pool.map(required, keys))


def commit(storage: Storage, key: str, manifest: Manifest) -> Manifest:
    """Put the manifest unless there is one; return the one that stands."""
    data = json.dumps(manifest.model_dump(mode="json"), indent=1, sort_keys=True, ensure_ascii=True)
    if storage.write_if_absent(key, data.encode()):
        return manifest
    standing = load(storage, key)
    if standing is None:
        raise TransientError(f"{storage.uri(key)} was deleted while it was committed: run the task again")
    return standing


class Stopwatch:
    """Seconds since it was made, and the process tree's peak memory."""

    def __init__(self) -> None:
        self._start = time.monotonic()

    def seconds(self) -> float:
        """Wall-clock seconds so far, to the millisecond."""
        return round(time.monotonic() - self._start, 3)

    @staticmethod
    def peak_memory_mb() -> float:
        """Largest resident size of this process or of one it has waited for, in MB."""
        peaks = (
            resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
        )
        unit = 1 if os.uname().sysname == "Darwin" else 1024
        return round(max(peaks) * unit / 1e6, 1)
