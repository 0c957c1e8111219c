"""The estimate as a person reads it."""

from collections.abc import Mapping
from typing import Any


def render(result: Mapping[str, Any]) -> str:
    """A table of what ``told.tell`` tells, one stage a line."""
    head = [
        ("documents", f"{result['documents']:,}"),
        ("SFT examples", f"{result['sft_examples']:,}"),
        ("tokens to embed", f"{result['tokens']:,}"),
        ("tokens to generate", f"{result['generated_tokens']:,}"),
        ("documents to rewrite", f"{result['selected']:,}"),
        ("questions", f"{result['questions']:,}, {result['kept']:,} of them to answer{_several(result)}"),
        ("parts", f"{result['parts']:,}, with {result['engine_starts']:,} engine starts"),
        ("training steps", f"{result['steps']:,}"),
    ]
    price = result["price"]
    cost = f"cost in {result['currency']}" if result["currency"] else "cost"
    columns = ["stage", "units", "time", "GPU-hours", *([] if price is None else [cost])]
    lines = [
        _line(name, stage["units"], stage["hours"], stage["gpu_hours"], price)
        if stage["known"]
        else [name, f"{stage['units']:,}", *["?"] * (len(columns) - 2)]
        for name, stage in result["stages"].items()
    ]
    total = _line(
        "at least" if result["unknown"] else "in all", None, result["hours"], result["gpu_hours"], price
    )
    rows = [columns, *lines, total]
    widths = [max(len(row[place]) for row in rows) for place in range(len(columns))]
    text = [f"{name:<22}{value}" for name, value in head]
    text += ["", *("  ".join(_aligned(row, widths)) for row in rows), ""]
    devices = "1 device" if result["parallel"] == 1 else f"{result['parallel']} devices side by side"
    text += [f"time: on {devices}, one stage after the other; devices are GPUs, or a machine without any"]
    if result["unknown"]:
        text += [f"not known: {', '.join(result['unknown'])}: no earlier run; `aitp estimate` rehearses"]
    return "\n".join([*text, *(f"- {line}" for line in result["assumptions"])]) + "\n"


def _several(result: Mapping[str, Any]) -> str:
    return "" if result["answers"] == result["kept"] else f" by {result['answers']:,} answers"


def duration(hours: float) -> str:
    """Hours as people say them: ``41 s``, ``6 min 05 s``, ``12 h 30 min``."""
    seconds = round(hours * 3600)
    if seconds < 60:
        return f"{seconds} s"
    if seconds < 3600:
        return f"{seconds // 60} min {seconds % 60:02d} s"
    minutes = round(seconds / 60)
    return f"{minutes // 60:,} h {minutes % 60:02d} min"


def amount(value: float) -> str:
    """A figure as people read it; a dash for nothing."""
    if not value:
        return "-"
    return f"{value:,.1f}" if value >= 100 else f"{value:.4f}" if value < 1 else f"{value:.2f}"


def _line(name: str, units: int | None, hours: float, gpu_hours: float, price: float | None) -> list[str]:
    cells = [name, "" if units is None else f"{units:,}", duration(hours), amount(gpu_hours)]
    return cells if price is None else [*cells, f"{gpu_hours * price:,.2f}" if gpu_hours else "-"]


def _aligned(row: list[str], widths: list[int]) -> list[str]:
    first, *others = zip(row, widths, strict=True)
    return [first[0].ljust(first[1]), *(cell.rjust(width) for cell, width in others)]
