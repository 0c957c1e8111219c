"""What a person does in Airflow's pages, in a real browser: start, backfill, look, clear.

The stages do next to nothing (``line_worker.py``); how they are told what a person has
filled in, and what the pages say of them, is the real thing. Where ``AITP_PICTURES``
names a folder, the pictures in docs/ are left there (``make pictures``).
"""

import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest
import yaml
from playwright.sync_api import expect

from demo.services import CONFIG, DAG, AirflowClient
from tests.e2e import browser
from tests.e2e.browser import Ui
from tests.e2e.nights import TODAY, Nights

pytestmark = pytest.mark.slow

DUMP = "web-2026-48"
#: Unit by unit: one goes well, one fails, one is tried again, one runs on until it is let go, one waits.
SHARDS = [f"part-{number:05}" for number in range(5)]
LABELS = [f"{DUMP} {shard}" for shard in SHARDS]
FAILS, RETRIES, RUNS_ON = 1, 2, 3
DAYS = [f"{TODAY - timedelta(days=days)}" for days in (43, 42, 41)]
CONFIGURED: dict[str, Any] = yaml.safe_load(CONFIG.read_text())


@pytest.fixture(scope="module")
def ui(nights: Nights) -> Iterator[Ui]:
    """A browser that has logged in to an Airflow whose DAG is not paused."""
    nights.add_dump(DUMP, SHARDS)
    nights.client.set_paused(False)
    with browser.opened(nights.services) as opened:
        yield opened


def runs(client: AirflowClient) -> dict[str, dict[str, Any]]:
    """All runs by their ids."""
    found = client._get(f"/api/v2/dags/{DAG}/dagRuns", limit=100)["dag_runs"]
    return {run["dag_run_id"]: run for run in found}


def until(happens: Callable[[], Any]) -> Any:
    """What it returns, once that is something."""
    deadline = time.monotonic() + browser.SECONDS
    while not (found := happens()):
        assert time.monotonic() < deadline
        time.sleep(0.5)
    return found


def new_runs(client: AirflowClient, before: dict[str, Any], count: int = 1) -> list[dict[str, Any]]:
    """The runs that have come since, once there are so many."""
    found = until(lambda: len(now := runs(client)) >= len(before) + count and now)
    return [run for name, run in found.items() if name not in before]


def test_the_form_says_what_is_configured_and_within_which_bounds(nights: Nights, ui: Ui) -> None:
    form = ui.form()
    form.open("Difference")
    section = form.dialog
    expect(section).to_contain_text(f"More than 0. Configured: {CONFIGURED['difference']['tau']}.")
    expect(section).to_contain_text("More than 0 and less than 1. Configured: not set.")
    ui.picture("trigger.png")
    offered = form.choose("difference__criterion", "knn")
    assert offered[:2] == ["as configured (density_ratio)", "density_ratio"]
    expect(form.chosen("difference__criterion")).to_have_value("knn")
    form.choose("difference__criterion", "as configured")
    expect(form.chosen("difference__criterion")).to_have_value("as configured (density_ratio)")
    form.open("Gates")
    assert form.choose("gates__allow_additional_information", "off")[1:] == ["on", "off"]
    form.choose("gates__allow_additional_information", "as configured")


def test_a_value_out_of_bounds_is_refused_before_there_is_a_run(nights: Nights, ui: Ui) -> None:
    before = runs(nights.client)
    form = ui.form()
    form.field("dump").fill(DUMP)
    form.open("Difference")
    form.number("difference__target_share").fill("1.5")
    form.send()
    expect(form.dialog).to_contain_text("1.5 is greater than or equal to the maximum of 1")
    assert runs(nights.client).keys() == before.keys()


def test_what_airflow_cannot_refuse_ends_at_once_and_says_why(nights: Nights, ui: Ui) -> None:
    before = runs(nights.client)
    form = ui.form()
    form.field("dump").fill(DUMP)
    form.open("Advanced Options")
    form.dialog.get_by_label("Partition Key").or_(form.dialog.locator("input[name=partitionKey]")).fill(
        "2020-01-01"
    )
    form.send()
    (keyed,) = (run["dag_run_id"] for run in new_runs(nights.client, before))
    targets = {"difference__target_share": 0.5, "difference__target_documents": 10}
    both = nights.client.trigger({"dump": DUMP, **targets})
    for run, told in ((keyed, "this run names two dumps"), (both, "target_share and target_documents")):
        assert nights.client.wait(run, seconds=120) == "failed"
        assert told in nights.log(run, "begin")
        states = {task["task_id"]: task["state"] for task in nights.client.task_instances(run)}
        assert states["plan"] == "upstream_failed"


@pytest.fixture(scope="module")
def started(nights: Nights, ui: Ui) -> Iterator[str]:
    """A run that the form has started, with a unit in each state."""
    nights.tell(DUMP, f"fail-embed-{FAILS}", "2")
    nights.tell(DUMP, f"fail-embed-{RETRIES}", "75")
    held = nights.tell(DUMP, f"hold-embed-{RUNS_ON}", "")
    before = runs(nights.client)
    form = ui.form()
    form.field("dump").fill(DUMP)
    form.open("Difference")
    form.number("difference__tau").fill("0.25")
    form.choose("difference__criterion", "knn")
    form.choose("difference__criterion", "as configured")
    form.open("Gates")
    form.choose("gates__allow_additional_information", "off")
    form.send()
    (run,) = new_runs(nights.client, before)
    yield run["dag_run_id"]
    held.unlink(missing_ok=True)


def test_the_form_starts_a_run_with_just_these_values(nights: Nights, started: str) -> None:
    conf = runs(nights.client)[started]["conf"]
    changed = {
        name: value
        for name, value in conf.items()
        if value is not None and not str(value).startswith("as configured")
    }
    expected = {
        "config": nights.config.stem,
        "dump": DUMP,
        "difference__tau": 0.25,
        "gates__allow_additional_information": "off",
    }
    assert changed == expected
    told = nights.planned(DUMP)["settings"]
    assert told == [f'dump="{DUMP}"', "difference.tau=0.25", 'gates.allow_additional_information="off"']


def test_an_instance_says_what_it_holds_in_every_state(nights: Nights, ui: Ui, started: str) -> None:
    seen: set[tuple[int, str, str]] = set()
    deadline = time.monotonic() + 240
    wanted = {(0, "success"), (FAILS, "failed"), (RETRIES, "up_for_retry"), (RUNS_ON, "running")}
    while not wanted <= {(index, state) for index, state, _ in seen}:
        assert time.monotonic() < deadline, seen
        seen |= {
            (task["map_index"], task["state"], task["rendered_map_index"])
            for task in nights.client.task_instances(started)
            if task["task_id"] == "embed" and task["map_index"] >= 0
        }
        time.sleep(0.2)
    # At no time, and in no state, was it anything else.
    assert {(index, label) for index, _, label in seen} == set(enumerate(LABELS))
    assert {state for _, state, _ in seen} >= {"scheduled", "running", "success", "failed", "up_for_retry"}
    ui.show("runs", started, "tasks", "embed", "mapped")
    for label, state in ((LABELS[FAILS], "Failed"), (LABELS[RUNS_ON], "Running"), (LABELS[4], "Scheduled")):
        expect(ui.page.get_by_role("row").filter(has_text=label)).to_contain_text(state)
    ui.picture("labels.png")


def test_the_dialog_clears_one_instance_and_what_follows(nights: Nights, ui: Ui, started: str) -> None:
    (nights.folder(DUMP) / f"hold-embed-{RUNS_ON}").unlink()
    assert nights.client.wait(started, seconds=240) == "failed"
    before = embedded(nights, started)
    assert [task["state"] for task in before] == ["success", "failed", "success", "success", "success"]
    ui.show("runs", started, "tasks", "embed", "mapped", str(FAILS))
    ui.page.get_by_role("button", name="Press shift+c to clear").click()
    expect(ui.dialog).to_contain_text("Clear Task Instance: embed")
    expect(ui.dialog.get_by_role("row").filter(has_text="embed")).to_have_count(1)
    ui.picture("clear.png", ui.dialog)
    ui.dialog.get_by_role("button", name="Confirm").click()
    until(lambda: nights.client.state(started) != "failed")
    assert nights.client.wait(started, seconds=240) == "success"
    after = embedded(nights, started)
    changed = [
        number for number, (old, new) in enumerate(zip(before, after, strict=True)) if old["id"] != new["id"]
    ]
    assert changed == [FAILS]
    assert [task["try_number"] for task in after] == [1, 2, 2, 1, 1]
    assert [task["rendered_map_index"] for task in after] == LABELS
    tries = {task["task_id"]: task["try_number"] for task in nights.client.task_instances(started)}
    assert (tries["plan"], tries["embed_units"]) == (1, 1)
    ui.show("runs", started)
    expect(ui.page.get_by_text("Success").first).to_be_visible()


def embedded(nights: Nights, run: str) -> list[dict[str, Any]]:
    """The instances of ``embed``, in their order."""
    found = [task for task in nights.client.task_instances(run) if task["task_id"] == "embed"]
    return sorted(found, key=lambda task: int(task["map_index"]))


def test_the_backfill_form_takes_both_days_in(nights: Nights, ui: Ui) -> None:
    before = runs(nights.client)
    form = ui.form()
    form.dialog.get_by_text("Backfill", exact=True).click()
    for day in (DAYS[0], DAYS[-1]):
        form.fill_next_day(day)
    expect(form.dialog).to_contain_text("3 runs will be triggered")
    ui.picture("backfill.png")
    form.send("Run Backfill")
    made = new_runs(nights.client, before, len(DAYS))
    assert sorted(run["partition_key"] for run in made) == DAYS
    for run in made:
        assert nights.client.wait(run["dag_run_id"], seconds=120) == "success"
