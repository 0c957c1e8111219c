"""Names and numbers in Markdown: a name that comes from data is shown, and does nothing."""

from collections.abc import Iterable, Mapping, Sequence

#: So many names of one kind are told.
NAMES = 20
_CHARACTERS = 80


def code(name: str) -> str:
    """A name as code on one line."""
    shown = " ".join(name.replace("`", "'").split()) or "(empty)"
    shown = "".join(one if one.isprintable() else "\ufffd" for one in shown)
    return f"`{shown[:_CHARACTERS]}{'…' if len(shown) > _CHARACTERS else ''}`"


def cell(name: str) -> str:
    """The same in a table, where a bar would begin another cell."""
    return code(name).replace("|", r"\|")


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> list[str]:
    """Lines of a table."""
    return [
        f"| {' | '.join(head)} |",
        f"|{'---|' * len(head)}",
        *(f"| {' | '.join(map(str, row))} |" for row in rows),
    ]


def counted(counts: Mapping[str, int]) -> str:
    """Counts by name, those of most first."""
    most = sorted(counts, key=lambda name: (-counts[name], name))
    left = f", and {len(most) - NAMES} more" if len(most) > NAMES else ""
    return ", ".join(f"{counts[name]} {code(name)}" for name in most[:NAMES]) + left


def percent(share: float) -> str:
    """A share in percent."""
    return f"{100 * share:.1f} %"


def interval(told: Mapping[str, float | None], value: str = "value") -> str:
    """A figure with its interval, where there is one; – where there is no figure."""
    middle, low, high = (told[name] for name in (value, "low", "high"))
    if middle is None:
        return "–"
    if low is None or high is None:
        return f"{middle:.4f}"
    return f"{middle:.4f} ({low:.4f} to {high:.4f})"
