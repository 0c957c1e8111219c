"""The card's front matter: what the hub and loaders read of it, whatever its text says."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import pyarrow as pa
import yaml

from aitp_tasks.config import Assemble
from aitp_tasks.records import data_files

#: The hub's categories: fewer rows than the number belong to it.
_SIZES = (
    (1_000, "n<1K"),
    (10_000, "1K<n<10K"),
    (100_000, "10K<n<100K"),
    (1_000_000, "100K<n<1M"),
    (10_000_000, "1M<n<10M"),
    (100_000_000, "10M<n<100M"),
    (1_000_000_000, "100M<n<1B"),
    (10_000_000_000, "1B<n<10B"),
    (100_000_000_000, "10B<n<100B"),
    (1_000_000_000_000, "100B<n<1T"),
)
_LARGEST = "n>1T"
TAGS = ("aitp", "instruction-tuning", "synthetic")
_TASKS = ("text-generation",)
#: What ``licence`` gives; whoever finishes a card replaces these and nothing else.
LICENCE_KEYS = ("license", "license_name", "license_link")
_FENCE = "---\n"
#: Types that the hub's names differ for.
_TYPES = {"double": "float64", "float": "float32", "extension<arrow.json>": "json"}


def size_category(rows: int) -> str:
    """The hub's category of a dataset of so many rows."""
    return next((name for bound, name in _SIZES if rows < bound), _LARGEST)


def licence(settings: Assemble) -> dict[str, str]:
    """What the front matter says of the licence; nothing where none is configured."""
    told = {name: getattr(settings, name) for name in LICENCE_KEYS}
    return {name: value for name, value in told.items() if value is not None}


def values(
    settings: Assemble,
    languages: Sequence[str],
    info: Mapping[str, Any],
    tags: Sequence[str] = TAGS,
) -> dict[str, Any]:
    """The front matter as plain values.

    Args:
        settings: of the run that makes the version.
        languages: codes of those that the rows are in.
        info: ``dataset_info``.
        tags: for the hub's search.
    """
    return {
        "pretty_name": settings.dataset,
        **licence(settings),
        **({"language": list(languages)} if languages else {}),
        "size_categories": [size_category(sum(split["num_examples"] for split in info["splits"]))],
        "task_categories": list(_TASKS),
        "tags": list(tags),
        # By which loaders know the rows from all else; without it they go by the folder's name.
        "configs": [
            {
                "config_name": "default",
                "data_files": [
                    {"split": split["name"], "path": data_files.pattern(split["name"])}
                    for split in info["splits"]
                ],
            }
        ],
        "dataset_info": dict(info),
    }


class Split(NamedTuple):
    """The rows of a split, and their bytes in memory."""

    rows: int
    in_memory: int


def dataset_info(schema: pa.Schema, splits: Mapping[str, Split], on_disk: int) -> dict[str, Any]:
    """Features and sizes, in bytes, as datasets would find them itself."""
    return {
        "features": [_feature(field.name, field.type) for field in schema],
        "splits": [
            {"name": name, "num_bytes": split.in_memory, "num_examples": split.rows}
            for name, split in splits.items()
        ],
        "download_size": on_disk,
        "dataset_size": sum(split.in_memory for split in splits.values()),
    }


def _feature(name: str, kind: pa.DataType) -> dict[str, Any]:
    if pa.types.is_list(kind):
        inner = kind.value_type
        if pa.types.is_struct(inner):
            return {"name": name, "list": [_feature(field.name, field.type) for field in inner]}
        return {"name": name, "list": _type(inner)}
    return {"name": name, "dtype": _type(kind)}


def _type(kind: pa.DataType) -> str:
    return _TYPES.get(str(kind), str(kind))


def written(told: Mapping[str, Any]) -> str:
    """The front matter as it stands at the beginning of a card."""
    # Escaped, whatever a text holds, and quoted where a reader would take it for something else.
    return f"{_FENCE}{yaml.safe_dump(dict(told), sort_keys=False, width=1_000)}{_FENCE}"


def split(card: str) -> tuple[dict[str, Any], str]:
    """The front matter of a card, and its text."""
    told, _, text = card.removeprefix(_FENCE).partition(f"\n{_FENCE}")
    values: dict[str, Any] = yaml.safe_load(told)
    return values, text


def relicensed(told: Mapping[str, Any], settings: Assemble) -> dict[str, Any]:
    """A front matter with another licence, at the same place."""
    left = {name: value for name, value in told.items() if name not in LICENCE_KEYS}
    name, *_ = left
    return {name: left.pop(name), **licence(settings), **left}
