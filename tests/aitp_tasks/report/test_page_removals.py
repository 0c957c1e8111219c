"""What was left out, on the page: told by rule, escaped, and by evaluation set."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from aitp_tasks.records.run import Run
from aitp_tasks.report.facts import Facts, gather
from aitp_tasks.report.page import draw, render

PERSONAL = {"sft": {"email": {"rows": 3, "found": 1234, "masked": 0}}}
HOSTILE = "<script>alert(1)</script>\x1b[2J"


def rendered(run: Run, removals: list[dict[str, Any]], contamination: dict[str, Any] | None) -> str:
    facts: Facts = gather(run)
    told = {"contamination": contamination, "personal_data": PERSONAL} if contamination else {}
    figures = facts.assemble.figures | told
    assemble = facts.assemble.model_copy(update={"figures": figures})
    facts = replace(facts, removals=removals, assemble=assemble)
    return " ".join(render(run, facts, draw(facts, run.config.gates)).split())


def test_gates_are_told_with_examples_and_evaluation_sets_by_dataset(
    finish_run: Callable[..., Run],
) -> None:
    example = {"id": "ab-cd", "excerpt": HOSTILE, "like": HOSTILE, "similarity": 0.97}
    removals = [
        {
            "rule": "near_text",
            "settings": {"assemble.max_text_similarity": 0.7},
            **{"new": 3, "earlier": 1, "sft": 0, "examples": [example]},
        }
    ]
    found = {"evaluation_set": HOSTILE, "dataset": "new_pairs", "items": 1319, "rows": 24, "hits": 2}
    found |= {"ngram": 1, "whole": 1, "similar": 0, "items_touched": 2, "share_touched": 0.0015}
    sets = {HOSTILE: {"items": 1319, "layouts": ["GSM8K"], "refused": {}}}
    told = {"sets": sets, "found": [found | {"mean_share_of_item": 0.75}]}
    html = rendered(finish_run(2), removals, told)
    assert "<code>near_text</code>: 4 (3 new pairs, 1 earlier ones, 0 SFT examples)" in html
    assert "assemble.max_text_similarity=0.7" in html
    assert "<script>alert" not in html
    assert html.count("&lt;script&gt;alert(1)&lt;/script&gt;\u241b[2J") == 3
    assert '<td class="number">0.970</td>' in html
    assert "<tr><td>sft</td><td>email</td>" in html
    assert '<td class="number">1,234</td>' in html
    assert '<td>GSM8K</td><td class="number">1,319</td><td>new_pairs</td>' in html
    assert '<td class="number">2 (0.1%)</td><td class="number">75.0%</td>' in html


def test_where_nothing_was_left_out_nothing_is_said(finish_run: Callable[..., Run]) -> None:
    html = rendered(finish_run(2), [], None)
    assert "What was left out of the dataset" not in html
    assert "Personal data" not in html
