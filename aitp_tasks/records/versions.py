"""The line of versions of a dataset: on which version a run builds, and which it adds.

``datasets/<line>/latest.json`` names the version that the next run builds on: its
pairs belong to that run's SFT side, and its projection and grid are kept. Which
version inputs were planned on is written down under ``datasets/<line>/plans/``,
so that the same inputs lead to the same run although ``latest`` has moved.
"""

import json
import logging
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor

from pydantic import BaseModel, ConfigDict, ValidationError

from aitp_tasks.errors import InputError, TransientError
from aitp_tasks.records.contents import Contents, StoredFile
from aitp_tasks.storage import Storage, Tagged

log = logging.getLogger(__name__)

LATEST, NONE = "latest", "none"
#: Each time that a pointer is not moved, somebody else has moved it: nobody is that busy.
_TRIES = 100


class Geometry(BaseModel):
    """The projection and grid that a line keeps."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    key: str
    #: Digest of the encoder and of the settings that it was fitted with.
    identity: str
    #: Key of the grid of the corpus that it was fitted to.
    corpus_grid: str


class Yield(BaseModel):
    """Pairs that documents have given: sums in which each night counts half as much as the next."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    documents: float = 0.0
    pairs: float = 0.0

    def plus(self, documents: int, pairs: int) -> "Yield":
        """With one more night."""
        return Yield(documents=self.documents / 2 + documents, pairs=self.pairs / 2 + pairs)


class Regions(BaseModel):
    """What the documents of each region of the plane have given: sums as those of ``Yield``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    #: Of the plane, as ``densities.partition`` makes them; in the line's geometry.
    cuts: tuple[tuple[int, float], ...]
    #: Digest of the models, prompts and gates that have given it.
    setup: str
    documents: tuple[float, ...]
    #: That the gates of the prompt stages have kept.
    pairs: tuple[float, ...]
    #: That were generated.
    tokens: tuple[float, ...]

    @classmethod
    def unmeasured(cls, cuts: Iterable[tuple[int, float]], setup: str) -> "Regions":
        """Regions of which nothing is known."""
        found = tuple(cuts)
        none = (0.0,) * (len(found) + 1)
        return cls(cuts=found, setup=setup, documents=none, pairs=none, tokens=none)

    def plus(self, night: "Regions") -> "Regions":
        """With one more night, by the same set-up; nothing of this one where it is of another."""
        if not any(night.documents):
            return self
        if (self.cuts, self.setup) != (night.cuts, night.setup):
            return night

        def faded(name: str) -> tuple[float, ...]:
            both = zip(getattr(self, name), getattr(night, name), strict=True)
            return tuple(before / 2 + now for before, now in both)

        sums = {name: faded(name) for name in ("documents", "pairs", "tokens")}
        return self.model_copy(update=sums)


class Version(BaseModel):
    """One version of a dataset, as ``version.json`` says it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    #: Prefix of the run that has made it.
    run: str
    #: The versions that it builds on, the oldest first.
    ancestors: tuple[str, ...] = ()
    #: Keys of all its rewritten pairs; those of an earlier release lie in one object a version.
    pairs: tuple[str, ...] = ()
    geometry: Geometry
    #: Whether the corpus has moved so far that the next run should fit anew.
    refit_due: bool = False
    #: Key of the grid of all dumps of the line since its geometry was fitted; None in earlier releases.
    corpus: str | None = None
    #: By which order pairs stayed (``assemble.order``).
    order: tuple[str, ...] = ()
    #: Digest of the SFT set; empty in earlier releases.
    sft: str = ""
    #: Digest of all that its pairs were compared with.
    compared: str = ""
    #: Of the nights up to this version.
    measured: Yield = Yield()
    #: Of the nights up to this version; None in earlier releases, and before a document was rewritten.
    regions: Regions | None = None
    #: What it holds; None in earlier releases.
    contents: Contents | None = None

    @property
    def files(self) -> Mapping[str, StoredFile]:
        """Its own files but ``version.json``, by their path in its folder; none in earlier releases."""
        return self.contents.files if self.contents else {}

    @property
    def position(self) -> dict[str, int]:
        """The place in the line of this version and of those that it builds on, by name."""
        return {name: place for place, name in enumerate((*self.ancestors, self.name))}


class Pointer(BaseModel):
    """What ``latest.json`` holds; people write it too."""

    model_config = ConfigDict(frozen=True)

    version: str
    #: Prefix of the run that has made it.
    run: str = ""
    #: Versions that a person has taken back, and when (UTC): only a person lets one be the latest again.
    rolled_back: dict[str, str] = {}

    def data(self) -> bytes:
        """The same as bytes."""
        return self.model_dump_json(exclude_defaults=True).encode()


def source(line: str) -> str:
    """How the pairs of a line are called where the names of dumps and SFT sets are."""
    return f"datasets/{line}"


def prefix(line: str, name: str) -> str:
    """Prefix of a version's objects."""
    return f"datasets/{line}/{name}"


def records(line: str) -> str:
    """Prefix of what later runs need of the versions of a line, and no reader of a dataset; named by content.

    An earlier release has it among each version's own objects.
    """
    return f"datasets/{line}/records"


def load(storage: Storage, line: str, name: str) -> Version:
    """Read a version.

    Raises:
        InputError: there is no such version, or what says so cannot be read.
    """
    key = f"{prefix(line, name)}/version.json"
    if storage.find(key) is None:
        raise InputError(
            f"{storage.uri(key)} does not exist: name a version of {line} in assemble.base, "
            f"or in {storage.uri(_latest_key(line))}"
        )
    try:
        return Version.model_validate_json(storage.read(key))
    except ValidationError as error:
        where = ", ".join(".".join(map(str, item["loc"])) or "it is not JSON" for item in error.errors()[:3])
        raise InputError(
            f"{storage.uri(key)} cannot be read ({where}): restore it, or use the release that has made it"
        ) from None


def latest(storage: Storage, line: str) -> Version | None:
    """The version that ``latest`` names; None before the first.

    Raises:
        InputError: that version does not exist.
    """
    return _named(storage, line, storage.read_tagged(_latest_key(line)))


def take_in(storage: Storage, line: str, dumps: Iterable[str], run: str) -> None:
    """Write down that a line has taken in some dumps, whether or not they have changed anything."""
    for dump in dumps:
        storage.write_if_absent(f"{_taken_in(line)}{dump}.json", json.dumps({"run": run}).encode())


def taken_in(storage: Storage, line: str) -> set[str]:
    """Names of the dumps that a line has taken in."""
    return _names(storage, _taken_in(line))


def taken_in_by(storage: Storage, line: str) -> dict[str, str]:
    """Of each dump that a line has taken in, the prefix of the run that did."""
    names = sorted(taken_in(storage, line))
    with ThreadPoolExecutor(storage.concurrency) as pool:
        read = pool.map(storage.read, [f"{_taken_in(line)}{name}.json" for name in names])
        return {name: str(json.loads(data)["run"]) for name, data in zip(names, read, strict=True)}


def begin_with(storage: Storage, line: str, dump: str, holder: str) -> None:
    """Write down that a run was begun for a dump."""
    storage.write_if_absent(f"{_begun(line)}{dump}.json", json.dumps({"holder": holder}).encode())


def begun_with(storage: Storage, line: str) -> set[str]:
    """Names of the dumps that runs were begun for."""
    return _names(storage, _begun(line))


def is_latest(storage: Storage, line: str, name: str) -> bool:
    """Whether ``latest`` names a version, or one that builds on it."""
    newest = latest(storage, line)
    return newest is not None and name in newest.position


def seen(storage: Storage, line: str) -> Tagged | None:
    """``latest`` as it is now; None before the first version."""
    return storage.read_tagged(_latest_key(line))


def pointed(storage: Storage, line: str, read: Tagged | None) -> Pointer | None:
    """What ``latest`` says, as it was seen.

    Raises:
        InputError: it names no version.
    """
    if read is None:
        return None
    try:
        return Pointer.model_validate_json(read.data)
    except ValidationError:
        raise InputError(
            f"{storage.uri(_latest_key(line))} names no version: write "
            '{"version": "NAME"} into it, or delete it to begin the line anew'
        ) from None


def move(storage: Storage, line: str, read: Tagged | None, to: Pointer) -> bool:
    """Let ``latest`` say something else, unless somebody has moved it since it was seen."""
    return _move(storage, _latest_key(line), read, to.data())


def _named(storage: Storage, line: str, read: Tagged | None) -> Version | None:
    said = pointed(storage, line, read)
    return None if said is None else load(storage, line, said.version)


def named(storage: Storage, line: str, setting: str) -> Version | None:
    """The version that ``assemble.base`` names now.

    Raises:
        InputError: it does not exist.
    """
    if setting == NONE:
        return None
    return latest(storage, line) if setting == LATEST else load(storage, line, setting)


def base(
    storage: Storage, line: str, setting: str, inputs: str, made_on: Callable[[Version | None], str]
) -> Version | None:
    """The version that a run builds on.

    Args:
        setting: ``latest``, ``none`` or a version's name.
        inputs: digest of the run's inputs, without the base.
        made_on: name of the version that these inputs make on a base.

    Raises:
        InputError: a version that is named does not exist.
    """
    if setting == NONE:
        return None
    if setting != LATEST:
        return load(storage, line, setting)
    key = _plans_key(line, inputs)
    for _ in range(_TRIES):
        read = seen(storage, line)
        said, newest = pointed(storage, line, read), _named(storage, line, read)
        name = newest.name if newest else None
        if storage.write_if_absent(key, _base_json(name)):
            return newest
        noted = storage.read_tagged(key)
        if noted is None:
            continue
        planned_on = json.loads(noted.data)["base"]
        if planned_on == name:
            return newest
        taken_back = said is not None and planned_on in said.rolled_back
        settled = planned_on is not None and storage.find(_settled_key(line, inputs, planned_on)) is not None
        if settled and not taken_back:
            return load(storage, line, planned_on)
        if newest is not None and planned_on in (None, *newest.ancestors):
            before = load(storage, line, planned_on) if planned_on else None
            if made_on(before) in (*newest.ancestors, newest.name):
                return before
        # Another plan of the same inputs may have moved it meanwhile, and on another version.
        if storage.write_if_matches(key, _base_json(name), noted.tag):
            log.info("line=%s has moved on from %s: the run now builds on %s", line, planned_on, name)
            return newest
    raise _contended(storage, key)


def call_for_refit(storage: Storage, line: str, name: str) -> None:
    """Write down that a run on a version has found a refit due, of one that makes no version to say so."""
    storage.write_if_absent(f"{prefix(line, name)}/refit-due.json", b"{}")


def refit_is_due(storage: Storage, line: str, version: Version) -> bool:
    """Whether the next run on a version is to fit anew."""
    return version.refit_due or storage.find(f"{prefix(line, version.name)}/refit-due.json") is not None


def settle(storage: Storage, line: str, inputs: str, base: str) -> None:
    """Write down that inputs have changed nothing of the version that they were planned on."""
    storage.write_if_absent(_settled_key(line, inputs, base), b"{}")


def was_planned(storage: Storage, line: str, inputs: str) -> bool:
    """Whether inputs were planned before, on whatever version."""
    return storage.find(_plans_key(line, inputs)) is not None


def write(storage: Storage, line: str, version: Version) -> None:
    """Write a version; ``latest`` names what it named."""
    key = f"{prefix(line, version.name)}/version.json"
    storage.write_if_absent(key, version.model_dump_json(indent=1).encode())


def add(storage: Storage, line: str, version: Version) -> bool:
    """Write a version, and let ``latest`` name it if it builds on what ``latest`` names.

    Of two versions that are added at once on the same base, one becomes the latest;
    the other is written, and says so; and so is one that a person has taken back.

    Returns:
        Whether ``latest`` names it now, or has named it before.
    """
    write(storage, line, version)
    for _ in range(_TRIES):
        read = seen(storage, line)
        said, newest = pointed(storage, line, read), _named(storage, line, read)
        taken_back = said.rolled_back if said else {}
        if newest is not None and version.name in (*newest.ancestors, newest.name):
            return True
        if newest is not None and newest.name != (version.ancestors or (None,))[-1]:
            log.warning(
                "%s builds on %s, but %s is the latest version now and stays it: plan the run again "
                "(clear its plan task) to build on that",
                version.name,
                (version.ancestors or ("no version",))[-1],
                newest.name,
            )
            return False
        if version.name in taken_back:
            log.warning(
                "%s was rolled back at %s and stays so: `aitp dataset rollback %s` makes it the latest again",
                *(version.name, taken_back[version.name], version.name),
            )
            return False
        told = Pointer(version=version.name, run=version.run, rolled_back=taken_back)
        if move(storage, line, read, told):
            return True
    raise _contended(storage, _latest_key(line))


def _move(storage: Storage, key: str, read: Tagged | None, data: bytes) -> bool:
    """Write a pointer unless somebody has moved it since it was read."""
    if read is None:
        return storage.write_if_absent(key, data)
    return storage.write_if_matches(key, data, read.tag)


def _contended(storage: Storage, key: str) -> TransientError:
    return TransientError(
        f"{storage.uri(key)} was moved by others {_TRIES} times while this run tried to: "
        "see that one run at a time works on a dataset, then retry"
    )


def _settled_key(line: str, inputs: str, base: str) -> str:
    return f"datasets/{line}/plans/{inputs}-unchanged-{base}.json"


def _plans_key(line: str, inputs: str) -> str:
    return f"datasets/{line}/plans/{inputs}.json"


def _taken_in(line: str) -> str:
    return f"datasets/{line}/dumps/taken-in/"


def _begun(line: str) -> str:
    return f"datasets/{line}/dumps/begun/"


def _names(storage: Storage, prefix: str) -> set[str]:
    return {info.key.removeprefix(prefix).removesuffix(".json") for info in storage.list(prefix)}


def _latest_key(line: str) -> str:
    return f"datasets/{line}/latest.json"


def _base_json(name: str | None) -> bytes:
    return json.dumps({"base": name}).encode()
