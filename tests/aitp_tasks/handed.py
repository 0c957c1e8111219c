"""A small version of a dataset in a folder, as assemble leaves it, without the stages that lead to it."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from aitp_tasks.config import Assemble, Marks, RunConfig
from aitp_tasks.dataset import card
from aitp_tasks.dataset.export import ALPACA, SHAREGPT, Export, Told
from aitp_tasks.dataset.sections import PICTURE, Facts
from aitp_tasks.records import versions
from aitp_tasks.records.contents import Contents, JsonFile, MarksHeld, UsedModel, shares
from aitp_tasks.records.contents import files as files_of
from aitp_tasks.records.plan import FrozenPrompt
from aitp_tasks.storage import open_storage

LINE = "aitp"
PROMPTS = {
    stage: FrozenPrompt(name=stage, version="1", template=stage, output_schema={}, sampling={})
    for stage in ("rewrite", "score", "answer")
}


def config(root: str = "file:///storage", **assemble: Any) -> RunConfig:
    """A configuration; keywords are settings of ``assemble``."""
    return RunConfig.model_validate(
        {
            "root": root,
            "dump": "news",
            "sft": "sums",
            "encoder": {"model": "/models/encoder"},
            "engine": {"model": "org/rewriter", "revision": "abc"},
            "prompts": {"folder": "/prompts"},
            "finetune": {"model": "/models/base"},
            "assemble": {"dataset": LINE} | assemble,
        }
    )


def rows(
    pairs: int = 2, sft: int = 3, question: str = "Where do the ships land, and why"
) -> list[dict[str, Any]]:
    """Pairs and SFT examples, as they are exported."""
    made: list[dict[str, Any]] = []
    for number in range(pairs + sft):
        answer = (
            f"They land in the harbour beside the old town, pier {number}, because the water is deep there."
        )
        turns = [
            {"role": "user", "content": f"{question} number {number}?"},
            {"role": "assistant", "content": answer},
        ]
        of_pair = {
            **{"pair_id": f"{number:032x}", "doc_id": f"{number:032x}", "dump": "news", "source": "news"},
            **{"row": 2**53 + 1 + number, "density_ratio": 8.389e-08, "quality": 8, "prompts": ["answer@1"]},
        }
        made.append(
            {"messages": turns, "origin": "aitp", **of_pair}
            if number < pairs
            else {"messages": turns, "origin": "sft"}
        )
    return made


def contents(told: Told, kinds: Mapping[str, int], setting: Marks = Marks.KEEP) -> Contents:
    """The figures of files."""
    json_files = {
        name: JsonFile(rows=told.rows[name], left_out=dict(told.left_out[name]))
        for name in (SHAREGPT, ALPACA)
    }
    shards = {name: count for name, count in told.rows.items() if name not in json_files}
    total = sum(shards.values())
    return Contents(
        made_at="2026-11-26T00:00:00Z",
        rows=total,
        by_kind=shares(dict(kinds), total),
        by_dump=shares(dict(told.dumps), total),
        by_source=shares({"sft/sums": kinds.get("sft", 0), **told.sources}, total),
        models={"engine": UsedModel(name="rewriter", revision="abc", identity="e" * 32)},
        columns=told.columns,
        shards=shards,
        validation_shards=told.validation,
        json_files=json_files,
        marks=MarksHeld(setting=setting.value, rows=told.marked, by_mark=dict(told.marks), dropped=0),
    )


def facts(told: Told, name: str = "news-1", setting: Marks = Marks.KEEP, **changes: Any) -> Facts:
    """Of a version of these files; keywords are other figures of the manifest, or ``config``, or "
    "``languages``."""
    settings = changes.pop("config", None) or config()
    languages = changes.pop("languages", {"en": 5})
    kinds = changes.pop("kinds", {"sft": 3, "new_pairs": 2, "earlier_pairs": 0})
    figures: dict[str, Any] = {
        "version": name,
        "inputs": "1" * 32,
        "base": None,
        "pairs": kinds["new_pairs"],
        "earlier_pairs": kinds["earlier_pairs"],
        "sft_examples": kinds["sft"],
        "room": None,
        "rewritten_share": 0.4,
        "order": ["rarity"],
        "left": {},
        "parts_given_up": {},
        "uncovered": 0.25,
        "uncovered_before": 0.5,
        "examples": {"kept": dict(told.kept), "lost": dict(told.lost)},
        "not_kept": {},
        "contents": contents(told, kinds, setting).model_dump(mode="json"),
        **changes,
    }
    return Facts(
        config=settings,
        prompts=PROMPTS,
        run=f"runs/news/{'a' * 32}",
        figures=figures,
        steps=[("documents", 406), ("new pairs in this version", kinds["new_pairs"])],
        languages=languages,
    )


def exported(
    folder: Path,
    given: Sequence[Mapping[str, Any]],
    marks: Marks = Marks.KEEP,
    validation: Sequence[Mapping[str, Any]] = (),
) -> Told:
    """Write rows as assemble does."""
    with Export(folder, marks) as export:
        export.write(given)
        export.write_validation(validation)
        export.close(LINE)
    return export.told


def version(
    folder: Path,
    given: Sequence[Mapping[str, Any]],
    name: str = "news-1",
    template: str | None = None,
    validation: Sequence[Mapping[str, Any]] = (),
    **changes: Any,
) -> Contents:
    """Write the files of a version into an empty folder; what they hold."""
    told = exported(folder, given, validation=validation)
    pairs = sum(row["origin"] == "aitp" for row in given)
    kinds = {"sft": len(given) - pairs, "new_pairs": pairs, "earlier_pairs": 0}
    found = facts(told, name, kinds=kinds, **changes)
    (folder / PICTURE).write_bytes(b"\x89PNG, in the place of one")
    card.write_texts(folder, found, template)
    return found.contents.model_copy(update={"files": files_of(folder)})


def stored(root: Path, given: Sequence[Mapping[str, Any]], name: str = "news-1", **changes: Any) -> Path:
    """A version in a storage, which becomes the latest; its folder."""
    folder = root / versions.prefix(LINE, name)
    folder.mkdir(parents=True)
    held = version(folder, given, name, **changes)
    storage = open_storage(f"file://{root}")
    before = versions.latest(storage, LINE)
    made = versions.Version(
        name=name,
        run=f"runs/news/{'a' * 32}",
        ancestors=(*before.ancestors, before.name) if before else (),
        geometry=versions.Geometry(key="density/g", identity="i", corpus_grid="runs/grid"),
        contents=held,
    )
    versions.add(storage, LINE, made)
    return folder


def settings(**assemble: Any) -> Assemble:
    """The section alone."""
    return config(**assemble).assemble
