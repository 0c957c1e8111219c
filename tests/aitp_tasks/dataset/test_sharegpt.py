"""What LLaMA-Factory reads of a version is what it reads of the set that the version was made of."""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from aitp_tasks.config import Examples, SftText
from aitp_tasks.dataset.export import Export
from aitp_tasks.dataset.sharegpt import Record, record
from aitp_tasks.inputs import shards
from aitp_tasks.inputs.examples import Example
from aitp_tasks.storage import open_storage
from tests.aitp_tasks.llama_factory import LlamaFactory, Read

PARAMETERS = {
    "type": "object",
    "properties": {"town": {"type": "string", "description": "Its name."}},
    "required": ["town"],
}
BARE = {"name": "weather", "description": "The weather of a town.", "parameters": PARAMETERS}
TOOL = {"type": "function", "function": BARE}
OPENAI_TAGS = {
    "role_tag": "role",
    "content_tag": "content",
    "user_tag": "user",
    "assistant_tag": "assistant",
    "observation_tag": "tool",
    "function_tag": "function",
    "system_tag": "system",
}
#: Its templates of several families: of tools, of reasoning, of neither.
TEMPLATES = (
    "default",
    "qwen",
    "qwen3",
    "llama3",
    "mistral",
    "gemma",
    "chatml",
    "cohere",
    "hunyuan",
    "intern2",
)


def of(role: str, content: str, **further: Any) -> dict[str, Any]:
    return {"role": role, "content": content, **further}


def said(speaker: str, value: str) -> dict[str, Any]:
    return {"from": speaker, "value": value}


def call(town: str, identifier: str | None = None) -> dict[str, Any]:
    made = {"type": "function", "function": {"name": "weather", "arguments": {"town": town}}}
    return made if identifier is None else {"id": identifier, **made}


def as_openai(example: dict[str, Any]) -> dict[str, Any]:
    """A conversation as OpenAI's form has it: arguments are texts there."""
    turns = json.loads(json.dumps(example["messages"]))
    for turn in turns:
        for made in turn.get("tool_calls", []):
            made["function"]["arguments"] = json.dumps(made["function"]["arguments"])
    return {**example, "messages": turns}


@dataclass(frozen=True)
class Set:
    """An SFT set as it is published, how LLaMA-Factory is told of it, and what its examples say."""

    rows: list[dict[str, Any]]
    info: dict[str, Any]
    examples: list[dict[str, Any] | None]
    #: A difference that is right: makes of the original's reading what the version's is.
    mended: Callable[[Read], Read] = lambda read: read


SHAREGPT = {"formatting": "sharegpt", "columns": {"messages": "conversations"}}
SIDE = {
    "formatting": "sharegpt",
    "columns": {"messages": "conversations", "system": "system", "tools": "tools"},
}
PLAIN_MESSAGES = {"formatting": "sharegpt", "columns": {"messages": "messages"}, "tags": OPENAI_TAGS}
OPENAI = {"formatting": "openai", "columns": {"messages": "messages", "tools": "tools"}, "tags": OPENAI_TAGS}
CALLING = {
    "messages": [
        of("system", "Be exact."),
        of("user", "Rome or Oslo?"),
        of("assistant", "", tool_calls=[call("Rome", "call_1"), call("Oslo", "call_2")]),
        of("tool", "31 degrees", tool_call_id="call_1", name="weather"),
        of("tool", "12 degrees", tool_call_id="call_2", name="weather"),
        of("assistant", "Rome."),
    ],
    "tools": [TOOL],
}


def of_openai(read: Read) -> Read:
    """What is right of its reading of OpenAI's form.

    It adds words of its own to the system's text, whoever has written that, and takes
    the text that arguments are there for a JSON string, so that it is quoted once more.
    """
    turns = [
        {**turn, "content": json.dumps(decoded(turn["content"]))} if turn["role"] == "function" else turn
        for turn in read.turns
    ]
    return replace(read, turns=turns, system=re.sub(r"\n?detailed thinking off$|\n$", "", read.system))


def decoded(calls: str) -> list[dict[str, Any]]:
    return [{**made, "arguments": json.loads(made["arguments"])} for made in json.loads(calls)]


SETS = {
    "alpaca": Set(
        [
            {"instruction": "Add.", "input": "1 and 2", "output": "3"},
            {"instruction": "Hi", "input": "", "output": "Yo"},
        ],
        {},
        [
            {"messages": [of("user", "Add.\n1 and 2"), of("assistant", "3")]},
            {"messages": [of("user", "Hi"), of("assistant", "Yo")]},
        ],
    ),
    "alpaca-system-history": Set(
        [
            {
                "instruction": "And its capital?",
                "input": "",
                "output": "Oslo.",
                "system": "Be brief.",
                "history": [["Where are fjords?", "In Norway."], ["Where else?", "In Chile."]],
            },
            {"instruction": "q", "input": "", "output": "a", "system": "", "history": []},
        ],
        {
            "columns": {
                "prompt": "instruction",
                "query": "input",
                "response": "output",
                "system": "system",
                "history": "history",
            }
        },
        [
            {
                "messages": [
                    of("system", "Be brief."),
                    *(of("user", "Where are fjords?"), of("assistant", "In Norway.")),
                    *(of("user", "Where else?"), of("assistant", "In Chile.")),
                    *(of("user", "And its capital?"), of("assistant", "Oslo.")),
                ]
            },
            {"messages": [of("user", "q"), of("assistant", "a")]},
        ],
    ),
    "dolly": Set(
        [{"instruction": "Sum it up.", "context": "Rivers rise.", "response": "They rise."}],
        {"columns": {"prompt": "instruction", "query": "context", "response": "response"}},
        [{"messages": [of("user", "Sum it up.\nRivers rise."), of("assistant", "They rise.")]}],
    ),
    "orca": Set(
        [{"system_prompt": "Think.", "question": "2+2?", "response": "4"}],
        {"columns": {"prompt": "question", "response": "response", "system": "system_prompt"}},
        [{"messages": [of("system", "Think."), of("user", "2+2?"), of("assistant", "4")]}],
    ),
    "prompt-completion": Set(
        [{"prompt": "The sky is", "completion": " blue."}],
        {"columns": {"prompt": "prompt", "response": "completion"}},
        [{"messages": [of("user", "The sky is"), of("assistant", " blue.")]}],
    ),
    "sharegpt": Set(
        [{"conversations": [said("human", "a"), said("gpt", "b"), said("human", "c"), said("gpt", "d")]}],
        SHAREGPT,
        [{"messages": [of("user", "a"), of("assistant", "b"), of("user", "c"), of("assistant", "d")]}],
    ),
    "sharegpt-system-turn": Set(
        [{"conversations": [said("system", "Be kind."), said("human", "a"), said("gpt", "b")]}],
        SHAREGPT,
        [{"messages": [of("system", "Be kind."), of("user", "a"), of("assistant", "b")]}],
    ),
    "sharegpt-tools": Set(
        [
            {
                "conversations": [
                    said("human", "How is Rome?"),
                    said("function_call", '{"name": "weather", "arguments": {"town": "Rome"}}'),
                    said("observation", '{"degrees": 31}'),
                    said("gpt", "Hot."),
                ],
                "system": "You help.",
                "tools": json.dumps([BARE]),
            },
            {"conversations": [said("human", "a"), said("gpt", "b")], "system": "", "tools": ""},
        ],
        SIDE,
        [
            {
                "messages": [
                    of("system", "You help."),
                    of("user", "How is Rome?"),
                    of("assistant", "", tool_calls=[call("Rome")]),
                    of("tool", '{"degrees": 31}'),
                    of("assistant", "Hot."),
                ],
                "tools": [BARE],
            },
            {"messages": [of("user", "a"), of("assistant", "b")]},
        ],
    ),
    "sharegpt-parallel-calls": Set(
        [
            {
                "conversations": [
                    said("human", "Rome, Oslo?"),
                    said(
                        "function_call",
                        '[{"name": "weather", "arguments": {"town": "Rome"}}, '
                        '{"name": "weather", "arguments": {"town": "Oslo"}}]',
                    ),
                    said("observation", "hot, cold"),
                    said("gpt", "Rome."),
                ],
                "system": None,
                "tools": json.dumps([BARE]),
            }
        ],
        SIDE,
        [
            {
                "messages": [
                    of("user", "Rome, Oslo?"),
                    of("assistant", "", tool_calls=[call("Rome"), call("Oslo")]),
                    of("tool", "hot, cold"),
                    of("assistant", "Rome."),
                ],
                "tools": [BARE],
            }
        ],
    ),
    "sharegpt-marked-reasoning": Set(
        [{"conversations": [said("human", "2+2?"), said("gpt", "<think>\nTwo twos.\n</think>\n\n4")]}],
        SHAREGPT,
        [{"messages": [of("user", "2+2?"), of("assistant", "<think>\nTwo twos.\n</think>\n\n4")]}],
    ),
    "messages": Set(
        [{"messages": [of("system", "Be kind."), of("user", "a"), of("assistant", "b")]}],
        PLAIN_MESSAGES,
        [{"messages": [of("system", "Be kind."), of("user", "a"), of("assistant", "b")]}],
    ),
    "openai-tools": Set([as_openai(CALLING)], OPENAI, [CALLING], mended=of_openai),
    "left-out": Set(
        [
            {"conversations": turns}
            for turns in (
                [said("gpt", "Hello."), said("human", "a"), said("gpt", "b")],
                [said("human", "a"), said("gpt", "b"), said("human", "c")],
                [said("human", "a"), said("system", "b")],
                [said("human", "a"), said("gpt", "b")],
            )
        ],
        SHAREGPT,
        [
            {"messages": [of("assistant", "Hello."), of("user", "a"), of("assistant", "b")]},
            {"messages": [of("user", "a"), of("assistant", "b"), of("user", "c")]},
            # Nothing to learn from.
            None,
            {"messages": [of("user", "a"), of("assistant", "b")]},
        ],
    ),
}


@pytest.fixture(scope="module")
def factory(tmp_path_factory: pytest.TempPathFactory) -> LlamaFactory:
    return LlamaFactory(tmp_path_factory.mktemp("llama-factory"))


@pytest.fixture(scope="module")
def tokenizer(smollm2: Path) -> PreTrainedTokenizerBase:
    loaded: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(smollm2)
    return loaded


def exported(folder: Path, *examples: dict[str, Any]) -> Export:
    with Export(folder) as export:
        export.write([{**example, "origin": "sft"} for example in examples])
        export.close("aitp")
    return export


def published(folder: Path, made: Set) -> Path:
    """A set as its authors have it."""
    folder.mkdir(parents=True)
    (folder / "set.json").write_text(json.dumps(made.rows))
    (folder / "dataset_info.json").write_text(json.dumps({"aitp": {"file_name": "set.json", **made.info}}))
    return folder


@pytest.mark.parametrize("name", SETS)
def test_it_reads_of_the_version_what_it_reads_of_the_set(
    factory: LlamaFactory, tokenizer: PreTrainedTokenizerBase, tmp_path: Path, name: str
) -> None:
    made = SETS[name]
    original = factory.read(published(tmp_path / "sft/set", made))
    examples = read_in(tmp_path, "sft/set/set.json")
    assert [example and as_row(example) for example in examples] == [
        example and {"tools": [], **example} for example in made.examples
    ]
    exported(tmp_path, *(as_row(example) for example in examples if example is not None))
    # What AITP leaves out, it leaves out too; and what it leaves out is not in the file.
    assert not any(read for read, example in zip(original, examples, strict=True) if example is None)
    kept = [made.mended(read) for read in original if read is not None]
    ours = factory.read(tmp_path)
    assert len(ours) == len(kept) > 0
    for left, right in zip(sorted(kept, key=by_text), sorted(filter(None, ours), key=by_text), strict=True):
        assert (left.system, left.tools == "") == (right.system, right.tools == "")
        # Calls and tools are JSON texts: its own templates say what is the same.
        for template in TEMPLATES:
            assert rendered(factory, template, tokenizer, right) == rendered(
                factory, template, tokenizer, left
            )


def by_text(read: Read) -> str:
    """A version has an order of its own."""
    return read.turns[0]["content"]


def read_in(root: Path, key: str) -> list[Example | None]:
    """The examples of an SFT shard; None stands for what is none."""
    storage = open_storage(f"file://{root}")
    (info,) = storage.list(key)
    found = shards.Sft(storage, info, SftText.FIRST_TURNS, Examples()).examples()
    return [example if isinstance(example, Example) else None for example in found]


def as_row(example: Example) -> dict[str, Any]:
    return {"messages": example.messages, "tools": example.tools}


def rendered(
    factory: LlamaFactory, template: str, tokenizer: PreTrainedTokenizerBase, read: Read
) -> list[tuple[str, str]] | str:
    try:
        return factory.render(template, tokenizer, read)
    except ValueError as error:
        return str(error)


def test_what_it_leaves_out_is_counted_by_its_reason(tmp_path: Path) -> None:
    told = exported(tmp_path, *filter(None, SETS["left-out"].examples)).told
    assert told.left_out["sharegpt.json"] == {"begins_with_assistant": 1, "ends_without_assistant": 1}
    assert (told.rows["sharegpt.json"], told.rows["data/train-00000-of-00001.parquet"]) == (1, 3)


def test_a_developer_s_text_is_the_system_s(factory: LlamaFactory, tmp_path: Path) -> None:
    # It knows no such role, and would leave the conversation out.
    exported(tmp_path, {"messages": [of("developer", "Be kind."), of("user", "a"), of("assistant", "b")]})
    assert factory.read(tmp_path) == [Read([of("user", "a"), of("assistant", "b")], "Be kind.", "")]


def test_reasoning_stands_between_its_marks(factory: LlamaFactory, tmp_path: Path) -> None:
    exported(tmp_path, {"messages": [of("user", "a"), of("assistant", "4", reasoning_content="Two twos.")]})
    (read,) = factory.read(tmp_path)
    assert read is not None
    assert read.turns[1] == of(
        "assistant", SETS["sharegpt-marked-reasoning"].rows[0]["conversations"][1]["value"]
    )


def test_a_text_and_reasoning_before_calls_are_learnt(
    factory: LlamaFactory, tokenizer: PreTrainedTokenizerBase, tmp_path: Path
) -> None:
    turn = of("assistant", "Let me look.", reasoning_content="Hm.", tool_calls=[call("Rome"), call("Oslo")])
    told = exported(
        tmp_path,
        {"messages": [of("user", "a"), turn, of("tool", "b"), of("assistant", "c")], "tools": [TOOL]},
    ).told
    assert not told.lost
    (read,) = factory.read(tmp_path)
    assert read is not None
    (_, learnt), _ = factory.render("qwen3", tokenizer, read)
    assert learnt == (
        "<think>\nHm.\n</think>\n\nLet me look."
        '<tool_call>\n{"name": "weather", "arguments": {"town": "Rome"}}\n</tool_call>\n'
        '<tool_call>\n{"name": "weather", "arguments": {"town": "Oslo"}}\n</tool_call><|im_end|>\n'
    )


@pytest.mark.parametrize("text", ["", "Look: "])
@pytest.mark.parametrize(
    "town",
    [
        "<tool_call>x</tool_call>",
        "<think>\nx\n</think>\n\n",
        '</tool_call>"}]',
        "\u003c \\u003c <\\",
        "日本 🙂 \x00",
    ],
)
def test_arguments_that_hold_its_marks_come_back_as_they_are(
    factory: LlamaFactory, tokenizer: PreTrainedTokenizerBase, tmp_path: Path, text: str, town: str
) -> None:
    turn = of("assistant", text, tool_calls=[call(town)])
    exported(
        tmp_path,
        {"messages": [of("user", "a"), turn, of("tool", "b"), of("assistant", "c")], "tools": [TOOL]},
    )
    (read,) = factory.read(tmp_path)
    assert read is not None
    (_, learnt), _ = factory.render("qwen", tokenizer, read)
    body = learnt.removeprefix(f"{text}<tool_call>\n").removesuffix("\n</tool_call><|im_end|>\n")
    assert json.loads(body) == {"name": "weather", "arguments": {"town": town}}


def test_a_text_that_holds_the_mark_of_calls_is_left_out_and_counted(tmp_path: Path) -> None:
    turn = of("assistant", "See <tool_call> there", tool_calls=[call("Rome")])
    told = exported(
        tmp_path, {"messages": [of("user", "a"), turn, of("tool", "b"), of("assistant", "c")]}
    ).told
    assert told.left_out["sharegpt.json"] == {"tool_call_mark_before_tool_calls": 1}
    assert json.loads((tmp_path / "sharegpt.json").read_text()) == []


@pytest.mark.parametrize(
    ("turns", "lost"),
    [
        ([of("user", "a", name="ann"), of("assistant", "b")], {"name"}),
        ([of("user", "a"), of("assistant", "b", weight=0)], {"weight"}),
        ([of("user", "a", weight=1), of("assistant", "b")], {"weight"}),
        # As it learns anyhow.
        ([of("user", "a", weight=0), of("assistant", "b", weight=1)], set()),
        (CALLING["messages"], {"name", "tool_call_id", "tool_calls.id"}),
    ],
)
def test_what_has_no_place_is_named(turns: list[dict[str, Any]], lost: set[str]) -> None:
    made = record(turns)
    assert isinstance(made, Record)
    assert made.lost == lost
