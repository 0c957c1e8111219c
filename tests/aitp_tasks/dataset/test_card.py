"""The card says what the files hold, how they are loaded, and nothing that a name in the data could make "
"of it."""

import re
from pathlib import Path
from typing import Any

import pandas as pd
import polars as pl
import pyarrow.parquet as pq
import pytest
from datasets import load_dataset
from huggingface_hub import DatasetCard

from aitp_tasks.config import Marks
from aitp_tasks.dataset import card, front, sections
from aitp_tasks.dataset.export import Told
from aitp_tasks.records import conversations
from aitp_tasks.records.contents import shares
from tests.aitp_tasks import handed
from tests.aitp_tasks.dataset import card_cases
from tests.aitp_tasks.dataset.test_export import in_any_order
from tests.aitp_tasks.dataset.test_sharegpt import exported, of

CONFIG = handed.config()
HOSTILE = card_cases.given("card-hostile-source")["source_names"]
EVALUATED: dict[str, Any] = {
    "steps": 7,
    "sets": {
        name: {
            "n": 40,
            "loss": {"base": 2.5, "sft_only": 2.25, "aitp": 2.125},
            "aitp_minus_base": {"mean": -0.375, "low": -0.5, "high": -0.25},
            "aitp_minus_sft_only": {"mean": -0.125, "low": None, "high": None},
        }
        for name in ("sft", "pairs", "documents")
    },
    "tasks": {
        "harness": "0.4.13",
        "results": {"mmlu|x": {"n": 9, "metrics": {"acc": {"aitp": [0.5, 0.01], "base": [None, None]}}}},
    },
}


def text_of(folder: Path, told: Told, setting: Marks = Marks.KEEP, **changes: Any) -> str:
    card.write_texts(folder, handed.facts(told, setting=setting, **changes))
    return (folder / card.NAME).read_text(encoding="utf-8")


@pytest.fixture
def told(tmp_path: Path) -> Told:
    return handed.exported(tmp_path, handed.rows())


def test_its_front_matter_names_one_split(tmp_path: Path, told: Told) -> None:
    text = text_of(tmp_path, told, config=handed.config(license="apache-2.0"))
    values, _ = front.split(text)
    assert values["configs"] == [
        {"config_name": "default", "data_files": [{"split": "train", "path": "data/train-*.parquet"}]}
    ]
    # As the hub's own library reads it.
    data = DatasetCard(text).data
    assert (data.license, data.language, data.size_categories) == ("apache-2.0", ["en"], ["n<1K"])
    assert {"tags", "task_categories", "dataset_info"} <= data.to_dict().keys()


def test_it_has_all_sections_and_each_link_leads_somewhere(tmp_path: Path, told: Told) -> None:
    (tmp_path / sections.PICTURE).write_bytes(b"PNG")
    interval = {"value": 0.25, "low": 0.125, "high": 0.5}
    measure = dict.fromkeys(("before", "after", "gained"), interval)
    coverage = {"uncovered": measure, "divergence": measure, "level": 0.95, "documents": 40, "tau": 1.0}
    text = text_of(tmp_path, told, coverage=coverage)
    headings = re.findall(r"^## (.*)$", text, re.MULTILINE)
    assert headings == [
        "What it is made of",
        "How the new pairs came about",
        "What was left out",
        "Coverage of the corpus",
        "Evaluation",
        "Prompts and models",
        "Known limits",
        "Licence",
        "How to load it",
        "How to make it again",
    ]
    links = re.findall(r"\]\(([^)]+)\)", text)
    anchors = {f"#{heading.lower().replace(' ', '-')}" for heading in headings}
    assert sections.PICTURE in links
    assert all((tmp_path / link).exists() or link in anchors for link in links)
    assert "| share of documents not covered | 0.2500 (0.1250 to 0.5000) |" in text
    assert "| documents | 406 |" in text
    assert f"| answer | `answer@1` | `{handed.PROMPTS['answer'].digest}` |" in text
    assert f"`runs/news/{'a' * 32}`" in text


def test_the_same_rows_make_the_same_card(tmp_path: Path, told: Told) -> None:
    first = text_of(tmp_path, told)
    assert text_of(tmp_path, told) == first
    assert "2026" not in first


def test_it_says_what_the_json_files_do_not_hold(tmp_path: Path) -> None:
    call = {"type": "function", "function": {"name": "f", "arguments": {}}}
    files = exported(
        tmp_path,
        {"messages": [of("user", "a"), of("assistant", "b")]},
        {"messages": [of("user", "a"), of("assistant", "", tool_calls=[call])]},
        {"messages": [of("user", "a"), of("assistant", "b"), of("user", "c")]},
    ).told
    lines = text_of(tmp_path, files).splitlines()
    assert "| `data/train-*.parquet` | 3 | none |" in lines
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
    files = handed.exported(
        tmp_path, [{"messages": [of("user", "a"), of("assistant", text)], "origin": "sft"}], setting
    )
    assert said in text_of(tmp_path, files, setting)


def test_it_tells_what_is_kept_lost_and_not_kept() -> None:
    lines = sections.said(
        {"kept": {"tools": 3}, "lost": {"weight": 2}},
        {"images": 4, "a`b\nc": 1} | {f"column{number:02}": 1 for number in range(30)},
    )
    assert lines[2:4] == ["| `tools` | 3 | 0 |", "| `weight` |  | 2 |"]
    (line,) = (line for line in lines if line.startswith("Not kept of the SFT set's rows: "))
    assert "`images` of 4, `a'b c` of 1, `column00` of 1, " in line
    assert line.endswith("`column17` of 1, and 12 more.")
    assert sections.said({"kept": {}, "lost": {}}, {}) == []


def test_names_from_the_data_do_nothing(tmp_path: Path, told: Told) -> None:
    plain = text_of(tmp_path, told)
    facts = handed.facts(told, not_kept=dict.fromkeys([*HOSTILE, "<!-- licence -->", "\ud800", "x" * 500], 1))
    many = dict.fromkeys(HOSTILE, 1) | {f"site{number}": 1 for number in range(90)}
    held = facts.contents.model_copy(update={"by_source": shares(many, 100)})
    facts.figures["contents"].update(held.model_dump(mode="json"))  # type: ignore[attr-defined]
    card.write_texts(tmp_path, facts)
    text = (tmp_path / card.NAME).read_text(encoding="utf-8")
    assert front.split(text)[0] == front.split(plain)[0]
    assert re.findall("^#+ .*$", text, re.MULTILINE) == re.findall("^#+ .*$", plain, re.MULTILINE)
    # Each row of each table has the cells of its head, and all names are code.
    for rows in re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE):
        assert len({len(re.findall(r"(?<!\\)\|", row)) for row in rows.splitlines()}) == 1, rows
    outside = re.sub("`[^`\n]*`", "", text)
    assert not any(part in outside for part in ("<img", "onerror", "{{", "{%", "javascript"))
    assert card.finished(text, CONFIG.assemble, None) == text
    assert ("`(empty)`" in text, "| 79 more | 79 |" in text) == (True, True)


@pytest.mark.parametrize(
    "kinds", [{"sft": 5, "new_pairs": 0}, {"sft": 0, "new_pairs": 5}, {"sft": 0, "new_pairs": 0}]
)
def test_the_edges_have_no_share_of_nothing(tmp_path: Path, kinds: dict[str, int]) -> None:
    files = handed.exported(tmp_path, handed.rows(kinds["new_pairs"], kinds["sft"]))
    text = text_of(tmp_path, files, kinds=kinds | {"earlier_pairs": 0}, rewritten_share=0.0, languages={})
    assert "nan" not in text.lower()
    assert f"and {kinds['new_pairs']} pairs written by a model" in text
    assert "language" not in front.split(text)[0]


def test_what_was_removed_found_and_masked_is_counted(tmp_path: Path, told: Told) -> None:
    found = {"evaluation_set": "gsm|8k", "dataset": "new", "rows": 40, "hits": 3, "share_touched": 0.25}
    text = text_of(
        tmp_path,
        told,
        removed={
            "near_duplicate": {"new": 4, "earlier": 0, "sft": 0},
            "contaminated": {"new": 2, "earlier": 1, "sft": 7},
        },
        contamination={"sets": {}, "found": [found]},
        personal_data={"new": {"email": {"rows": 2, "found": 3, "masked": 3}}},
        config=handed.config(mask=["email"], max_similarity=1.0),
        parts_given_up={"part-0000-of-0002": {"documents": 12, "why": "no"}},
    )
    for line in (
        "| `near_duplicate` | 4 | 0 | 0 |",
        "| `contaminated` | 2 | 1 | 7 |",
        r"| `gsm\|8k` | new | 40 | 3 | 25.0 % |",
        "| new | `email` | 2 | 3 | 3 |",
        "- 1 parts of the difference set were given up, 12 documents",
    ):
        assert line in text.splitlines()
    assert "email masked in new pairs" in text
    assert "vectors were not compared" in text


def test_a_card_is_finished_with_licence_and_evaluation(tmp_path: Path, told: Told) -> None:
    text = text_of(tmp_path, told)
    assert "None is claimed." in text
    assert "has not been evaluated" in text
    # Nothing to say: the very same card.
    assert card.finished(text, CONFIG.assemble, None) == text
    own = handed.settings(license="other", license_name="acme-1", license_link="https://acme.example/terms")
    finished = card.finished(text, own, EVALUATED)
    assert front.split(finished)[0]["license_name"] == "acme-1"
    assert "[acme-1](https://acme.example/terms) (`other`)." in finished
    assert "None is claimed." not in finished
    for line in (
        "| SFT examples | 40 | 2.5000 | 2.2500 | 2.1250 |",
        "| SFT examples | -0.3750 (-0.5000 to -0.2500) | -0.1250 |",
        r"| `mmlu\|x` | `acc` | – | – | 0.5000 ± 0.0100 |",
    ):
        assert line in finished.splitlines()
    assert "has not been evaluated" not in finished
    # Finishing goes on from what is there.
    assert card.finished(finished, own, None) == finished
    assert card.finished(card.finished(finished, CONFIG.assemble, None), own, EVALUATED) == finished


def test_a_template_without_these_places_has_none_filled(tmp_path: Path, told: Told) -> None:
    card.write_texts(tmp_path, handed.facts(told), "# {{ title }}\n")
    text = (tmp_path / card.NAME).read_text()
    finished = card.finished(text, handed.settings(license="mit"), EVALUATED)
    assert front.split(finished)[0]["license"] == "mit"
    assert front.split(finished)[1] == "# aitp news-1\n"


def test_all_loads_as_one_split_beside_its_picture(tmp_path: Path) -> None:
    folder = tmp_path / "version"
    folder.mkdir()
    handed.version(folder, handed.rows())
    for number in range(2):
        found = load_dataset(str(folder), cache_dir=str(tmp_path / f"cache{number}"))
        assert {split: len(rows) for split, rows in found.items()} == {"train": 5}
        assert found["train"].column_names[0] == "messages"
        (folder / card.NAME).unlink(missing_ok=True)


def test_a_split_for_validations_is_one_of_two(tmp_path: Path) -> None:
    folder, case = tmp_path / "version", card_cases.given("front-validation-split")
    folder.mkdir()
    given = handed.rows(pairs=40, sft=60)
    # What only a row for validations has is a column of both, or datasets would refuse to load them.
    call = {"type": "function", "function": {"name": "f", "arguments": {"town": "Kiel"}}}
    given[95]["messages"].insert(1, {"role": "assistant", "content": "", "tool_calls": [call]})
    held, trained = given[case["train"] :], given[: case["train"]]
    contents = handed.version(folder, trained, validation=held)
    assert (contents.rows, sum(contents.validation_shards.values())) == (len(trained), len(held))
    for number in range(2):
        found = load_dataset(str(folder), cache_dir=str(tmp_path / f"cache{number}"))
        for split, rows in (("train", trained), ("validation", held)):
            said = [
                conversations.read(row["messages"], row.get("tools"))[0] for row in found[split].to_list()
            ]
            assert in_any_order(said) == in_any_order(row["messages"] for row in rows)
        if number == 0:
            text = (folder / card.NAME).read_text()
            told = front.split(text)[0]
            assert told["dataset_info"]["splits"] == [
                {
                    "name": split,
                    "num_bytes": found[split].info.splits[split].num_bytes,
                    "num_examples": len(found[split]),
                }
                for split in ("train", "validation")
            ]
            assert f"| `data/validation-*.parquet` | {len(held)} | none |" in text
            assert f"| `data/train-*.parquet` | {len(trained)} | none |" in text
            # What the card says to readers of files gives them the one split alone.
            trained_files = sorted(map(str, folder.glob("data/train-*.parquet")))
            assert 'read_parquet(sorted(glob("FOLDER/data/train-*.parquet")))' in text
            assert len(pd.read_parquet(trained_files)) == len(trained)
            assert len(pl.read_parquet(folder / "data/train-*.parquet")) == len(trained)
            # By the folder's names alone it is the same.
            (folder / card.NAME).unlink()


def test_rows_with_marks_are_no_more_in_the_split_for_validations(tmp_path: Path) -> None:
    given = handed.rows(pairs=0, sft=4)
    given[3]["messages"][1]["content"] += " <|im_end|>"
    for setting, rows in ((Marks.KEEP, 2), (Marks.ESCAPE, 2), (Marks.DROP, 1)):
        folder = tmp_path / setting
        folder.mkdir()
        told = handed.exported(folder, given[:2], setting, validation=given[2:])
        table = pq.read_table(folder / "data/validation-00000-of-00001.parquet")
        assert sum(told.validation.values()) == len(table) == rows
        assert any("<|im_end|>" in str(row) for row in table.to_pylist()) == (setting is Marks.KEEP)


def test_it_says_nothing_of_the_machine(tmp_path: Path, told: Told) -> None:
    text = text_of(tmp_path, told)
    assert not any(part in text for part in ("/models/", "/prompts", "/storage", str(tmp_path)))


def test_no_text_of_a_row_stands_in_it(tmp_path: Path) -> None:
    (pair,) = card_cases.given("card-hostile-samples")["pairs"]
    turns = [of("user", pair["question"]), of("assistant", pair["answer"])]
    files = handed.exported(tmp_path, [{"messages": turns, "origin": "aitp", "dump": "news"}])
    text = text_of(tmp_path, files)
    assert not any(part in text for part in ("60481729", "New title", "license: gpl", "jndi", "<script"))
    assert "license" not in front.split(text)[0]
