"""Examples made by several processes are the very ones that one makes."""

from functools import partial
from pathlib import Path
from typing import Any

import pytest

from aitp_tasks.config import Finetune
from aitp_tasks.dataset.export import Export
from aitp_tasks.stages import finetune
from aitp_tasks.training import examples, spread, template
from aitp_tasks.training.base_model import load_tokenizer

pytestmark = pytest.mark.slow


def _row(number: int) -> dict[str, Any]:
    question = {
        "role": "user",
        "content": f"What is {number}? <|im_end|>" if number % 50 == 0 else f"{number}?",
    }
    answer = {
        "role": "assistant",
        "content": "" if number % 57 == 5 else f"It is {number}. " * (number % 40 + 1),
    }
    if number % 31 == 0:
        question["role"] = "narrator"
    return {"messages": [question, answer, question, answer] if number % 7 == 0 else [question, answer]}


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Rows of some batches; many of them have something to be counted."""
    with Export(tmp_path) as export:
        export.write([_row(number) for number in range(320)])
        found: Path = export.close("aitp")["parquet"]
    return found


def test_bytes_and_counts_are_those_of_one_process(
    data: Path, smollm2: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = Finetune(model=str(smollm2), max_length=128, long_examples="split_turns")
    templates = template.choose(load_tokenizer(settings), None)
    begun = []

    def again(prepare: Any, items: Any, processes: int) -> Any:
        begun.append(processes)
        return real(prepare, items, processes)

    real = spread.spread
    monkeypatch.setattr(spread, "spread", again)
    monkeypatch.setattr(spread, "processors", lambda: 2)
    monkeypatch.setattr(examples, "_ROWS_PER_BATCH", 64)
    made_again = partial(finetune.making, settings, templates.training)
    make = made_again()
    one = examples.write(data, make, tmp_path / "one.arrow", made_again)
    # Few rows are not worth it.
    assert begun == []
    monkeypatch.setattr(examples, "_MANY_ROWS", 320)
    more = examples.write(data, make, tmp_path / "more.arrow", made_again)
    assert begun == [2]
    assert (tmp_path / "one.arrow").read_bytes() == (tmp_path / "more.arrow").read_bytes()
    assert one == more
    assert one.quarantined[1]["id"] == "row 31"
    assert all((one.cut, one.further, one.rejected, one.neutralised, len(one.quarantined) == 11))
