"""Figures of a version: bounded, however many sources a dump has."""

from collections import Counter

from aitp_tasks.dataset import figures
from aitp_tasks.dataset.export import ALPACA, SHAREGPT, Told
from aitp_tasks.records.plan import Plan
from tests.aitp_tasks.dataset.test_card import CONFIG

PLAN = Plan(
    config=CONFIG,
    encoder_identity="e",
    engine_identity="g",
    finetune_identity="f",
    prompts={},
    groups=(),
)


def test_the_largest_sources_are_named_and_all_others_are_one() -> None:
    told = Told(rows={SHAREGPT: 0, ALPACA: 0, "data/train-00000-of-00001.parquet": 506})
    told.sources = Counter({f"site{number}": 1 + (number < 50) for number in range(300)})
    told.dumps = Counter(news=350)
    made = figures.contents(PLAN, told, {"sft": 156, "new_pairs": 300, "earlier_pairs": 50}, dropped=4)
    assert len(made.by_source) == 102
    assert sum(source.rows for source in made.by_source.values()) == made.rows == 506
    assert (made.by_source["others"].rows, made.by_source["site7"].rows) == (200, 2)
    assert made.by_kind["new_pairs"].share == round(300 / 506, 6)
    assert (made.marks.dropped, made.shards) == (4, {"data/train-00000-of-00001.parquet": 506})


def test_models_are_named_without_where_they_lie() -> None:
    told = Told(rows={SHAREGPT: 0, ALPACA: 0})
    models = figures.contents(PLAN, told, {"sft": 0}, dropped=0).models
    assert {use: (model.name, model.revision, model.identity) for use, model in models.items()} == {
        "encoder": ("encoder", None, "e"),
        "engine": ("org/rewriter", "abc", "g"),
        "base": ("base", None, "f"),
    }
