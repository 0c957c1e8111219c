"""What a dataset version holds, in figures: for whoever has nothing but its ``version.json``."""

import hashlib
from pathlib import Path

from pydantic import BaseModel, ConfigDict


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Share(_Part):
    """Some rows, and their share of all."""

    rows: int
    share: float


class UsedModel(_Part):
    """A model, without where it lies on the machine."""

    name: str
    revision: str | None
    #: Of its content, or of the listing that it was copied from.
    identity: str


class JsonFile(_Part):
    """One of the JSON files.

    Attributes:
        rows: that it has.
        left_out: how many of the dataset's it cannot say, by the reason.
    """

    rows: int
    left_out: dict[str, int]


class MarksHeld(_Part):
    """Marks of chat templates in texts.

    Attributes:
        setting: ``assemble.marks``.
        rows: how many have any; where they are escaped, how many had.
        by_mark: how many have each of the commonest.
        dropped: how many rows are not in the dataset for it.
    """

    setting: str
    rows: int
    by_mark: dict[str, int]
    dropped: int


class StoredFile(_Part):
    """A file of a version's folder, by which a copy is known to be whole."""

    bytes: int
    sha256: str


class Contents(_Part):
    """The figures of one version.

    Attributes:
        made_at: when it was committed, UTC.
        rows: of the dataset.
        by_kind: ``sft``, ``new_pairs`` and ``earlier_pairs``.
        by_dump: of the pairs.
        by_source: the SFT set, as ``sft/<name>``, and of the pairs the largest sources.
        models: ``encoder``, ``engine`` and ``base``.
        columns: types of the Parquet files' columns, by name.
        shards: rows of each Parquet file, by its path.
        validation_shards: the same of the split for validations, which ``rows`` does not count.
        json_files: the other files with rows, by name.
        marks: of chat templates.
        languages: of the rows that were looked at and tell theirs, how many are in each.
        files: all files of the version but its ``version.json``, by their paths; none in earlier releases.
    """

    made_at: str
    rows: int
    by_kind: dict[str, Share]
    by_dump: dict[str, Share]
    by_source: dict[str, Share]
    models: dict[str, UsedModel]
    columns: dict[str, str]
    shards: dict[str, int]
    validation_shards: dict[str, int] = {}
    json_files: dict[str, JsonFile]
    marks: MarksHeld
    languages: dict[str, int] = {}
    files: dict[str, StoredFile] = {}


def shares(counts: dict[str, int], rows: int) -> dict[str, Share]:
    """Counts with their shares of all rows, those of most first."""
    order = sorted(counts, key=lambda name: (-counts[name], name))
    return {name: Share(rows=counts[name], share=round(counts[name] / max(rows, 1), 6)) for name in order}


def files(folder: Path) -> dict[str, StoredFile]:
    """All files below a folder, by their path in it."""
    found = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): of_file(path) for path in found}


def of_file(path: Path) -> StoredFile:
    """Size and digest of a file."""
    return StoredFile(bytes=path.stat().st_size, sha256=sha256(path))


def sha256(path: Path) -> str:
    """What ``sha256sum`` prints of a file."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
