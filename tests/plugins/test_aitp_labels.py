"""The labels of instances that have not begun; with a real scheduler, tests/e2e/test_browser.py has them."""

from types import SimpleNamespace
from typing import Any

import pytest
from airflow import settings

import airflow_local_settings
import aitp_labels

UNITS = [{"number": 4, "holds": "c4 00000–00003"}, {"number": 7, "holds": "c4 00004"}]


@pytest.fixture
def listed(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What the run's tasks have listed."""
    known: dict[str, Any] = {"embed_units": UNITS}
    monkeypatch.setattr(aitp_labels, "listed", lambda run, task: known.get(task))
    return known


def label(**of: Any) -> str | None:
    """Of an instance; by default the second one of embed."""
    made = {"dag_id": "aitp_refresh", "task_id": "embed", "map_index": 1, "_rendered_map_index": None, **of}
    instance: Any = SimpleNamespace(**made)
    run: Any = SimpleNamespace(run_id="r", dag_id=instance.dag_id)
    aitp_labels.task_instance_mutation_hook(instance, run)
    return str(instance._rendered_map_index) if instance._rendered_map_index else None


def test_an_instance_is_named_by_what_the_unit_in_its_place_holds(listed: dict[str, Any]) -> None:
    assert label() == "c4 00004"
    assert label(map_index=0) == "c4 00000–00003"


@pytest.mark.parametrize(
    "of",
    [
        {"dag_id": "another"},
        {"task_id": "merge"},
        {"task_id": "rewrite"},
        {"map_index": -1},
        {"map_index": 2},
    ],
)
def test_what_is_not_listed_keeps_its_number(listed: dict[str, Any], of: dict[str, Any]) -> None:
    assert label(**of) is None


@pytest.mark.parametrize("units", [None, "s3://xcom/of/another/backend", {}, [], [4, 7]])
def test_a_list_that_is_none_holds_no_run_up(listed: dict[str, Any], units: Any) -> None:
    listed["embed_units"] = units
    assert label() is None


def test_before_the_run_is_known_nothing_is_looked_up() -> None:
    instance: Any = SimpleNamespace(dag_id="aitp_refresh", task_id="embed", map_index=0)
    aitp_labels.task_instance_mutation_hook(instance, None)
    assert not hasattr(instance, "_rendered_map_index")


def test_airflow_finds_the_policy_where_it_looks_for_policies() -> None:
    assert airflow_local_settings.__all__ == ["task_instance_mutation_hook"]
    assert hasattr(settings.get_policy_plugin_manager().hook, "task_instance_mutation_hook")
