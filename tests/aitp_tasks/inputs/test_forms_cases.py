"""Cases of SFT sets with right answers, by somebody who knew this field and not this code."""

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from aitp_tasks.config import RunConfig
from aitp_tasks.errors import AitpError
from aitp_tasks.inputs import shards
from aitp_tasks.inputs.examples import Example, Rejection
from aitp_tasks.inputs.forms import heads
from aitp_tasks.inputs.forms.rows import NOT_PREFERRED
from aitp_tasks.records.manifest import Ledger, commonest
from aitp_tasks.storage import ObjectInfo, Storage, open_storage
from tests.aitp_tasks.conftest import Configure
from tests.aitp_tasks.inputs.case import Case
from tests.aitp_tasks.inputs.sft_cases import CASES

#: Of files that are not read yet, or whose mistakes are not told as one.
_FILES = {
    "sft_save_to_disk_arrow_of_messages",
    "sft_shards_of_different_forms_and_formats",
    "sft_csv_alpaca_with_line_ends",
    "sft_csv_answers_that_look_like_numbers",
    "sft_csv_messages_as_json_with_mark_and_crlf",
    "sft_hidden_and_unknown_beside_shards",
    "sft_unknown_refuse",
    "sft_array_in_jsonl_refused",
    "sft_lfs_pointer_refused",
    "sft_utf16_refused",
}
_XFAIL = pytest.mark.xfail(strict=True, reason="its files are not read yet")


def params() -> list[Any]:
    return [pytest.param(case, id=case.name, marks=[_XFAIL] if case.name in _FILES else []) for case in CASES]


def read(storage: Storage, objects: list[ObjectInfo], config: RunConfig) -> tuple[list[Any], list[str]]:
    """The canonical examples, and their texts; what plan and embed refuse is raised."""
    if problems := heads.problems(storage, objects, config):
        raise AitpError("; ".join(problems))
    found: list[Any] = []
    texts = []
    for info in objects:
        reader = shards.Sft(storage, info, config.sft_text, config.examples)
        items = list(reader.examples())
        for item in items:
            if isinstance(item, Example):
                found.append({"messages": item.messages, **({"tools": item.tools} if item.tools else {})})
                texts.append(reader.text(item))
            else:
                found.append("rejected" if isinstance(item, Rejection) else None)
        assert [text for text in reader.texts() if isinstance(text, str)] == texts[-len(items) :] or not items
        check(items, config, info.key)
    return found, texts


def check(items: list[Any], config: RunConfig, key: str) -> None:
    """What embed says to a shard with these rows."""
    rejected = [item for item in items if isinstance(item, Rejection)]
    examples = [item for item in items if isinstance(item, Example)]
    damaged = [item for item in items if item not in rejected and item not in examples]
    ledger = Ledger(
        rows_in=len(items),
        rows_out=len(examples),
        rejected=Counter(item.reason for item in rejected),
        quarantined=Counter(item.error_class for item in damaged),
    )
    budget = config.examples.failure_budget
    allowed = config.failure_budget if budget is None else budget
    ledger.check_budget(allowed, key, "quarantine", commonest(item.message for item in damaged))
    ledger.check_rejected(key, NOT_PREFERRED, {item.reason: item.message for item in rejected})


@pytest.mark.parametrize("case", params())
def test_a_set_is_read_as_who_knows_the_field_says(case: Case, tmp_path: Path, configure: Configure) -> None:
    for name, data in case.files().items():
        path = tmp_path / "sft/set" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    storage = open_storage(f"file://{tmp_path}")
    objects = [
        info
        for info in sorted(storage.list("sft/set/"), key=lambda info: info.key)
        if info.key.endswith(shards.suffixes("sft"))
        and not any(part[0] in "._" for part in info.key.split("/")[2:])
    ]
    examples = {name: case.settings[name] for name in ("preference", "mapping") if name in case.settings}
    if "sft_failure_budget" in case.settings:
        examples["failure_budget"] = case.settings["sft_failure_budget"]
    config = configure(sft_text=case.settings.get("sft_text", "first_turns"), examples=examples)
    if case.refused:
        with pytest.raises(AitpError) as raised:
            read(storage, objects, config)
        assert [word for word in case.refused if word.lower() not in str(raised.value).lower()] == []
        return
    found, texts = read(storage, objects, config)
    assert found == case.examples, case.why
    assert case.compared is None or texts == case.compared, case.why
