"""A planned run, opened for one of its stages.

``aitp plan`` freezes a plan into ``runs/<dump>/<digest>/plan.json``; every later
stage opens that run by its URI.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from pydantic import ValidationError

from aitp_tasks.config import RunConfig
from aitp_tasks.errors import InputError
from aitp_tasks.records import manifest
from aitp_tasks.records.manifest import Manifest
from aitp_tasks.records.plan import Group, Plan
from aitp_tasks.storage import Storage, open_storage

RUNS = "runs"
_PLAN = "plan.json"


@dataclass(frozen=True)
class Run:
    """A planned run, opened for one of its stages."""

    storage: Storage
    plan: Plan
    #: The plan's digest when it was made; a later release, which knows more settings, computes another.
    digest: str

    @classmethod
    def open(cls, uri: str) -> "Run":
        """Open the run at ``<root>/runs/<dump>/<digest>``.

        Raises:
            InputError: the URI is not a run's, nothing was planned there, or the plan is
                not the one that the URI names: somebody has edited it. Where models,
                prompts and servers are (``RunConfig.identity``) is not part of the name,
                hence not checked.
        """
        root, separator, rest = uri.rstrip("/").rpartition(f"/{RUNS}/")
        if not separator or rest.count("/") != 1:
            raise InputError(
                f"run {uri!r} is not of the form <root>/runs/<dump>/<digest>: take it from `aitp plan`"
            )
        storage = open_storage(root)
        key = f"{RUNS}/{rest}"
        if storage.find(f"{key}/{_PLAN}") is None:
            raise InputError(f"there is no plan at {uri}: run `aitp plan` first")
        plan, digest = _read(storage.read(f"{key}/{_PLAN}"), uri)
        if f"{plan.config.dump}/{digest}" != rest:
            raise InputError(
                f"the plan at {uri} is that of {plan.config.dump}/{digest}: it was edited or moved after "
                "it was made; find out by whom, then plan the run again (clear its plan task) to restore it"
            )
        return cls(storage, plan, digest)

    @classmethod
    def create(cls, storage: Storage, plan: Plan) -> "Run":
        """Freeze a plan; the same plan a second time changes nothing.

        A plan of the same identity whose model folders lie elsewhere replaces the
        old one: only the places differ, never a result.

        Raises:
            InputError: a setting cannot be kept: the plan as it is read back is another one.
        """
        run = cls(storage, plan, plan.digest)
        key, data = f"{run.prefix}/{_PLAN}", plan.model_dump_json().encode()
        if not _keeps(data, run.digest):
            raise InputError(
                "a setting of the configuration, or a prompt's, is .inf or .nan, which JSON cannot hold: "
                "give it a number"
            )
        if not storage.write_if_absent(key, data) and storage.read(key) != data:
            storage.write(key, data)
        return run

    @property
    def config(self) -> RunConfig:
        """The frozen configuration."""
        return self.plan.config

    @property
    def prefix(self) -> str:
        """Prefix of the run's objects."""
        return f"{RUNS}/{self.config.dump}/{self.digest}"

    @property
    def uri(self) -> str:
        """The run's URI."""
        return self.storage.uri(self.prefix)

    def key(self, stage: str, name: str) -> str:
        """Key of one of the run's own objects."""
        return f"{self.prefix}/{stage}/{name}"

    def manifest_key(self, stage: str, unit: str | None = None) -> str:
        """Key of a stage's manifest, or of one of its units'."""
        return self.key(stage, f"{unit}.json" if unit else "manifest.json")

    def find_manifest(self, stage: str, unit: str | None = None) -> Manifest | None:
        """A manifest, or None when that work has not been done."""
        return manifest.load(self.storage, self.manifest_key(stage, unit))

    def require_manifest(self, stage: str, unit: str | None = None, what: str = "") -> Manifest:
        """A manifest that an earlier stage has left.

        Raises:
            InputError: it is not there; the message names the command to run.
        """
        found = self.find_manifest(stage, unit)
        if found is None:
            raise InputError(f"{what or stage} has not been done in {self.uri}: run `aitp {stage}` first")
        return found

    def commit(self, done: Manifest, unit: str | None = None) -> Manifest:
        """Commit a stage's or a unit's manifest."""
        return manifest.commit(self.storage, self.manifest_key(done.stage, unit), done)

    def group(self, unit: int) -> Group:
        """The group of one unit of embed or density.

        Raises:
            InputError: the plan has no such unit.
        """
        groups = self.plan.groups
        if not 0 <= unit < len(groups):
            raise InputError(f"unit {unit} does not exist: the plan has units 0 to {len(groups) - 1}")
        return groups[unit]

    def part(self, unit: int) -> str:
        """Name of one part of the difference set; parts are slices of the hash space.

        Raises:
            InputError: the difference set has no such part.
        """
        if not 0 <= unit < self.part_count:
            raise InputError(f"unit {unit} does not exist: the difference set has {self.part_count} parts")
        return self.parts[unit]

    @property
    def part_count(self) -> int:
        """How many parts the difference set is cut into."""
        return sum(self._parts)

    @property
    def parts(self) -> list[str]:
        """Names of all parts of the difference set: those of the pilot, if there is one, come first."""
        pilots, others = self._parts
        return [pilot_name(unit, pilots) for unit in range(pilots)] + [
            part_name(unit, others) for unit in range(others)
        ]

    @property
    def pilot_parts(self) -> list[str]:
        """Of these, the parts of the pilot."""
        return self.parts[: self._parts[0]]

    @cached_property
    def _parts(self) -> tuple[int, int]:
        """How many parts the pilot has, and how many the rest."""
        figures = self.require_manifest("difference").figures
        # Not there in earlier releases.
        pilots = int(figures.get("pilot_parts", 0))
        return pilots, int(figures["parts"]) - pilots


def _keeps(data: bytes, digest: str) -> bool:
    """Whether a plan as it is to be stored will be read as the one that was made."""
    try:
        return Plan.read(data)[1] == digest
    except ValueError:
        return False


def _read(data: bytes, uri: str) -> tuple[Plan, str]:
    try:
        return Plan.read(data)
    except ValueError as error:
        # Without the values: they may be long, and are nobody's that reads a log.
        where = (
            ", ".join(".".join(map(str, item["loc"])) for item in error.errors()[:3])
            if isinstance(error, ValidationError)
            else "it is not JSON"
        )
        raise InputError(
            f"the plan at {uri} cannot be read ({where}): it was edited, or made by another release; "
            "plan the run again"
        ) from None


def parts_with(figures: Mapping[str, Any], doc_id: str) -> list[str]:
    """Names of the parts that may hold a document, by difference's figures: those of a pilot, and one other.

    Args:
        figures: of difference's manifest.
        doc_id: the document's id, or its first 8 digits or more.
    """
    # Not there in earlier releases.
    pilots = int(figures.get("pilot_parts", 0))
    others = int(figures["parts"]) - pilots
    found = [pilot_name(unit, pilots) for unit in range(pilots)]
    return found + ([part_name(part_of(doc_id, others), others)] if others else [])


def part_of(doc_id: str, parts: int) -> int:
    """The unit that a document of the sample is in."""
    return int(doc_id[:8], 16) * parts >> 32


def part_name(unit: int, parts: int) -> str:
    """Name of part ``unit`` of ``parts``."""
    return f"part-{unit:04d}-of-{parts:04d}"


def pilot_name(unit: int, parts: int) -> str:
    """Name of part ``unit`` of ``parts`` of a pilot."""
    return f"pilot-{unit:04d}-of-{parts:04d}"
