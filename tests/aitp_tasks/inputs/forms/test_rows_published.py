"""The sets that LLaMA-Factory comes with, read as its own converter reads them."""

import json
import tarfile
from pathlib import Path
from typing import Any

import pytest

from aitp_tasks.config import Examples, SftText
from aitp_tasks.inputs.examples import Example, Rejection, Turn
from aitp_tasks.inputs.rows import Refusal
from aitp_tasks.inputs.shards import Sft
from aitp_tasks.storage import open_storage
from tests.aitp_tasks.conftest import REPOSITORY
from tests.aitp_tasks.llama_factory import LlamaFactory


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of its sets."""
    folder = tmp_path_factory.mktemp("published")
    (archive,) = (REPOSITORY / ".aitp/downloads").glob("llamafactory-*.tar.gz")
    with tarfile.open(archive) as members:
        for member in members:
            path = Path(member.name)
            if path.parent.name == "data" and path.suffix in (".json", ".jsonl"):
                members.extract(member, folder, filter="data")
    (found,) = folder.glob("*/data")
    return found


@pytest.fixture(scope="module")
def factory(tmp_path_factory: pytest.TempPathFactory) -> LlamaFactory:
    return LlamaFactory(tmp_path_factory.mktemp("llama-factory"))


def examples(data: Path, name: str, **settings: Any) -> list[Example | Rejection | Refusal]:
    storage = open_storage(f"file://{data}")
    reader = Sft(storage, storage.stat(name), SftText.FIRST_TURNS, Examples.model_validate(settings))
    return list(reader.examples())


def as_it_reads(example: Example) -> tuple[list[tuple[str, Any]], Any]:
    """An example by LLaMA-Factory's names: roles, and calls as the content of their turn."""
    return [_turn(turn) for turn in example.messages], example.tools


def _turn(turn: Turn) -> tuple[str, Any]:
    if "tool_calls" in turn:
        return "function", [call["function"] for call in turn["tool_calls"]]
    return {"tool": "observation"}.get(turn["role"], turn["role"]), turn["content"]


def _calls(text: str) -> list[Any]:
    found = json.loads(text)
    return found if isinstance(found, list) else [found]


@pytest.mark.parametrize("name", ["alpaca_en_demo", "identity", "glaive_toolcall_en_demo"])
def test_a_set_is_what_its_own_converter_makes_of_it(factory: LlamaFactory, data: Path, name: str) -> None:
    expected = []
    for read in factory.read(data, name):
        assert read is not None
        turns = [
            (turn["role"], _calls(turn["content"]) if turn["role"] == "function" else turn["content"])
            for turn in read.turns
        ]
        system = [("system", read.system)] if read.system else []
        expected.append((system + turns, json.loads(read.tools) if read.tools else []))
    found = [item for item in examples(data, f"{name}.json") if isinstance(item, Example)]
    assert len(found) > 50
    assert [as_it_reads(example) for example in found] == expected


@pytest.mark.parametrize(
    ("name", "settings", "outcomes"),
    [
        ("v1_sft_demo.jsonl", {}, {"messages"}),
        # Of some of them the answer is nothing but calls.
        ("reason_tool_use_demo_50.jsonl", {}, {"messages"}),
        ("glaive_toolcall_zh_demo.json", {}, {"sharegpt"}),
        ("dpo_en_demo.json", {}, {"<preference>"}),
        ("dpo_en_demo.json", {"preference": "chosen"}, {"preference"}),
        ("v1_dpo_demo.jsonl", {}, {"<preference>"}),
        ("v1_dpo_demo.jsonl", {"preference": "chosen"}, {"preference"}),
        ("kto_en_demo.json", {}, {"<preference>"}),
        ("kto_en_demo.json", {"preference": "chosen"}, {"messages", "(not_preferred)"}),
        ("mllm_demo.json", {}, {"(multimodal)"}),
        ("mllm_video_audio_demo.json", {}, {"(multimodal)"}),
        ("c4_demo.jsonl", {}, {"<rendered_text>"}),
    ],
)
def test_what_is_no_sft_set_is_not_read_as_one(
    data: Path, name: str, settings: dict[str, Any], outcomes: set[str]
) -> None:
    found = examples(data, name, **settings)
    assert {
        item.form
        if isinstance(item, Example)
        else f"({item.reason})"
        if isinstance(item, Rejection)
        else f"<{item.error_class}>"
        for item in found
    } == outcomes
    kept = [item for item in found if isinstance(item, Example)]
    assert all(item.not_kept == () for item in kept)


def test_of_a_preference_set_the_preferred_answers_are_taken(data: Path) -> None:
    rows = json.loads((data / "dpo_en_demo.json").read_text())
    found = examples(data, "dpo_en_demo.json", preference="chosen")
    answers = [item.messages[-1]["content"] for item in found if isinstance(item, Example)]
    assert answers == [row["chosen"]["value"] for row in rows]
    labelled = json.loads((data / "kto_en_demo.json").read_text())
    kept = [isinstance(item, Example) for item in examples(data, "kto_en_demo.json", preference="chosen")]
    assert kept == [row["label"] for row in labelled]
