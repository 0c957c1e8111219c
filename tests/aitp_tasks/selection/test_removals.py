"""The removal report: every row is counted under its rule, with a few examples."""

from typing import Any

from aitp_tasks.selection import left_out, removals
from aitp_tasks.selection.contamination.report import Found
from tests.aitp_tasks.selection.test_incoming import configured
from tests.aitp_tasks.selection.test_pair_gates import pair


def duplicate(number: int) -> dict[str, Any]:
    return {
        **{"pair_id": f"{number:04d}", "question": "Q" * 500, "similarity": 0.99},
        **{
            "nearest_pair_id": None,
            "nearest_doc_id": "d",
            "nearest_shard": "sft/s/a.parquet",
            "nearest_row": 7,
        },
    }


def test_rules_are_told_with_their_settings_the_most_first() -> None:
    left = [left_out.row(pair(n, f"Q{n}?"), "over_rewritten_share", earlier=n % 2 == 0) for n in range(3)]
    left += [left_out.row(pair(9, "Q?"), "marked_bad", earlier=True)]
    dropped = [Found("sft/s/a.parquet:1", "gsm8k/test:3", "ngram", 0.5, 0.4, excerpt="some words")]
    told = removals.told(
        configured(), left, map(duplicate, range(12)), dropped, {"held_out": 2, "not_said": 7}
    )
    assert [(one["rule"], one["new"], one["earlier"], one["sft"]) for one in told] == [
        ("near_duplicate", 12, 0, 0),
        ("over_rewritten_share", 1, 2, 0),
        ("held_out", 0, 0, 2),
        ("contaminated", 0, 0, 1),
        ("marked_bad", 0, 1, 0),
    ]
    assert told[1]["settings"] == {
        "assemble.max_rewritten_share": 0.1,
        "assemble.order": ["rarity", "scores", "age"],
    }
    assert told[4]["settings"] == {}
    assert len(told[0]["examples"]) == 10
    assert told[0]["examples"][0] == {
        **{"id": "0000", "excerpt": "Q" * 160, "like": "sft/s/a.parquet:7", "similarity": 0.99},
    }
    assert (told[2]["settings"], told[2]["examples"]) == ({"evaluate.held_out": 0.0}, [])
    assert told[3]["examples"] == [
        {"id": "sft/s/a.parquet:1", "excerpt": "some words", "like": "gsm8k/test:3", "similarity": None}
    ]


def test_nothing_left_out_is_nothing_told() -> None:
    assert removals.told(configured(), [], [], [], {"holds_marks": 0}) == []


def test_every_setting_that_is_named_is_one() -> None:
    config = configured()
    for rule in removals._SETTINGS:
        row = left_out.row(pair(0, "Q?"), rule, earlier=False)
        ((one),) = removals.told(config, [row], [], [], {})
        assert one["settings"].keys() == set(removals._SETTINGS[rule])
