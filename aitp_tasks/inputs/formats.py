"""Which endings are read, and as what: one table for corpora and SFT sets, without regard to case."""

from dataclasses import dataclass
from enum import StrEnum


class Format(StrEnum):
    """How a file holds rows; the value is its ending in messages and reports."""

    PARQUET = "parquet"
    JSON_LINES = "jsonl"
    JSON = "json"  # one array, or JSON Lines
    CSV = "csv"
    TSV = "tsv"
    ARROW = "arrow"  # Arrow's IPC format: a stream, as datasets leaves it, or a file
    TAR = "tar"  # WebDataset's: files of one name and several endings are a row

    @property
    def label(self) -> str:
        """The format's name, for messages."""
        return _TITLES[self]


_TITLES = {
    Format.PARQUET: "Parquet",
    Format.JSON_LINES: "JSON Lines",
    Format.JSON: "JSON",
    Format.CSV: "CSV",
    Format.TSV: "TSV",
    Format.ARROW: "Arrow IPC",
    Format.TAR: "tar",
}
_FORMATS = {
    ".parquet": Format.PARQUET,
    ".pq": Format.PARQUET,
    ".jsonl": Format.JSON_LINES,
    ".ndjson": Format.JSON_LINES,
    ".json": Format.JSON,
    ".csv": Format.CSV,
    ".tsv": Format.TSV,
    ".arrow": Format.ARROW,
    ".feather": Format.ARROW,
    ".tar": Format.TAR,
}
#: Endings of compressions, with their names for Arrow.
COMPRESSIONS = {".gz": "gzip", ".zst": "zstd", ".bz2": "bz2", ".xz": "xz"}
#: Formats with an index of their own, which are read by ranges: a compression would be around all of it.
TABLES = (Format.PARQUET, Format.ARROW)
#: What is read, for messages.
READ = (
    ".parquet, .pq, .arrow, .feather; .jsonl, .ndjson, .json, .csv, .tsv and .tar, also with "
    ".gz, .zst, .bz2 or .xz"
)


@dataclass(frozen=True)
class Kind:
    """What a file is by its ending.

    Attributes:
        format: how it holds rows.
        packed: the ending of its compression, or nothing.
    """

    format: Format
    packed: str = ""

    @property
    def label(self) -> str:
        """Its name, for messages: ``JSON Lines.gz``."""
        return self.format.label + self.packed

    @property
    def is_table(self) -> bool:
        """Whether it has columns with types."""
        return self.format in TABLES


def of(key: str) -> Kind | None:
    """What an object is by its key; None where it is nothing that is read."""
    name = key.rpartition("/")[2].lower()
    packed = next((ending for ending in COMPRESSIONS if name.endswith(ending)), "")
    stem, dot, ending = name.removesuffix(packed).rpartition(".")
    found = _FORMATS.get(dot + ending) if stem else None
    if found is None or (packed and found in TABLES):
        return None
    return Kind(found, packed)
