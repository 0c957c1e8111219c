"""The responses in storage, each as the engine gave it, apart from what is read out of it.

They lie in small objects, each named by the range of its ids, in the order in which
they were finished; when a part is done, small ones are joined to larger ones.
"""

import json
import logging
import math
import queue
import re
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from types import TracebackType
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from aitp_tasks.config import RunConfig
from aitp_tasks.errors import InputError, TransientError
from aitp_tasks.generation.engine import DTYPES, Completion
from aitp_tasks.records import digest, tables
from aitp_tasks.records.plan import FrozenPrompt
from aitp_tasks.storage import ObjectChangedError, ObjectInfo, Storage

log = logging.getLogger(__name__)

_SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("attempt", pa.int64()),
        ("cut_characters", pa.int64()),
        ("text", pa.large_string()),
        ("finish_reason", pa.string()),
        ("prompt_tokens", pa.int64()),
        ("generated_tokens", pa.int64()),
        ("cached_tokens", pa.int64()),
        ("numbers", pa.large_string()),  # JSON
        ("reasoning", pa.large_string()),  # Not there in earlier releases.
    ]
)
_FLUSH_SECONDS = 1.0
#: Characters of an id that a stored object's name tells its range by.
_RANGE = 8
#: Bytes: objects up to the first are joined whatever their sizes, beyond the second none is; of objects
#: beyond the third, only the row groups that hold a wanted row are read.
_SMALL, _LARGE, _READ_WHOLE = 1 << 16, 1 << 25, 1 << 20
#: Bytes of objects that ``join_all`` joins at a time.
_JOINED_BYTES = 1 << 27
#: What follows the prefix in the key of an object of responses: the range of its ids, and its digest.
_NAME = re.compile(r"([^/-]+)-([^/-]+)-[0-9a-f]{32}\.parquet")
#: Rows of a joined object, and of a row group.
_MOST_ROWS, _GROUP_ROWS = 1 << 14, 256
#: Each time that an object is gone, others have joined objects: nobody is that busy.
_TRIES = 20
_T = TypeVar("_T")


@dataclass(frozen=True)
class Response:
    """What an engine has answered.

    Attributes:
        cut_characters: of the document, left out at the end of the prompt.
    """

    completion: Completion
    cut_characters: int = 0


def prefix(
    stage: str, prompt: FrozenPrompt, config: RunConfig, engine_identity: str, dtype: str | None = None
) -> str:
    """Prefix of the responses to one prompt of one model: all that decides them is in it.

    Args:
        dtype: what the engine computes in where it is not told (``engine.dtype``).
    """
    identity = config.engine.generation_identity(dtype)
    return f"generations/{stage}/{digest.of_value([engine_identity, prompt.digest, identity])}/"


def prefixes(stage: str, prompt: FrozenPrompt, config: RunConfig, engine_identity: str) -> set[str]:
    """Those under which responses to one prompt of one model may be, on whatever machines they were made."""
    return {prefix(stage, prompt, config, engine_identity, dtype) for dtype in DTYPES}


def load(storage: Storage, prefix: str, wanted: AbstractSet[str]) -> dict[str, list[Response]]:
    """The attempts that are there of each request that is wanted, in their order.

    Of a large object only what holds wanted rows is read.

    Raises:
        TransientError: others joined the objects again and again while they were read.
    """
    if not wanted:
        return {}
    found: dict[str, dict[int, Response]] = {}
    for _ in range(_TRIES):
        try:
            found.clear()
            for rows in _each(storage, _overlapping(storage, prefix, wanted), partial(_rows_of, wanted)):
                for row in rows:
                    key, attempt = row.pop("id"), row.pop("attempt")
                    found.setdefault(key, {}).setdefault(attempt, _response(row))
            return {key: _unbroken(attempts) for key, attempts in found.items()}
        except _GoneError:
            continue
    raise TransientError(
        f"{storage.uri(prefix)}: objects were joined {_TRIES} times while they were read: retry"
    )


def join(storage: Storage, prefix: str, ids: AbstractSet[str]) -> None:
    """Join the small objects that hold some ids, so that their number does not grow with the nights.

    Each response is written again a few times at most: an object is joined with those
    that are no larger than it is. Joined ones are deleted when what holds all of their
    rows is written; whoever reads at that moment looks again.
    """
    chosen = _joined(_overlapping(storage, prefix, ids))
    try:
        tables_read = list(_each(storage, chosen, tables.read_unchecked)) if len(chosen) > 1 else []
    except _GoneError:
        # Somebody else has joined them.
        return
    if not tables_read:
        return
    table = _once(pa.concat_tables(tables_read, promote_options="default"))
    keys = {
        _write(storage, prefix, table.slice(start, _MOST_ROWS)) for start in range(0, len(table), _MOST_ROWS)
    }
    storage.delete(info.key for info in chosen if info.key not in keys)
    log.info("generations=%s objects=%d joined_to=%d rows=%d", prefix, len(chosen), len(keys), len(table))


def join_all(storage: Storage, prefix: str) -> None:
    """Join the small objects of a prefix, whoever has left them: parts that were given up have joined none.

    Goes through the ids in slices, so that it never holds much more than a part does.
    Whenever it is stopped, all responses are there.

    Raises:
        InputError: an object is damaged.
    """
    small = sum(info.size for info, _ in _named(storage, prefix) if info.size <= _LARGE)
    slices = 1 << max(math.ceil(math.log2(small / _JOINED_BYTES)), 0) if small else 0
    width = 16**_RANGE // max(slices, 1)
    for start in range(0, slices * width, width):
        join(storage, prefix, {f"{start:0{_RANGE}x}", f"{start + width - 1:0{_RANGE}x}"})


def is_one(prefix: str, info: ObjectInfo) -> bool:
    """Whether an object below a prefix holds responses, by its name."""
    return _NAME.fullmatch(info.key.removeprefix(prefix)) is not None


@dataclass(frozen=True)
class Partly:
    """An object of which some responses are asked for.

    Attributes:
        rows: how many it holds.
        kept: how many of those are asked for.
        documents: of which those are.
    """

    prefix: str
    info: ObjectInfo
    rows: int
    kept: int
    documents: frozenset[str]


def partly(storage: Storage, prefix: str, info: ObjectInfo, documents: AbstractSet[str]) -> Partly | None:
    """How many of an object's responses are to requests of some documents; None: others have joined it."""
    try:
        (found,) = _each(
            storage, [info], lambda storage, key: _documents(tables.read_unchecked(storage, key, ["id"]))
        )
    except _GoneError:
        return None
    mine = frozenset(found) & documents
    return Partly(prefix, info, len(found), sum(document in mine for document in found), mine)


def keep_only(storage: Storage, partly: Partly) -> None:
    """Write an object anew with nothing but what is asked for; whoever reads it meanwhile looks again."""
    try:
        (table,) = _each(storage, [partly.info], tables.read_unchecked)
    except _GoneError:
        return
    mine = table.filter(
        pa.array([document in partly.documents for document in _documents(table)], pa.bool_())
    )
    if _write(storage, partly.prefix, mine) != partly.info.key:
        storage.delete([partly.info.key])


def _documents(table: pa.Table) -> list[str]:
    """The document of each request: an id begins with it."""
    return [name.partition("-")[0] for name in table["id"].to_pylist()]


class _GoneError(Exception):
    """An object that was listed is not there any more."""


def _each(storage: Storage, infos: Sequence[ObjectInfo], read: Callable[[Storage, str], _T]) -> Iterator[_T]:
    """What is read of each object.

    Raises:
        _GoneError: one was deleted meanwhile.
        InputError: one is damaged.
    """

    def look(info: ObjectInfo) -> _T:
        try:
            return read(storage, info.key)
        except (InputError, ObjectChangedError):
            if storage.find(info.key) is None:
                raise _GoneError from None
            raise
        except (pa.ArrowException, LookupError, OSError) as error:
            # An error number is the machine's.
            if getattr(error, "errno", None) is not None:
                raise
            reason = " ".join(str(error).split())
            raise InputError(
                f"{storage.uri(info.key)} is no whole table of responses ({reason}): "
                "delete it; what it held is generated again"
            ) from None

    with ThreadPoolExecutor(storage.concurrency) as pool:
        yield from pool.map(look, infos)


def _overlapping(storage: Storage, prefix: str, ids: AbstractSet[str]) -> list[ObjectInfo]:
    """The objects that may hold some ids, by their names."""
    low, high = min(ids)[:_RANGE], max(ids)[:_RANGE]
    return [info for info, (first, last) in _named(storage, prefix) if first <= high and last >= low]


def _named(storage: Storage, prefix: str) -> Iterator[tuple[ObjectInfo, tuple[str, str]]]:
    """The objects of responses below a prefix, with the range of their ids; others are left alone."""
    for info in storage.list(prefix):
        match = _NAME.fullmatch(info.key.removeprefix(prefix))
        if match is None:
            log.warning("object=%r is none of the responses: it is left alone", info.key)
        else:
            yield info, (match[1], match[2])


def _rows_of(wanted: AbstractSet[str], storage: Storage, key: str) -> list[dict[str, Any]]:
    """The wanted rows of one object."""
    info = storage.stat(key)
    if info.size <= _READ_WHOLE:
        rows: list[dict[str, Any]] = tables.read_unchecked(storage, key).to_pylist()
    else:
        with pq.ParquetFile(pa.PythonFile(storage.open(info), mode="r")) as file:
            groups = [
                group
                for group in range(file.num_row_groups)
                if not wanted.isdisjoint(file.read_row_group(group, ["id"])["id"].to_pylist())
            ]
            rows = file.read_row_groups(groups).to_pylist() if groups else []
    return [row for row in rows if row["id"] in wanted]


def _joined(infos: Iterable[ObjectInfo]) -> list[ObjectInfo]:
    """Of some objects, the smallest, up to the first that is much larger than those before it together."""
    chosen: list[ObjectInfo] = []
    total = _SMALL
    for info in sorted(infos, key=lambda info: (info.size, info.key)):
        if info.size > min(2 * total, _LARGE):
            break
        chosen.append(info)
        total += info.size
    return chosen


def _once(table: pa.Table) -> pa.Table:
    """Each attempt once, in the order of the ids."""
    table = table.sort_by([("id", "ascending"), ("attempt", "ascending")])
    ids, attempts = table["id"].combine_chunks(), table["attempt"].combine_chunks()
    first = np.ones(len(table), bool)
    first[1:] = np.logical_or(
        pc.not_equal(ids[1:], ids[:-1]).to_numpy(zero_copy_only=False),
        pc.not_equal(attempts[1:], attempts[:-1]).to_numpy(zero_copy_only=False),
    )
    return table.filter(pa.array(first))


def _response(row: dict[str, Any]) -> Response:
    cut, numbers = row.pop("cut_characters"), json.loads(row.pop("numbers"))
    reasoning = row.pop("reasoning", None) or ""
    return Response(Completion(**row, numbers=numbers, reasoning=reasoning), cut)


def _unbroken(attempts: Mapping[int, Response]) -> list[Response]:
    """The attempts from the first on; what follows a gap was decided by what is missing."""
    return [attempts[number] for number in range(len(attempts)) if set(range(number + 1)) <= attempts.keys()]


class Writer:
    """Makes responses durable within a second after they finish, beside the generation."""

    def __init__(self, storage: Storage, prefix: str, at_most: int) -> None:
        self._storage = storage
        self._prefix = prefix
        self._at_most = at_most
        self._rows: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="responses")

    def add(self, key: str, attempt: int, response: Response) -> None:
        """Take in a response; raises what writing an earlier one has raised."""
        if self._failure is not None:
            raise self._failure
        values = vars(response.completion) | {"numbers": json.dumps(response.completion.numbers)}
        self._rows.put({"id": key, "attempt": attempt, "cut_characters": response.cut_characters, **values})

    def __enter__(self) -> "Writer":
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._rows.put(None)
        self._thread.join()
        if error is None and self._failure is not None:
            raise self._failure

    def _run(self) -> None:
        written = -math.inf
        try:
            while rows := self._next(written + _FLUSH_SECONDS):
                self._write(rows)
                written = time.monotonic()
        except BaseException as failure:
            self._failure = failure

    def _next(self, until: float) -> list[dict[str, Any]]:
        """Waits for a row; then those that come until then. Empty at the end."""
        rows: list[dict[str, Any]] = []
        row = self._rows.get()
        while row is not None:
            rows.append(row)
            left = until - time.monotonic()
            if len(rows) >= self._at_most or left <= 0:
                return rows
            try:
                row = self._rows.get(timeout=left)
            except queue.Empty:
                return rows
        if rows:
            self._rows.put(None)
        return rows

    def _write(self, rows: list[dict[str, Any]]) -> None:
        _write(self._storage, self._prefix, pa.Table.from_pylist(rows, _SCHEMA))


def _write(storage: Storage, prefix: str, table: pa.Table) -> str:
    """Write responses under a name that tells the range of their ids; the key."""
    ids = pc.min_max(table["id"]).as_py()
    name = f"{prefix}{ids['min'][:_RANGE]}-{ids['max'][:_RANGE]}"
    return tables.write(storage, name, table, _GROUP_ROWS)
