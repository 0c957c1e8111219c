"""The card of a dataset version: a README that says what it holds and by which rules."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from aitp_tasks.config import Marks, RunConfig
from aitp_tasks.records import data_files
from aitp_tasks.records.contents import Contents, MarksHeld

NAME = "README.md"
#: By which loaders know the rows from all else; without it they go by the folder's name.
_FRONT = (
    "---",
    "configs:",
    "- config_name: default",
    "  data_files:",
    f"  - split: {data_files.SPLIT}",
    f"    path: {data_files.FOLDER}/{data_files.SPLIT}-*.parquet",
    "---",
    "",
)
_LOADING = (
    "`datasets.load_dataset` takes this folder; pandas, polars and duckdb `data/*.parquet`; LLaMA-Factory "
    "this folder as its `dataset_dir`. All files have the rows in one order, that of a hash."
)
#: So many names are told of what is not kept, left out or marked.
_NAMES = 20


def write(folder: Path, config: RunConfig, figures: Mapping[str, Any]) -> Path:
    """Write the card; its path.

    Args:
        folder: an existing one.
        config: of the run that makes the version.
        figures: of its ``assemble`` manifest.
    """
    pairs = figures["pairs"] + figures["earlier_pairs"]
    room = "any number" if figures["room"] is None else str(figures["room"])
    left = [f"- {count} left: `{reason}`" for reason, count in sorted(figures["left"].items())]
    given_up = figures["parts_given_up"].values()
    if given_up:
        documents = sum(part["documents"] for part in given_up)
        left.append(f"- {len(given_up)} parts of the difference set were given up, {documents} documents")
    contents = Contents.model_validate(figures["contents"])
    lines = [
        *_FRONT,
        f"# {config.assemble.dataset} {figures['version']}",
        "",
        f"{figures['sft_examples']} examples of the SFT set `{config.sft}`, and {pairs} pairs written from "
        "documents of a pre-training corpus which that set hardly covers: "
        f"{figures['pairs']} from the dump `{config.dump}`, "
        f"{figures['earlier_pairs']} from earlier versions.",
        "",
        f"- builds on: {figures['base'] or 'no earlier version'}",
        f"- share of rewritten pairs: {figures['rewritten_share']:.4f} of at most "
        f"{config.assemble.max_rewritten_share:g} (room for {room} pairs)",
        f"- who stays where there is not room for all: {', '.join(figures['order'])}",
        *left,
        f"- of the corpus, {figures['uncovered']:.4f} is not covered; with the earlier pairs alone it would "
        f"be {figures['uncovered_before']:.4f}",
        "",
        *said(figures["examples"], figures["not_kept"]),
        *files(contents),
        *marked(contents.marks),
        "`version.json` has all figures of this version; the pairs that are not in it, and why, lie with the "
        "run that made it.",
        "",
    ]
    path = folder / NAME
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


def said(examples: Mapping[str, Mapping[str, int]], not_kept: Mapping[str, int]) -> list[str]:
    """Lines on what the examples have besides roles and contents, and where it is lost.

    Args:
        examples: ``kept`` and ``lost``, as ``export.Told`` counts them.
        not_kept: of the SFT set, by name.
    """
    kept, lost = (examples[name] for name in ("kept", "lost"))
    lines = []
    if kept or lost:
        lines += ["| examples with | of them in `data/` | not in the JSON files |", "|---|---|---|"]
        lines += [
            f"| `{name}` | {kept.get(name, '')} | {lost.get(name, 0)} |" for name in sorted({*kept, *lost})
        ]
        lines.append("")
    if not_kept:
        # Names of columns and keys, as the set has them.
        most = sorted(not_kept, key=lambda name: (-not_kept[name], name))
        told = ", ".join(f"`{_in_one_line(name)}` of {not_kept[name]}" for name in most[:_NAMES])
        told += f", and {len(most) - _NAMES} more" if len(most) > _NAMES else ""
        lines += [f"Not kept of the SFT set's rows: {told}.", ""]
    return lines


def files(contents: Contents) -> list[str]:
    """Lines on the files with rows: how many each has, and which ones it cannot say."""
    counts = {f"`{data_files.FOLDER}/*.parquet`": (contents.rows, dict[str, int]())} | {
        f"`{name}`": (file.rows, file.left_out) for name, file in contents.json_files.items()
    }
    lines = ["| files | rows | left out, because the form cannot say them |", "|---|---|---|"]
    lines += [
        f"| {name} | {rows} | {_counted(left_out) or 'none'} |" for name, (rows, left_out) in counts.items()
    ]
    return [*lines, "", _LOADING, ""]


def marked(marks: MarksHeld) -> list[str]:
    """Lines on marks of chat templates in the texts."""
    by_mark = {_in_one_line(name): count for name, count in marks.by_mark.items()}
    lines = [
        f"{marks.rows} rows hold marks of well-known chat templates in their texts ({_counted(by_mark)}), "
        "which a trainer may take for turns.",
        f"In {marks.rows} rows, marks of well-known chat templates were escaped by a backslash behind the "
        f"first character ({_counted(by_mark)}): take one such backslash away to have the text again.",
    ]
    if not marks.rows:
        return [f"No row holds a mark of a well-known chat template; {marks.dropped} were dropped.", ""]
    return [lines[marks.setting == Marks.ESCAPE], ""]


def _counted(counts: Mapping[str, int]) -> str:
    most = sorted(counts, key=lambda name: (-counts[name], name))
    left = f", and {len(most) - _NAMES} more" if len(most) > _NAMES else ""
    return ", ".join(f"{counts[name]} `{name}`" for name in most[:_NAMES]) + left


def _in_one_line(name: str) -> str:
    return " ".join(name.replace("`", "'").split())
