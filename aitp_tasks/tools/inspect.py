"""inspect: what a folder or a file of inputs is taken for, beside any run.

Tells the form of the files, their columns, the first texts as they would be embedded and
examples as they would be trained on, what would be left out or quarantined, each with a
message, and what is not kept. Reads the first rows of a few files, or with ``--all``
everything; writes nothing.
"""

import json
import re
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from aitp_tasks.config import Examples, RunConfig, SftText
from aitp_tasks.errors import InputError
from aitp_tasks.inputs import agreement, footers, formats, listing
from aitp_tasks.inputs.examples import Example, Rejection
from aitp_tasks.inputs.listing import Listing
from aitp_tasks.inputs.rows import Refusal
from aitp_tasks.inputs.shards import Corpus, Sft
from aitp_tasks.records.manifest import Stopwatch, add_counts
from aitp_tasks.storage import ObjectInfo, Storage, open_storage
from aitp_tasks.tools.terminal import printable

ROLES = ("corpus", "sft")
#: What is read without ``--all``.
FILES, ROWS = 5, 1000
_EXAMPLES = 3
_NAMES_SHOWN = 20
_CHARACTERS = 600
_PRINTED = 300
_ROOT = re.compile("(s3|file)://.+")


@dataclass
class _Found:
    """What the files are."""

    rows: int = 0
    forms: Counter[str] = field(default_factory=Counter)
    columns: dict[str, None] = field(default_factory=dict)
    examples: list[dict[str, Any]] = field(default_factory=list)
    quarantined: dict[str, dict[str, Any]] = field(default_factory=dict)
    rejected: dict[str, dict[str, Any]] = field(default_factory=dict)
    not_kept: dict[str, int] = field(default_factory=dict)
    unreadable: dict[str, str] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)


def execute(
    config: RunConfig | None, uri: str, role: str | None = None, whole: bool = False
) -> dict[str, Any]:
    """Inspect inputs, and print what they are to standard error.

    Args:
        config: how a run would read them; by default as detected, and the text of a corpus in ``text``.
        uri: of a folder or of one file.
        role: ``corpus`` or ``sft``; by default, which of the two is a folder in the URI.
        whole: read all rows of all files.

    Raises:
        InputError: the role is not known, or nothing there is read.
    """
    watch = Stopwatch()
    storage, prefix, role = _place(uri, role)
    listed = _listed(storage, prefix)
    read = listed.shards if whole else _spread(listed.shards)
    found = _Found()
    for info in read:
        try:
            _read(storage, info, role, config, whole, found)
        except InputError as error:
            found.unreadable[info.key] = str(error)
    if role == "corpus" and config is not None:
        told = agreement.problems(storage, role, read, footers.look(storage, read), config)
        # What makes a file unreadable has been told.
        found.problems = [problem for problem in told if problem not in found.unreadable.values()]
    result = {
        "stage": "inspect",
        "uri": uri,
        "role": role,
        "files": len(listed.shards),
        "files_read": len(read),
        "whole": whole,
        "rows_read": found.rows,
        "forms": dict(found.forms),
        "columns": list(found.columns)[:_NAMES_SHOWN],
        "examples": found.examples,
        "rejected": found.rejected,
        "quarantined": found.quarantined,
        "not_kept": dict(sorted(found.not_kept.items(), key=lambda item: -item[1])[:_NAMES_SHOWN]),
        "unreadable": dict(list(found.unreadable.items())[:_NAMES_SHOWN]),
        "problems": found.problems[:_NAMES_SHOWN],
        "objects_not_read": len(listed.unknown),
        "first_not_read": listed.unknown[:_NAMES_SHOWN],
        "left_out": listed.skipped,
    }
    sys.stderr.write(render(result))
    return result | {"seconds": watch.seconds()}


def _place(uri: str, role: str | None) -> tuple[Storage, str, str]:
    """The storage, what the keys of the inputs begin with, and their role."""
    # Before any message: what holds credentials is not repeated.
    open_storage(uri)
    parts = uri.rstrip("/").split("/")
    # A run's keys begin with the role; the scheme and the bucket are before it.
    at = next((place for place in reversed(range(3, len(parts))) if parts[place] in ROLES), None)
    role = role or (None if at is None else parts[at])
    if role is None:
        raise InputError(f"{uri} is below neither corpus/ nor sft/: say --role corpus or --role sft")
    if at is None:
        at = len(parts) - 1 if _ROOT.fullmatch("/".join(parts[:-1])) else len(parts)
    return open_storage("/".join(parts[:at])), "/".join(parts[at:]), role


def _listed(storage: Storage, prefix: str) -> Listing:
    """What lies in a folder, or a file."""
    if prefix and next(storage.list(f"{prefix}/"), None) is None:
        info = storage.find(prefix)
        if info is None:
            raise InputError(f"{storage.uri(prefix)} is not there: name a folder or a file that is")
        if formats.of(prefix) is None:
            raise InputError(f"{storage.uri(prefix)} is not read: its name must end in {formats.READ}")
        return Listing([info])
    found = listing.of(storage, f"{prefix}/" if prefix else "")
    if not found.shards:
        told = f" ({found.named()})" if found.named() else ""
        raise InputError(f"{storage.uri(prefix)} holds no shards{told}: their names end in {formats.READ}")
    return found


def _spread(files: list[ObjectInfo]) -> list[ObjectInfo]:
    """A few of the files, from the first to the last."""
    if len(files) <= FILES:
        return files
    return [files[number * (len(files) - 1) // (FILES - 1)] for number in range(FILES)]


def _read(
    storage: Storage, info: ObjectInfo, role: str, config: RunConfig | None, whole: bool, found: _Found
) -> None:
    reader: Corpus | Sft
    if role == "corpus":
        reader = Corpus(storage, info, config.text_columns if config else ("text",))
        items: Iterator[Any] = reader.texts()
    else:
        sft_text, examples = (
            (config.sft_text, config.examples) if config else (SftText.FIRST_TURNS, Examples())
        )
        reader = Sft(storage, info, sft_text, examples)
        items = reader.examples()
    rows = 0
    try:
        for row, item in enumerate(items if whole else islice(items, ROWS)):
            rows += 1
            if isinstance(item, Refusal | Rejection):
                _count(item, f"{info.key} row {row}", found)
            elif len(found.examples) < _EXAMPLES:
                found.examples.append({"file": info.key, "row": row, **_shown(item, reader)})
    finally:
        # What was read before a damage counts, too.
        found.rows += rows
        if isinstance(reader, Sft):
            held = {name: min(count, rows) for name, count in reader.not_kept.counts.items()}
            found.not_kept = add_counts(found.not_kept, held)
        found.columns |= dict.fromkeys(reader.columns)
        found.forms[reader.form] += 1


def _count(item: Refusal | Rejection, place: str, found: _Found) -> None:
    told, name = (
        (found.quarantined, item.error_class) if isinstance(item, Refusal) else (found.rejected, item.reason)
    )
    entry = told.setdefault(name, {"rows": 0, "first": f"{place}: {item.message}"})
    entry["rows"] += 1


def _shown(item: str | Example, reader: Corpus | Sft) -> dict[str, Any]:
    """The beginning of a text, and the example that it is of."""
    if isinstance(item, str):
        return {"text": item[:_CHARACTERS]}
    assert isinstance(reader, Sft)
    text = reader.text(item)
    assert isinstance(text, str)
    messages = [{**turn, "content": turn["content"][:_CHARACTERS]} for turn in item.messages]
    return {"text": text[:_CHARACTERS], "form": item.form, "messages": messages, "tools": item.tools}


def render(result: dict[str, Any]) -> str:
    """What was found as a person reads it."""
    part = "all rows" if result["whole"] else f"at most {ROWS:,} rows each; --all reads everything"
    files = f"{result['files']:,} file{'s' * (result['files'] != 1)}"
    lines = [
        f"{result['role']}, {files}, {result['files_read']:,} read ({part}): {result['rows_read']:,} rows",
        f"forms       {', '.join(f'{form} ({files:,})' for form, files in result['forms'].items())}",
        f"columns     {printable(', '.join(result['columns']))}",
    ]
    for example in result["examples"]:
        lines += ["", f"{printable(example['file'])} row {example['row']:,}"]
        lines.append(f"  embedded  {printable(example['text'], _PRINTED)}")
        lines += [f"  {_turn(turn)}" for turn in example.get("messages", [])]
        if example.get("tools"):
            lines.append(f"  tools     {printable(json.dumps(example['tools']), _PRINTED)}")
    lines.append("")
    for title, told in (("left out", result["rejected"]), ("quarantined", result["quarantined"])):
        for name, entry in told.items():
            lines.append(f"{title:<12}{entry['rows']:,} {name}: {printable(entry['first'], _PRINTED)}")
    for name, rows in result["not_kept"].items():
        lines.append(f"not kept    {printable(name)} ({rows:,} rows)")
    for key, message in result["unreadable"].items():
        lines.append(f"unreadable  {printable(key)}: {printable(message, _PRINTED)}")
    lines += [f"problem     {printable(problem, _PRINTED)}" for problem in result["problems"]]
    if result["objects_not_read"]:
        names = printable(", ".join(result["first_not_read"]), _PRINTED)
        lines.append(f"not read    {result['objects_not_read']:,} objects: {names}")
    lines += [f"left out    {count:,} {convention}" for convention, count in result["left_out"].items()]
    return "\n".join([*lines, ""])


def _turn(turn: dict[str, Any]) -> str:
    rest = {name: value for name, value in turn.items() if name not in ("role", "content")}
    said = printable(turn["content"], _PRINTED)
    return f"{turn['role']:<10}{said}{f' {printable(json.dumps(rest), _PRINTED)}' if rest else ''}"
