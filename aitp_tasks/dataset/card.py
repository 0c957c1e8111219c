"""The card of a dataset version: a README that says what it holds and by which rules."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from aitp_tasks.config import RunConfig

_NAME = "README.md"
#: Of what is not kept, so many names are told.
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
    lines = [
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
        "`data.parquet` holds all rows with where each comes from, `sharegpt.json` the same conversations, "
        "`pairs.parquet` the pairs alone; `left_out.parquet` says which pairs are not in, and why.",
        "",
    ]
    path = folder / _NAME
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


def said(examples: Mapping[str, Mapping[str, int]], not_kept: Mapping[str, int]) -> list[str]:
    """Lines on what the examples have besides roles and contents, and where it is lost.

    Args:
        examples: as ``export.Told`` counts them.
        not_kept: of the SFT set, by name.
    """
    kept, lost, unread = (examples[name] for name in ("kept", "lost", "unread"))
    lines = []
    if kept or lost:
        lines += ["| examples with | of them in `data.parquet` | not in `sharegpt.json` |", "|---|---|---|"]
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
    if unread:
        told = ", ".join(f"{count} `{reason}`" for reason, count in sorted(unread.items()))
        lines += [
            f"LLaMA-Factory leaves out {sum(unread.values())} conversations of `sharegpt.json`: {told}. "
            "`data.parquet` has them.",
            "",
        ]
    return lines


def _in_one_line(name: str) -> str:
    return " ".join(name.replace("`", "'").split())
