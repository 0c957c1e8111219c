"""Some pairs for people to read: the same ones each time, whatever else is there."""

from collections.abc import Iterable, Mapping
from typing import Any

from aitp_tasks.records import digest

#: Characters of a question or an answer that are shown: nearly all have fewer.
_SHOWN = 8_000


def first(ids: Iterable[str], count: int) -> list[str]:
    """So many of some ids, by a hash of each."""
    return sorted(ids, key=lambda key: digest.of_text(f"shown {key}"))[:count]


def shown(row: Mapping[str, Any]) -> dict[str, Any]:
    """A pair's row as it is told: ``cut`` says how many characters of its texts are not."""
    said = {turn["role"]: str(turn["content"]) for turn in row["messages"]}
    texts = {name: said.get(role, "") for name, role in (("question", "user"), ("answer", "assistant"))}
    return {
        **{name: row.get(name) for name in ("pair_id", "source", "dump", "quality", "difficulty")},
        **{name: text[:_SHOWN] for name, text in texts.items()},
        "cut": {name: len(text) - _SHOWN for name, text in texts.items() if len(text) > _SHOWN},
    }


def text(pair: Mapping[str, Any]) -> str:
    """What ``shown`` has made, as a person reads it."""
    cut = {name: f" … and {count:,} characters" for name, count in pair["cut"].items()}
    return (
        f"{pair['pair_id']}\nQ: {pair['question']}{cut.get('question', '')}\n"
        f"A: {pair['answer']}{cut.get('answer', '')}"
    )
