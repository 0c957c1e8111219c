"""What plan says of the first rows of an SFT set."""

import json
import logging
import re
from pathlib import Path
from typing import Any

import pytest

from aitp_tasks.inputs.forms import heads
from aitp_tasks.storage import open_storage
from tests.aitp_tasks.conftest import Configure, write_shard

GOOD = {"instruction": "q", "output": "a", "topic": "x"}
PICTURE = GOOD | {"images": ["a.png"]}
KTO = {"prompt": "q", "completion": "a", "label": False}


@pytest.fixture
def problems(root: Path, configure: Configure) -> Any:
    def find(files: dict[str, list[Any]], **settings: Any) -> list[str]:
        for name, rows in files.items():
            path = root / "sft/odd" / name
            if name.endswith(".parquet"):
                write_shard(path, rows)
            else:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text("\n".join(map(json.dumps, rows)))
        storage = open_storage(f"file://{root}")
        objects = sorted(storage.list("sft/odd/"), key=lambda info: info.key)
        return heads.problems(storage, objects, configure(sft="odd", examples=settings))

    return find


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([GOOD], None),
        ([{"error": "timeout"}, GOOD], None),
        ([{"error": "timeout"}], "none of its first 1 rows is an example, mostly: .*it has error"),
        ([{"x": 1}] * 300 + [GOOD], "none of its first 100 rows is an example"),
        ([KTO, KTO | {"label": True}], "examples.preference: chosen"),
        ([{"text": "### Human: q ### Assistant: a"}], "turns can only be guessed"),
        ([PICTURE], "none of its first 1 rows is an example, mostly: the row holds images"),
        # Rows that are sound say nothing of those that follow.
        ([PICTURE] * 300 + [GOOD], None),
        ([], None),
    ],
    ids=["good", "one bad", "all bad", "a hundred bad", "KTO", "text", "pictures", "many pictures", "empty"],
)
def test_a_set_that_cannot_be_used_is_told(problems: Any, rows: list[Any], message: str | None) -> None:
    found = problems({"a.jsonl": rows})
    if message is None:
        assert found == []
    else:
        (problem,) = found
        assert "sft/odd/a.jsonl: " in problem
        assert re.search(message, problem)


def test_shards_with_the_same_problem_are_told_once(problems: Any) -> None:
    found = problems({f"{number}.jsonl": [KTO] for number in range(6)} | {"good.parquet": [GOOD]})
    (problem,) = found
    assert "sft/odd/0.jsonl: none of" in problem
    assert problem.endswith("(the same: 1.jsonl, 2.jsonl, 3.jsonl, and 2 more)")
    assert problems({}, preference="chosen") == []


def test_forms_and_what_is_not_kept_are_logged(problems: Any, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    other = {"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]}
    assert problems({"a.jsonl": [GOOD, other, GOOD], "b.parquet": [GOOD]}) == []
    assert "sft_forms={'alpaca': 3, 'messages': 1} of the first rows of 2 shards" in caplog.text
    assert "not kept, by rows among the first of each shard: {'topic': 3}" in caplog.text
