"""What is held out, in two halves: one to choose by while a model is trained, one for the proof."""

from pathlib import Path
from typing import Any

import pytest

from aitp_tasks.dataset.apart import Apart
from aitp_tasks.inputs.examples import Example
from aitp_tasks.records import digest, held_out, tables
from aitp_tasks.storage import open_storage

_SHARE = 0.5


def _turns(number: int, said: str) -> list[dict[str, Any]]:
    return [{"role": "user", "content": f"{said} {number}?"}, {"role": "assistant", "content": "Yes."}]


@pytest.fixture
def apart() -> Apart:
    pairs = []
    for number in range(120):
        document = digest.of_text(f"document {number // 2}")
        pairs.append({"pair_id": f"{number}", "doc_id": document, "messages": _turns(number, "Pair")})
    made = Apart(_SHARE, pairs)
    for number in range(120):
        # Two whose text is the same: they differ behind it.
        for more in ([], _turns(number, "Further")):
            made.takes(Example(_turns(number, "Example") + more))
    return made


def _read(folder: Path, apart: Apart, most: int, validated: bool) -> dict[str, list[dict[str, Any]]]:
    storage = open_storage(f"file://{folder}/{most}-{validated}")
    outputs = apart.write(storage, "x-", most, validated)
    return {name: tables.read(storage, key).to_pylist() for name, key in outputs.items()}


def test_what_is_chosen_by_and_what_proves_have_nothing_in_common(apart: Apart, tmp_path: Path) -> None:
    whole, halves = (_read(tmp_path, apart, 1000, validated) for validated in (False, True))
    assert whole.keys() == {"held_out_sft", "held_out_pairs"}
    for kind in ("sft", "pairs"):
        proof, chosen = halves[f"held_out_{kind}"], halves[f"validation_{kind}"]
        assert min(len(proof), len(chosen)) > 10
        # Nothing is lost, and nothing is twice.
        ids = [row["id"] for row in [*proof, *chosen]]
        assert sorted(ids) == sorted(row["id"] for row in whole[f"held_out_{kind}"])
        # Of one text, or one document, all is on one side.
        texts = [{row["messages"][0]["content"] for row in rows} for rows in (proof, chosen)]
        assert not texts[0] & texts[1]
    documents = [
        {int(row["id"]) // 2 for row in halves[f"{use}_pairs"]} for use in ("held_out", "validation")
    ]
    assert not documents[0] & documents[1]
    assert all(held_out.is_validation(digest.of_text(f"document {number}")) for number in documents[1])


def test_each_half_has_its_own_number_at_most(apart: Apart, tmp_path: Path) -> None:
    few, all_of_it = (_read(tmp_path, apart, most, True) for most in (7, 1000))
    for name, rows in few.items():
        assert len(rows) == 7
        assert {row["id"] for row in rows} < {row["id"] for row in all_of_it[name]}
