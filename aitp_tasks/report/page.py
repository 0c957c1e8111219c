"""The facts as one HTML page that loads nothing and runs nothing.

Document text is data: cut, its control characters made visible, and escaped by
Jinja's autoescape. Pictures are data URIs, the one style sheet is allowed by its
hash, and the page's own policy forbids everything else, scripts above all.
"""

import base64
import hashlib
import math
from pathlib import Path
from typing import Any

from aitp_tasks.config import Gates, RunConfig
from aitp_tasks.densities.partition import Partition
from aitp_tasks.records import data_files
from aitp_tasks.records.run import Run
from aitp_tasks.report import pictures
from aitp_tasks.report.facts import Facts
from aitp_tasks.report.pictures import Picture

_FOLDER = Path(__file__).parent
_NAME_CHARACTERS = 80
_QUESTION_CHARACTERS = 600
_ANSWER_CHARACTERS = 900
_EXCERPT_CHARACTERS = 400
#: How evaluate's models are called, in the order of their columns.
_MODELS = (("base", "base"), ("sft_only", "SFT set alone"), ("aitp", "new"))
#: Control characters as Unicode's pictures of them; line feed and tab stay.
_VISIBLE = {code: 0x2400 + code for code in range(32) if code not in (9, 10)} | {127: 0x2421}


def render(run: Run, facts: Facts, drawn: dict[str, Picture], decision: str = "") -> str:
    """The page, with the pictures that ``draw`` has made, and whether the version is promoted."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    environment = Environment(
        loader=FileSystemLoader(_FOLDER),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "count": _count,
        "seconds": _seconds,
        "memory": _memory,
        "share": _share,
        "interval": _interval,
        "shown": _shown,
        "excerpt": _excerpt,
        "loss": _loss,
    }
    style = (_FOLDER / "page.css").read_text(encoding="utf-8")
    return environment.get_template("page.html").render(
        style=Markup(style),
        style_hash=_hash(style),
        run=run,
        facts=facts,
        funnel=_bars(facts.funnel),
        pictures={name: picture.uri for name, picture in drawn.items()},
        decision=decision,
        by_model=_MODELS,
        answers=[_cut_answers(row) for row in facts.answers],
        regions=_regions(facts),
        samples=[_cut_sample(sample) for sample in facts.samples],
        models=_models(run.config),
        dataset=run.storage.uri(data_files.folder(facts.assemble)),
        checkpoint=run.storage.uri(facts.finetune.output("checkpoint")),
    )


def cut(text: str, characters: int) -> str:
    """The beginning of a text, control characters visible, with a mark when there is more."""
    shown = text[:characters].translate(_VISIBLE)
    left = len(text) - characters
    return f"{shown} … (+{left:,} characters)" if left > 0 else shown


def _shown(name: str) -> str:
    """A name that comes from the data."""
    return cut(name, _NAME_CHARACTERS)


def _excerpt(text: str) -> str:
    return cut(text, _EXCERPT_CHARACTERS)


def _cut_sample(sample: dict[str, Any]) -> dict[str, Any]:
    return {
        **sample,
        "question": cut(sample["question"], _QUESTION_CHARACTERS),
        "answer": cut(sample["answer"], _ANSWER_CHARACTERS),
        "text": cut(sample["text"], _EXCERPT_CHARACTERS),
    }


def _cut_answers(row: dict[str, Any]) -> dict[str, Any]:
    """A question with the held-out answer and the models' own, those in the order of the columns."""
    said = [
        {"by": title, "text": cut(row[model], _ANSWER_CHARACTERS), **_ended(row, model)}
        for model, title in _MODELS
    ]
    return {
        **row,
        "question": cut(row["text"], _QUESTION_CHARACTERS),
        "reference": cut(row["reference"], _ANSWER_CHARACTERS),
        "said": said,
    }


def _regions(facts: Facts) -> list[dict[str, Any]]:
    """What each region has given, and all together; nothing where that was not counted."""
    told = facts.assemble.figures.get("regions")
    if not told:
        return []
    names = ("documents", "questions", "pairs", "tokens")
    found = [
        {"name": number + 1, "where": where, **{name: told[name][number] for name in names}}
        for number, where in enumerate(map(_where, Partition.told(told["cuts"]).boxes()))
    ]
    return [*found, {"name": "all", "where": "", **{name: sum(told[name]) for name in names}}]


def _where(box: tuple[tuple[float, float], ...]) -> str:
    """The ends of a region along the axes that were cut."""
    said = [
        f"{axis} {'' if low == -math.inf else f'from {low:.3g}'}"
        f"{' ' if math.isfinite(low) and math.isfinite(high) else ''}"
        f"{'' if high == math.inf else f'to {high:.3g}'}"
        for axis, (low, high) in zip("xyz", box, strict=False)
        if math.isfinite(low) or math.isfinite(high)
    ]
    return ", ".join(said) or "everywhere"


def _ended(row: dict[str, Any], model: str) -> dict[str, Any]:
    return {"finish": row[f"{model}_finish"], "tokens": row[f"{model}_tokens"]}


def _bars(funnel: list[tuple[str, int]]) -> list[dict[str, Any]]:
    """The funnel with the length of each bar, in percent on a log scale."""
    longest = math.log1p(max(count for _, count in funnel)) or 1.0
    return [
        {"name": name, "count": count, "length": round(100 * math.log1p(count) / longest, 1)}
        for name, count in funnel
    ]


def draw(facts: Facts, gates: Gates) -> dict[str, Picture]:
    """All pictures, by name."""
    bandwidths = facts.difference.figures["bandwidth"]
    figures, densities = facts.difference.figures, facts.densities
    levels = pictures.density_levels(densities)
    tau = figures["tau"] if facts.is_ratio else None
    drawn = {
        "corpus": pictures.density(densities.corpus, densities, levels, bandwidths["corpus"]),
        "sft": pictures.density(densities.sft, densities, levels, bandwidths["sft"]),
        "ratio": pictures.ratio(densities, levels, tau),
        "sweep": pictures.sweep(figures["sweep"], figures["tau"], facts.score_name, figures["below_tau"]),
        "losses": pictures.losses(facts.log_history),
    }
    if densities.sft_alone is not None:
        drawn["change"] = pictures.change(densities, levels, tau)
    if facts.gained is not None:
        drawn["gained"] = pictures.change(facts.gained, pictures.density_levels(facts.gained), tau)
    if facts.quality.kept.sum() + facts.quality.dropped.sum():
        drawn["quality"] = pictures.scores(facts.quality, "quality", gates.min_quality)
        drawn["difficulty"] = pictures.scores(facts.difficulty, "difficulty", gates.min_difficulty)
    return drawn


def _models(config: RunConfig) -> list[tuple[str, str]]:
    """The three models by name and revision; folders without their place on the machine."""
    named = (("encoder", config.encoder), ("rewriting", config.engine), ("fine-tuned", config.finetune))
    return [(use, model.label) for use, model in named]


def _hash(style: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(style.encode()).digest()).decode("ascii")


def _count(value: int) -> str:
    return f"{value:,}"


def _share(value: float) -> str:
    return f"{100 * value:.1f}%"


def _interval(told: dict[str, float | None], share: bool = True) -> str:
    """A figure with its interval, where there is one; shares in percent."""
    scale, form = (100, "{:.1f}") if share else (1, "{:.4f}")
    value, low, high = (told[name] for name in ("value", "low", "high"))
    shown = form.format(scale * (value or 0.0)) + ("%" if share else "")
    if low is None or high is None:
        return shown
    return f"{shown} ({form.format(scale * low)} to {form.format(scale * high)})"


def _loss(value: float | None) -> str:
    return "–" if value is None else f"{value:.4f}"


def _seconds(value: float) -> str:
    if value < 120:
        return f"{value:.1f} s"
    minutes, seconds = divmod(round(value), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {seconds:02d} s"


def _memory(value: float) -> str:
    return f"{value / 1000:.2f} GB" if value >= 1000 else f"{value:.0f} MB"
