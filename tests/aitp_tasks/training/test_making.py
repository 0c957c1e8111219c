"""What the ranks read: made by several processes as by one, and packed where that is wanted."""

from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from datasets import Dataset

from aitp_tasks.config import Finetune
from aitp_tasks.dataset import shards
from aitp_tasks.errors import InputError
from aitp_tasks.machine.base_model import load_tokenizer
from aitp_tasks.records import conversations, data_files
from aitp_tasks.training import examples, making, spread, template
from aitp_tasks.training.examples import ExampleMaker
from aitp_tasks.training.job import Job


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
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Rows of some batches, in several shards; many of them have something to be counted."""
    monkeypatch.setattr(shards, "MOST_BYTES", 1)
    monkeypatch.setattr(shards, "_GROUP_ROWS", 100)
    written = shards.Shards(tmp_path, pa.schema(conversations.columns(())))
    for number in range(320):
        written.write(_row(number), 1)
    assert list(written.close().values()) == [100, 100, 100, 20]
    return tmp_path / data_files.FOLDER


@pytest.mark.slow
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
    made_again = partial(making.parts_again, settings, templates.training)
    make = made_again()
    one = examples.write(data, make, tmp_path / "one.arrow", made_again)
    # Few rows are not worth it.
    assert begun == []
    monkeypatch.setattr(examples, "_MANY_ROWS", 320)
    more = examples.write(data, make, tmp_path / "more.arrow", made_again)
    assert begun == [2]
    assert (tmp_path / "one.arrow").read_bytes() == (tmp_path / "more.arrow").read_bytes()
    assert one == more
    assert [row["id"] for row in one.quarantined] == [f"row {number}" for number in range(0, 320, 31)]
    assert all((one.cut, one.further, one.rejected, one.neutralised, len(one.quarantined) == 11))


def test_rows_hold_all_tokens_of_the_examples(data: Path, smollm2: Path, tmp_path: Path) -> None:
    settings = Finetune(model=str(smollm2), max_length=512, packing=True)
    tokenizer = load_tokenizer(settings)
    templates = template.choose(tokenizer, None)
    job = Job(folder=tmp_path, finetune=settings, templates=templates)
    tally = making.write(data, ExampleMaker(tokenizer, templates.training, 512), job)
    packs = Dataset.from_file(str(job.packs))
    assert sum(map(len, packs["input_ids"])) == tally.tokens
    assert sum(map(len, packs["seq_lengths"])) == tally.examples
    learnt = sum(label != examples.IGNORED for labels in packs["labels"] for label in labels)
    assert learnt == tally.trained_tokens
    assert len(packs) * 512 * 0.95 < tally.tokens


def test_a_training_that_nothing_can_be_validated_on_is_refused(smollm2: Path, tmp_path: Path) -> None:
    settings = Finetune(model=str(smollm2), max_length=64, eval_steps=7)
    tokenizer = load_tokenizer(settings)
    templates = template.choose(tokenizer, None)
    maker = ExampleMaker(tokenizer, templates.training, 64)
    job = Job(folder=tmp_path, finetune=settings, templates=templates)
    asked = {"role": "user", "content": "Which?"}
    none = [{"messages": [asked], "tools": []}, {"messages": [{**asked, "role": "human"}], "tools": []}]
    for rows, said in (
        ([], "none of 0"),
        (none, r"none of 2 held-out examples .*'no_answer': 1, 'unknown_role': 1"),
    ):
        with pytest.raises(InputError, match=f"{said}.*raise evaluate.held_out, or .*eval_steps=7"):
            making.write_validation(rows, maker, job)
    # One that is one beside them.
    answered = {"messages": [asked, {"role": "assistant", "content": "This."}], "tools": []}
    tally = making.write_validation([*none, answered], maker, job)
    assert (tally.examples, tally.left_out()) == (1, {"no_answer": 1, "unknown_role": 1})
    (found,) = Dataset.from_file(str(job.validation)).to_list()
    made = maker.make(answered["messages"])
    assert isinstance(made, examples.Example)
    assert (found["input_ids"], found["labels"]) == (made.input_ids, made.labels)
