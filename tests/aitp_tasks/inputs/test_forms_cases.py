"""SFT sets as they are published, damaged and mistaken: who wrote the cases had not read the code."""

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from aitp_tasks.config import RunConfig
from aitp_tasks.errors import BudgetExceededError, InputError
from aitp_tasks.inputs import agreement, footers, listing, shards
from aitp_tasks.inputs.examples import Example, Rejection
from aitp_tasks.inputs.forms import heads
from aitp_tasks.inputs.forms.rows import NOT_PREFERRED
from aitp_tasks.inputs.listing import Listing
from aitp_tasks.inputs.rows import Refusal
from aitp_tasks.records.manifest import Ledger, commonest
from aitp_tasks.storage import Storage, open_storage
from tests.aitp_tasks.conftest import Configure
from tests.aitp_tasks.inputs.case import Case
from tests.aitp_tasks.inputs.sft_cases import CASES


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_set_is_read_as_who_knows_the_field_says(case: Case, root: Path, configure: Configure) -> None:
    for name, data in case.files().items():
        path = root / "sft/set" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    storage = open_storage(f"file://{root}")
    examples = {name: case.settings[name] for name in ("preference", "mapping") if name in case.settings}
    if "sft_failure_budget" in case.settings:
        examples["failure_budget"] = case.settings["sft_failure_budget"]
    config = configure(sft_text=case.settings.get("sft_text", "first_turns"), examples=examples)
    if case.refused:
        with pytest.raises((InputError, BudgetExceededError)) as raised:
            read(storage, config, case.settings.get("unknown_files"))
        message = str(raised.value).lower()
        assert [word for word in case.refused if word.lower() not in message] == [], message
        return
    listed, found, texts = read(storage, config)
    assert found == case.examples, case.why
    assert case.compared is None or texts == case.compared, case.why
    assert {key.removeprefix("sft/set/") for key in listed.unknown} == set(case.unknown)
    assert listed.skipped.get("hidden files", 0) == case.hidden


def read(
    storage: Storage, config: RunConfig, unknown_files: str | None = None
) -> tuple[Listing, list[Any], list[str]]:
    """A set as plan and embed read it: what is there, its canonical examples, and their texts."""
    listed = listing.read(storage, "sft", "set")
    if unknown_files == "refuse" and listed.unknown:
        raise InputError(listed.named())
    known = footers.read(storage, "sft", "set", listed.shards)
    problems = agreement.problems(storage, "sft", listed.shards, known, config)
    if problems := problems + heads.problems(storage, listed.shards, config):
        raise InputError("; ".join(problems))
    found: list[Any] = []
    texts: list[str] = []
    for info in listed.shards:
        reader = shards.Sft(storage, info, config.sft_text, config.examples)
        items = list(reader.examples())
        own = [text for text in reader.texts() if isinstance(text, str)]
        assert own == [reader.text(item) for item in items if isinstance(item, Example)]
        texts += own
        found += [canonical(item) for item in items]
        check(items, config, storage.uri(info.key))
    return listed, found, texts


def canonical(item: Example | Rejection | Refusal) -> dict[str, Any] | str | None:
    """An item as the cases write it."""
    if isinstance(item, Example):
        return {"messages": item.messages, **({"tools": item.tools} if item.tools else {})}
    return "rejected" if isinstance(item, Rejection) else None


def check(items: list[Example | Rejection | Refusal], config: RunConfig, where: str) -> None:
    """What embed says to a shard with these rows."""
    rejected = [item for item in items if isinstance(item, Rejection)]
    damaged = [item for item in items if isinstance(item, Refusal)]
    ledger = Ledger(
        rows_in=len(items),
        rows_out=len(items) - len(rejected) - len(damaged),
        rejected=Counter(item.reason for item in rejected),
        quarantined=Counter(item.error_class for item in damaged),
    )
    budget = config.examples.failure_budget
    said = commonest(item.message for item in damaged)
    ledger.check_usable(where, "quarantine", said)
    ledger.check_budget(config.failure_budget if budget is None else budget, where, "quarantine", said)
    ledger.check_rejected(where, NOT_PREFERRED, {item.reason: item.message for item in rejected})
