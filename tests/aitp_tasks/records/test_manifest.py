"""Ledgers add up; of racing manifests one stands."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from aitp_tasks.errors import BudgetExceededError
from aitp_tasks.records import manifest
from aitp_tasks.records.manifest import Ledger, Manifest
from aitp_tasks.storage import open_storage


def test_a_ledger_that_does_not_add_up_is_refused() -> None:
    with pytest.raises(ValidationError, match="3 rows in, 2 accounted for"):
        Ledger(rows_in=3, rows_out=1, quarantined={"empty": 1})


def test_ledgers_add() -> None:
    total = Ledger(rows_in=3, rows_out=2, quarantined={"empty": 1}).plus(
        Ledger(rows_in=4, rows_out=1, quarantined={"empty": 1, "null": 1}, rejected={"gate": 1})
    )
    assert total == Ledger(rows_in=7, rows_out=3, quarantined={"empty": 2, "null": 1}, rejected={"gate": 1})


def test_the_failure_budget_is_a_share_of_the_rows() -> None:
    ledger = Ledger(rows_in=100, rows_out=95, quarantined={"empty": 5})
    ledger.check_budget(0.05, "shard", "s3://b/quarantine")
    with pytest.raises(BudgetExceededError, match=r"shard: 5 of 100 rows .*'empty': 5.*s3://b/quarantine"):
        ledger.check_budget(0.04, "shard", "s3://b/quarantine")


def test_the_first_manifest_stands(tmp_path: Path) -> None:
    storage = open_storage(f"file://{tmp_path}")
    first = manifest.commit(storage, "m.json", Manifest(stage="merge", label="a", seconds=1))
    second = manifest.commit(storage, "m.json", Manifest(stage="merge", label="a", seconds=2))
    assert first == second == manifest.load(storage, "m.json")
    assert manifest.load(storage, "none.json") is None
