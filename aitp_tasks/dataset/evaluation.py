"""What the card says of a version's evaluation, from evaluate's figures."""

from collections.abc import Iterator, Mapping
from typing import Any

from aitp_tasks.dataset.markdown import cell, interval, table

NONE = "This version has not been evaluated, or had not been when this card was written."
_SETS = {
    "sft": "SFT examples",
    "pairs": "pairs of held-out documents",
    "documents": "these documents as text",
}
_MODELS = {"base": "base", "sft_only": "SFT set alone", "aitp": "this version"}


def told(figures: Mapping[str, Any]) -> str:
    """The section, as Markdown."""
    lines = [
        "Mean loss in nats per token on what no model was trained on: of the base, of the base trained on "
        f"the SFT set alone, and of the base trained on this version, {figures['steps']} steps each.",
        "",
        *table(("held out", "examples", *_MODELS.values()), _losses(figures["sets"])),
        "",
        "Differences in it, with 95 % intervals of a paired bootstrap over the examples; below zero this "
        "version is better:",
        "",
        *table(("held out", "to the base", "to the SFT set alone"), _differences(figures["sets"])),
    ]
    if tasks := figures.get("tasks"):
        lines += [
            "",
            f"Tasks by lm-evaluation-harness {tasks['harness']}, with its standard errors:",
            "",
            *table(("task", "metric", *_MODELS.values()), _metrics(tasks["results"])),
        ]
    return "\n".join(lines)


def _losses(sets: Mapping[str, Any]) -> Iterator[tuple[object, ...]]:
    for name, found in sets.items():
        yield _SETS[name], found["n"], *(_number(found["loss"][model]) for model in _MODELS)


def _differences(sets: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    for name, found in sets.items():
        yield (
            _SETS[name],
            *(interval(found[f"aitp_minus_{model}"], "mean") for model in ("base", "sft_only")),
        )


def _metrics(results: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    for task, found in results.items():
        for metric, values in found["metrics"].items():
            yield cell(task), cell(metric), *(_with_error(values.get(model)) for model in _MODELS)


def _with_error(measured: list[float | None] | None) -> str:
    value, error = measured or (None, None)
    return _number(value) + (f" ± {error:.4f}" if error is not None else "")


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.4f}"
