"""Whether the shards of a source are what the configuration reads, by what plan has read of them.

Columns of tables are there or not; of rows of JSON only the first are known, and
a key may come later. So a file of JSON is wrong where none of its first rows has
any of the texts, and a path where no file has it.
"""

from collections.abc import Iterable, Sequence

import pyarrow as pa

from aitp_tasks.config import RunConfig
from aitp_tasks.errors import InputError
from aitp_tasks.inputs import shapes
from aitp_tasks.inputs.footers import Footer
from aitp_tasks.inputs.forms import columns
from aitp_tasks.inputs.listing import NAMES_SHOWN, shortened
from aitp_tasks.inputs.paths import TextPath
from aitp_tasks.inputs.shards import partitions
from aitp_tasks.storage import ObjectInfo, Storage

#: Schema or shape, and the names that folders give values to.
_Kind = tuple[bytes, frozenset[str]]


def problems(
    storage: Storage,
    role: str,
    objects: Iterable[ObjectInfo],
    found: Iterable[Footer | None],
    config: RunConfig,
) -> list[str]:
    """What is wrong with a source's shards; each kind of them is checked once, and names its first shards."""
    kinds: dict[_Kind, list[str]] = {}
    wrong = []
    for info, footer in zip(objects, found, strict=True):
        if footer is not None and footer.mistake:
            wrong.append(footer.mistake)
        elif footer is not None and footer.schema:
            folders = frozenset(partitions(info.key)) if role == "corpus" else frozenset[str]()
            kinds.setdefault((footer.schema, folders), []).append(info.key)
    texts, sources = _paths(config)
    for (schema, folders), keys in kinds.items():
        where = storage.uri(keys[0])
        try:
            if role == "sft":
                columns.wanted(_schema(schema), where, config.examples)
            else:
                _check(schema, where, texts, [path for path in sources if path.spec not in folders])
        except InputError as error:
            others = [key.rpartition("/")[2] for key in keys[1:]]
            wrong.append(f"{error} (the same: {shortened(others)})" if others else str(error))
    if not wrong and role == "corpus":
        wrong += _nowhere(storage, kinds, [*texts, *sources])
    return wrong


def told(problems: Sequence[str]) -> str:
    """Some problems, of many the first."""
    left = len(problems) - NAMES_SHOWN
    return "; ".join([*problems[:NAMES_SHOWN], f"and {left} more"] if left > 0 else problems)


def _paths(config: RunConfig) -> tuple[list[TextPath], list[TextPath]]:
    column = config.difference.source_column
    sources = [] if column is None else [TextPath(column, "difference.source_column")]
    return [TextPath(column) for column in config.text_columns], sources


def _check(schema: bytes, where: str, texts: Sequence[TextPath], sources: Sequence[TextPath]) -> None:
    if not shapes.is_shape(schema):
        for path in (*texts, *sources):
            path.check(_schema(schema), where)
    elif not any(shapes.has_text(schema, path) for path in texts) and not shapes.is_empty(schema):
        raise shapes.absent(schema, texts[0], where)


def _nowhere(storage: Storage, kinds: dict[_Kind, list[str]], paths: Sequence[TextPath]) -> list[str]:
    """Paths that none of the files of JSON has, where there is no other file."""
    known = [kind for kind in kinds if not shapes.is_empty(kind[0])]
    if not known or not all(shapes.is_shape(schema) for schema, _ in known):
        return []
    schema, _ = known[0]
    where = storage.uri(kinds[known[0]][0])
    return [
        str(shapes.absent(schema, path, where))
        for path in paths
        if not any(path.spec in folders or shapes.has_text(schema, path) for schema, folders in known)
    ]


def _schema(data: bytes) -> pa.Schema:
    return pa.ipc.read_schema(pa.py_buffer(data))
