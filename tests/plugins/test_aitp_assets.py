"""Which results tell other DAGs of a new latest version: assemble's or promote's, never both."""

from typing import Any

import pytest

from aitp_assets import DATASETS, tell_dataset

_MADE = {
    "run": "s3://b/runs/c4/x",
    "dataset": "s3://b/datasets/aitp/v2",
    **dict.fromkeys(("pairs", "earlier_pairs", "sft_examples", "parts_given_up"), 1),
}


class _Events(list[Any]):
    """In the place of Airflow's: keeps what is added."""

    def add(self, asset: Any, extra: dict[str, Any]) -> None:
        self.append(extra)


@pytest.mark.parametrize(
    ("result", "told"),
    [
        # Of assemble.
        (_MADE | {"is_latest": True, "unchanged": False}, True),
        (_MADE | {"is_latest": True, "unchanged": False, "promote": "always"}, True),
        (_MADE | {"is_latest": True, "unchanged": True, "promote": "always"}, False),
        (_MADE | {"is_latest": False, "unchanged": False, "promote": "always"}, False),
        # Run again when promote has promoted the version, which has told of it.
        (_MADE | {"is_latest": True, "unchanged": False, "promote": "when_better"}, False),
        # Of promote.
        (_MADE | {"is_latest": True, "unchanged": False, "promoted": True}, True),
        ({"promoted": True, "why": "evaluate.promote is always"}, False),
        ({"promoted": False, "is_latest": False, "why": "it is worse"}, False),
    ],
)
def test_a_version_is_told_of_once(result: dict[str, Any], told: bool) -> None:
    events = _Events()
    tell_dataset({"outlet_events": {DATASETS: events}}, result)  # type: ignore[typeddict-item]
    assert [extra["version"] for extra in events] == (["v2"] if told else [])
