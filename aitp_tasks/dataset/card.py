"""The card of a dataset version, with its picture and its ``croissant.json``.

They are written with the version, and never again in its folder. What is known only later,
the evaluation, and what whoever hands the version on decides, the licence, are filled in
there (``finished``).
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from aitp_tasks.config import Assemble
from aitp_tasks.dataset import croissant, evaluation, front, funnel, languages, sections, template
from aitp_tasks.dataset.sections import PICTURE, Facts
from aitp_tasks.records import data_files
from aitp_tasks.records.contents import files as files_of
from aitp_tasks.records.contents import of_file
from aitp_tasks.records.manifest import Manifest
from aitp_tasks.records.run import Run

NAME = "README.md"
_EVALUATION, _LICENCE = "evaluation", "licence"


def write(folder: Path, run: Run, done: Manifest, picture: bytes) -> Manifest:
    """Write card, picture and ``croissant.json`` beside the rows; the manifest, which then tells of them.

    Args:
        folder: of the version, with all its other files.
        run: that makes it.
        done: its ``assemble`` manifest, not committed yet, with ``contents``.
        picture: PNG, of what was gained.

    Raises:
        InputError: an earlier stage has not been run, or the template cannot be filled.
    """
    facts = Facts(
        config=run.config,
        prompts=run.plan.prompts,
        run=run.prefix,
        figures=done.figures,
        steps=funnel.of_run(run, done),
        languages=languages.of_version(folder),
    )
    (folder / PICTURE).write_bytes(picture)
    write_texts(folder, facts, run.plan.card)
    told = {
        "languages": dict(facts.languages),
        "files": {name: of.model_dump() for name, of in files_of(folder).items()},
    }
    return done.model_copy(update={"figures": done.figures | {"contents": done.figures["contents"] | told}})


def write_texts(folder: Path, facts: Facts, own_template: str | None = None) -> None:
    """Write ``README.md`` and ``croissant.json`` for the rows that lie in a folder."""
    settings, parts = facts.config.assemble, data_files.splits(facts.contents)
    shards = {name: of_file(folder / name) for split in parts.values() for name in split}
    schema = pq.read_schema(folder / next(iter(shards)))
    splits = {
        split: front.Split(sum(rows.values()), sum(_in_memory(folder / name) for name in rows))
        for split, rows in parts.items()
    }
    info = front.dataset_info(schema, splits, on_disk=sum(shard.bytes for shard in shards.values()))
    told = sections.of_version(facts, _marked(_EVALUATION, evaluation.NONE))
    told["licence"] = _marked(_LICENCE, told["licence"])
    text = template.render(own_template, told, facts.config.assemble.card or "")
    values = front.values(settings, languages.main(facts.languages), info)
    # A key of an SFT set may hold half a character.
    (folder / NAME).write_bytes((front.written(values) + text).encode("utf-8", "replace"))
    described = croissant.metadata(settings, facts.figures["version"], told["summary"], schema, shards)
    (folder / croissant.NAME).write_text(croissant.written(described), encoding="utf-8")


def _in_memory(path: Path) -> int:
    """Bytes of a file's rows in memory, as datasets counts them, one group at a time."""
    file = pq.ParquetFile(path)
    return sum(file.read_row_group(group).nbytes for group in range(file.num_row_groups))


def finished(card: str, settings: Assemble, evaluated: Mapping[str, Any] | None) -> str:
    """A card with the licence that is configured now, and with the evaluation, if there is one.

    It is the same where neither says anything else. A template without these places has none.

    Args:
        card: as ``write`` has written it.
        settings: of whoever hands the version on.
        evaluated: figures of the version's evaluation.
    """
    told, text = front.split(card)
    text = _filled(text, _LICENCE, sections.licence(settings))
    if evaluated is not None:
        text = _filled(text, _EVALUATION, evaluation.told(evaluated))
    return front.written(front.relicensed(told, settings)) + text


def _marked(name: str, text: str) -> str:
    """A section between marks that nobody sees, so that it can be found again."""
    return f"<!-- {name} -->\n\n{text}\n\n<!-- end of {name} -->"


def _filled(card: str, name: str, text: str) -> str:
    pattern = re.compile(rf"^<!-- {name} -->$.*?^<!-- end of {name} -->$", re.MULTILINE | re.DOTALL)
    return pattern.sub(lambda _: _marked(name, text), card, count=1)
