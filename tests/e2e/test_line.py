"""Runs that start at once on one dataset, in a real Airflow: by backfill, by hand and by the night.

The worker's stages do next to nothing (``line_worker.py``), so that what is tested is
who waits for whom; the line, its lease and its versions are the real ones.
"""

import itertools
import json
from datetime import timedelta

import pytest

from demo.services import DAG, ServiceError
from tests.e2e.nights import BACKFILLED, BY_HAND, NIGHT, OTHER, TODAY, Nights


def test_a_backfill_by_hand_and_the_night_take_turns_from_the_oldest_dump_on(nights: Nights) -> None:
    told = nights.backfill(BACKFILLED[0], BACKFILLED[-1], "--dry-run")
    # Both ends of the range are in it.
    assert all(day in told for day in BACKFILLED)
    assert BY_HAND not in told
    # One of them fails in the middle, and gives its turn back.
    nights.tell(BACKFILLED[1], "fail-answer", "2")
    nights.backfill(BACKFILLED[0], BACKFILLED[-1])
    by_hand = nights.client.trigger({"dump": BY_HAND})
    # Unpausing starts the latest missed night.
    nights.client.set_paused(False)
    runs = nights.wait_for_all(5)
    states = {run["partition_key"] or "by hand": run["state"] for run in runs}
    failed = BACKFILLED[1]
    assert states == {**dict.fromkeys([*BACKFILLED, NIGHT, "by hand"], "success"), failed: "failed"}
    done = nights.done()
    # What has failed is left to its own run, not taken along by the night.
    expected = [BACKFILLED[0], BACKFILLED[2], BY_HAND, NIGHT]
    assert [told["dump"] for told in done] == expected
    assert [told["base"] and told["base"]["name"] for told in done] == [None, *expected[:-1]]
    assert all(told["is_latest"] for told in done)
    # One at a time: none began before the one before it had ended.
    assert all(before["to"] < after["from"] for before, after in itertools.pairwise(done))
    assert f"/{DAG}/" in nights.log(by_hand, "begin")
    assert "waits for" in nights.log(by_hand, "begin")
    assert nights.client.note(by_hand) == f"estimate: 2.50 GPU-hours for {BY_HAND}"


def test_what_people_have_noted_stays_when_plan_runs_again(nights: Nights) -> None:
    (run,) = (run["dag_run_id"] for run in nights.wait_for_all(5) if run["partition_key"] == NIGHT)
    estimate = f"estimate: 2.50 GPU-hours for {NIGHT}"
    assert nights.client.note(run) == estimate
    nights.client.put_note(run, "estimate: stale\nlooked at by Ada")
    nights.client.clear(run, ["plan"])
    assert nights.client.wait(run, seconds=240) == "success"
    assert nights.client.note(run) == f"looked at by Ada\n{estimate}"
    secret = nights.services.credentials.password
    assert secret not in nights.log(run, "plan")


def test_what_failed_goes_on_when_it_is_cleared_and_waits_for_its_turn_again(nights: Nights) -> None:
    runs = nights.wait_for_all(5)
    (failed,) = (run["dag_run_id"] for run in runs if run["state"] == "failed")
    nights.client.clear(failed, ["answer"], include_downstream=True)
    assert nights.client.wait(failed, seconds=240) == "success"
    tries = {task["task_id"]: task["try_number"] for task in nights.client.task_instances(failed)}
    assert tries["begin"] >= 2
    assert (tries["answer"], tries["end"]) == (2, 2)
    assert (tries["plan"], tries["embed"], tries["rewrite"]) == (1, 1, 1)
    # It was planned on a version that others have built on since: its own is there, and says so.
    told = next(told for told in nights.done() if told["dump"] == BACKFILLED[1])
    assert not told["is_latest"]
    assert (nights.root / f"datasets/{nights.line}/{BACKFILLED[1]}/version.json").exists()
    title = f"AITP: not promoted: another version came in between ({BACKFILLED[1]})"
    assert [mail["Subject"] for mail in nights.sinks.mails].count(title) == 1
    assert json.loads((nights.root / f"datasets/{nights.line}/lease.json").read_text()) == {}


def test_what_became_the_latest_is_told_to_other_dags_with_its_counts_and_report(nights: Nights) -> None:
    found = nights.client._get("/api/v2/assets/events", limit=100, order_by="timestamp")["asset_events"]
    told = [event for event in found if event["name"] == f"aitp dataset {nights.line}"]
    # The run that was finished late has made no event: its version is not the latest.
    expected = [BACKFILLED[0], BACKFILLED[2], BY_HAND, NIGHT]
    assert [event["extra"]["version"] for event in told] == expected
    assert [event["partition_key"] for event in told] == [BACKFILLED[0], BACKFILLED[2], None, NIGHT]
    first = told[0]
    run = f"file://{nights.root}/runs/{BACKFILLED[0]}/x"
    assert first["uri"] == f"file://{nights.root}/datasets/{nights.line}"
    assert first["extra"] == {
        "version": BACKFILLED[0],
        "dataset": f"file://{nights.root}/datasets/{nights.line}/{BACKFILLED[0]}",
        "run": run,
        "report": f"{run}/report/report.html",
        "pairs": 7,
        "earlier_pairs": 0,
        "sft_examples": 70,
        "parts_given_up": 0,
    }
    trained = [event for event in found if event["name"] == "aitp checkpoint line"]
    assert [event["extra"]["version"] for event in trained] == [*expected, BACKFILLED[1]]
    assert trained[0]["extra"]["train_loss_last"] == 1.0


def test_every_task_links_to_its_outputs_the_report_and_the_run(nights: Nights) -> None:
    run = nights.done()[0]["dump"]
    dag_run = next(one["dag_run_id"] for one in nights.wait_for_all(5) if one["partition_key"] == run)
    place = f"file://{nights.root}/runs/{run}/x"
    for task in ("plan", "embed", "merge", "rewrite", "report"):
        index = 0 if task in ("embed", "rewrite") else -1
        links = nights.client._get(
            f"/api/v2/dags/{DAG}/dagRuns/{dag_run}/taskInstances/{task}/links", map_index=index
        )["extra_links"]
        assert links == {
            "Outputs": f"{place}/{task}/",
            "Report": f"{place}/report/report.html",
            "Run": f"{place}/",
        }


@pytest.mark.operation("backfill-without-dumps")
def test_a_day_without_a_dump_ends_green_and_skips_the_rest(nights: Nights) -> None:
    day = f"{TODAY - timedelta(days=9)}"
    before = len(nights.wait_for_all(5))
    nights.backfill(day, day)
    runs = nights.wait_for_all(before + 1)
    run = next(run for run in runs if run["partition_key"] == day)
    assert run["state"] == "success"
    states = {task["task_id"]: task["state"] for task in nights.client.task_instances(run["dag_run_id"])}
    assert states.pop("begin") == "success"
    assert set(states.values()) == {"skipped"}
    assert f"nothing new, all that follows is skipped: {{'{day}': 'there is none'}}" in nights.log(
        run["dag_run_id"], "begin"
    )


@pytest.mark.operation("dump-twice")
def test_a_typo_by_hand_is_an_error(nights: Nights) -> None:
    run = nights.client.trigger({"dump": "typo"}, partition_key="2020-01-01")
    assert nights.client.wait(run, seconds=120) == "failed"
    assert "names two dumps" in nights.log(run, "begin")


@pytest.mark.operation("give-up-part")
def test_a_part_that_is_marked_as_success_is_given_up_and_the_run_goes_on(nights: Nights) -> None:
    dump = "given-up"
    place = nights.root / f"runs/{dump}/x"
    place.mkdir(parents=True)
    (place / "fail-rewrite").write_text("")
    run = nights.client.trigger({"dump": dump})
    assert nights.client.wait(run, seconds=240) == "failed"
    nights.client.mark(run, "rewrite", 0, "success")
    assert nights.client.wait(run, seconds=240) == "success"
    states = {task["task_id"]: task["state"] for task in nights.client.task_instances(run)}
    assert (states["score"], states["answer"], states["assemble"]) == ("success",) * 3
    told = [json.loads(line) for line in (place / "skipped").read_text().splitlines()]
    why = "its task rewrite was marked as success by hand"
    assert told == [["--run", f"file://{place}", "--unit", "0", "--stage", "rewrite", "--why", why]]


def test_another_dataset_is_chosen_by_name_and_its_fine_tune_waits_for_a_person(nights: Nights) -> None:
    runs = {dump: nights.client.trigger({"dump": dump, "config": OTHER}) for dump in ("approved", "rejected")}
    for (dump, run), answer, expected in zip(
        runs.items(), ("Approve", "Reject"), ("success", "skipped"), strict=True
    ):
        nights.wait_for_question(run)
        asked = nights.client.asked(run, "approve")
        assert asked["subject"] == f"Fine-tune on {dump}?"
        assert "- new pairs: 7" in asked["body"]
        nights.client.answer(run, "approve", answer)
        if answer == "Approve":
            _refuse_promotion(nights, run)
        assert nights.client.wait(run, seconds=240) == "success"
        states = {task["task_id"]: task["state"] for task in nights.client.task_instances(run)}
        assert (states["approve"], states["finetune"], states["report"]) == ("success", expected, expected)
        assert states["end"] == "success"
        assert states["promote"] == expected
    told = json.loads((nights.folder("approved") / "promote").read_text())
    assert told == ["--run", f"file://{nights.folder('approved')}", "--refused-by=admin"]
    lines = {told["line"] for told in nights.done() if told["dump"] in runs}
    assert lines == {OTHER}
    # Nobody is asked where the configuration does not say so.
    others = [run for run in nights.wait_for_all(1) if run["dag_run_id"] not in runs.values()]
    assert any(
        task["task_id"] == "approve" and task["state"] == "success"
        for run in others
        for task in nights.client.task_instances(run["dag_run_id"])
    )


def _refuse_promotion(nights: Nights, run: str) -> None:
    nights.wait_for_question(run, "approve_promotion")
    asked = nights.client.asked(run, "approve_promotion")
    assert asked["subject"] == "Promote approved?"
    assert "| documents | 20 | 2.0000 | 1.5000 | 1.2500 | -0.2500 (-0.5000 to -0.1250) |" in asked["body"]
    nights.client.answer(run, "approve_promotion", "Reject")


def test_a_configuration_that_is_not_there_is_refused_before_a_run_exists(nights: Nights) -> None:
    with pytest.raises(ServiceError, match="config"):
        nights.client.trigger({"dump": "x", "config": "../services/airflow"})
