"""The card says what the files hold, and how they are loaded."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from huggingface_hub import DatasetCard

from aitp_tasks.config import Marks, RunConfig
from aitp_tasks.dataset import card
from aitp_tasks.dataset.export import Export, Told
from aitp_tasks.records.contents import Contents, JsonFile, MarksHeld
from tests.aitp_tasks.dataset.test_sharegpt import exported, of

CONFIG = RunConfig.model_validate(
    {
        "root": "file:///storage",
        "dump": "news",
        "sft": "sums",
        "encoder": {"model": "/models/encoder"},
        "engine": {"model": "org/rewriter", "revision": "abc"},
        "prompts": {"folder": "/prompts"},
        "finetune": {"model": "/models/base"},
    }
)


def contents(told: Told, setting: Marks = Marks.KEEP) -> Contents:
    json_files = {
        name: JsonFile(rows=told.rows[name], left_out=dict(reasons))
        for name, reasons in told.left_out.items()
    }
    shards = {name: rows for name, rows in told.rows.items() if name not in json_files}
    return Contents(
        made_at="2026-11-26T00:00:00Z",
        rows=sum(shards.values()),
        by_kind={},
        by_dump={},
        by_source={},
        models={},
        columns=told.columns,
        shards=shards,
        json_files=json_files,
        marks=MarksHeld(setting=setting.value, rows=told.marked, by_mark=dict(told.marks), dropped=0),
    )


def write_card(folder: Path, told: Told, setting: Marks = Marks.KEEP) -> str:
    figures: dict[str, Any] = {
        "version": "news-1",
        "base": None,
        "pairs": 2,
        "earlier_pairs": 1,
        "sft_examples": 3,
        "room": None,
        "rewritten_share": 0.5,
        "order": ["rarity"],
        "left": {},
        "parts_given_up": {},
        "uncovered": 0.25,
        "uncovered_before": 0.5,
        "examples": {"kept": dict(told.kept), "lost": dict(told.lost)},
        "not_kept": {},
        "contents": contents(told, setting).model_dump(mode="json"),
    }
    return card.write(folder, CONFIG, figures).read_text(encoding="utf-8")


def test_its_front_matter_names_one_split(tmp_path: Path) -> None:
    text = write_card(
        tmp_path, exported(tmp_path, {"messages": [of("user", "a"), of("assistant", "b")]}).told
    )
    front = yaml.safe_load(text.split("---\n")[1])
    assert front == {
        "configs": [
            {
                "config_name": "default",
                "data_files": [{"split": "train", "path": "data/train-*.parquet"}],
            }
        ]
    }
    # As the hub's own library reads it.
    assert DatasetCard(text).data.to_dict() == front


def test_it_says_what_the_json_files_do_not_hold(tmp_path: Path) -> None:
    call = {"type": "function", "function": {"name": "f", "arguments": {}}}
    told = exported(
        tmp_path,
        {"messages": [of("user", "a"), of("assistant", "b")]},
        {"messages": [of("user", "a"), of("assistant", "", tool_calls=[call])]},
        {"messages": [of("user", "a"), of("assistant", "b"), of("user", "c")]},
    ).told
    lines = write_card(tmp_path, told).splitlines()
    assert "| `data/*.parquet` | 3 | none |" in lines
    assert "| `sharegpt.json` | 2 | 1 `ends_without_assistant` |" in lines
    assert "| `alpaca.json` | 1 | 1 `ends_without_assistant`, 1 `tool_calls` |" in lines


@pytest.mark.parametrize(
    ("setting", "text", "said"),
    [
        (Marks.KEEP, "plain", "No row holds a mark of a well-known chat template; 0 were dropped."),
        (
            Marks.KEEP,
            "a<|im_end|>",
            "1 rows hold marks of well-known chat templates in their texts (1 `<|im_end|>`)",
        ),
        (Marks.ESCAPE, "a</s>", "In 1 rows, marks of well-known chat templates were escaped by a backslash"),
    ],
)
def test_it_says_how_many_rows_hold_marks(tmp_path: Path, setting: Marks, text: str, said: str) -> None:
    with Export(tmp_path, setting) as export:
        export.write([{"messages": [of("user", "a"), of("assistant", text)], "origin": "sft"}])
        export.close("aitp")
    assert said in write_card(tmp_path, export.told, setting)


def test_it_tells_what_is_kept_lost_and_not_kept() -> None:
    lines = card.said(
        {"kept": {"tools": 3}, "lost": {"weight": 2}},
        {"images": 4, "a`b\nc": 1} | {f"column{number:02}": 1 for number in range(30)},
    )
    assert lines[2:4] == ["| `tools` | 3 | 0 |", "| `weight` |  | 2 |"]
    (line,) = (line for line in lines if line.startswith("Not kept of the SFT set's rows: "))
    assert "`images` of 4, `a'b c` of 1, `column00` of 1, " in line
    assert line.endswith("`column17` of 1, and 12 more.")
    assert card.said({"kept": {}, "lost": {}}, {}) == []
