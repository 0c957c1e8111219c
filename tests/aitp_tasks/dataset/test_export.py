"""The Parquet file holds all that examples say, and trainers take it without code of their own."""

import json
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import trl
from datasets import load_dataset
from jinja2.exceptions import TemplateError
from transformers import AutoTokenizer, PreTrainedTokenizerBase
from trl.data_utils import maybe_convert_to_chatml
from trl.trainer.utils import remove_none_values

from aitp_tasks.dataset import export
from aitp_tasks.dataset.export import SCHEMA, Export
from aitp_tasks.records import conversations
from tests.aitp_tasks.dataset.test_sharegpt import CALLING, TOOL, as_row, call, exported, of, read_in

TRL_TEMPLATES = sorted((Path(trl.__file__).parent / "chat_templates").glob("*.jinja"))
DATA = "data/train-00000-of-00001.parquet"
HARD = of("assistant", "Let me.", reasoning_content="Hm.", tool_calls=[call("Rome", "a12345678")])
EXAMPLES: list[dict[str, Any]] = [
    CALLING,
    {"messages": [of("user", "a"), HARD, of("tool", "31", tool_call_id="a12345678"), of("assistant", "b")]},
    {
        "messages": [
            of("user", "a", name="ann"),
            of("assistant", "b", weight=0),
            of("user", "c"),
            of("assistant", "d"),
        ]
    },
    {"messages": [of("developer", "Be brief."), of("user", "a"), of("assistant", "b")], "tools": [TOOL]},
    {"messages": [of("user", "日本 \x00 🙂 <|im_end|>"), of("assistant", " \n b\n")]},
]


def read(folder: Path) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = pq.read_table(folder / DATA).to_pylist()
    return rows


def in_any_order(rows: Iterable[Any]) -> list[str]:
    return sorted(json.dumps(row, sort_keys=True) for row in rows)


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    exported(tmp_path, *EXAMPLES)
    found = [conversations.read(row["messages"], row["tools"]) for row in read(tmp_path)]
    assert in_any_order(found) == in_any_order(
        (example["messages"], example.get("tools", [])) for example in EXAMPLES
    )


def test_a_version_can_be_the_sft_set_of_another_line(tmp_path: Path) -> None:
    exported(tmp_path, *EXAMPLES)
    found = [as_row(example) for example in read_in(tmp_path, DATA) if example]
    assert in_any_order(found) == in_any_order({"tools": [], **example} for example in EXAMPLES)


@pytest.mark.parametrize("path", TRL_TEMPLATES, ids=lambda path: path.stem)
def test_templates_make_of_it_what_they_make_of_the_examples(
    loaded: list[dict[str, Any]], tokenizer: PreTrainedTokenizerBase, path: Path
) -> None:
    template = path.read_text()
    for example, row in zip(EXAMPLES, loaded, strict=True):
        assert rendered(tokenizer, template, row) == rendered(tokenizer, template, example)


def test_arguments_of_any_depth_are_kept_or_refused(tmp_path: Path) -> None:
    def row(levels: int) -> dict[str, Any]:
        arguments = {"a": json.loads("[" * levels + "]" * levels)}
        made = call("Rome")
        made["function"]["arguments"] = arguments
        return {"messages": [of("user", "a"), of("assistant", "b", tool_calls=[made])]}

    rows = [json.dumps(row(levels)) for levels in (1, 99, 100, 500, 900)]
    (tmp_path / "set.jsonl").write_text("\n".join(rows))
    examples = read_in(tmp_path, "set.jsonl")
    assert [example is not None for example in examples] == [True, True, False, False, False]
    exported(tmp_path, *(as_row(example) for example in examples if example))
    assert in_any_order(conversations.read(row["messages"])[0] for row in read(tmp_path)) == in_any_order(
        row(levels)["messages"] for levels in (1, 99)
    )


def test_numbers_of_arguments_and_tools_reach_trainers_to_the_last_bit(tmp_path: Path) -> None:
    numbers = [0.82, -0.7, 4.7391, 1.0, -0.0, 1e22, 0.760225712635224, 2**53 + 1, 2**64 - 1, -(2**63)]
    made = call("Rome")
    made["function"]["arguments"] = {"0.82": numbers}
    tool = {"type": "function", "function": {"name": "f", "parameters": {"default": numbers}}}
    messages = [of("user", "0.82"), of("assistant", "-0.7", tool_calls=[made])]
    exported(tmp_path, {"messages": messages, "tools": [tool]})
    (row,) = load_dataset(str(tmp_path), split="train", cache_dir=str(tmp_path / "cache"))
    assert json.dumps([row["messages"], row["tools"]]) == json.dumps([messages, [tool]])
    (row,) = read(tmp_path)
    assert json.dumps(conversations.read(row["messages"], row["tools"])) == json.dumps([messages, [tool]])


#: Sets as TRL documents them; it reads them itself.
TRL_SETS: dict[str, list[dict[str, Any]]] = {
    "messages": [EXAMPLES[4], EXAMPLES[2]],
    "tools": [CALLING, EXAMPLES[3]],
    "tools-as-text": [{**CALLING, "tools": json.dumps(CALLING["tools"])}],
    "from-value": [
        {"conversations": [{"from": "user", "value": "a"}, {"from": "assistant", "value": "b"}]},
    ],
    "prompt-completion": [
        {
            "prompt": [of("system", "Be kind."), of("user", "a")],
            "completion": [of("assistant", "b", reasoning_content="Hm.")],
        }
    ],
}


@pytest.mark.parametrize("name", TRL_SETS)
def test_trl_makes_of_the_version_what_it_makes_of_the_set(
    tokenizer: PreTrainedTokenizerBase, tmp_path: Path, name: str
) -> None:
    (tmp_path / "set.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in TRL_SETS[name]))
    exported(tmp_path, *(as_row(example) for example in read_in(tmp_path, "set.jsonl") if example))
    ours, original = (as_trl_loads(tmp_path / name) for name in (DATA, "set.jsonl"))
    assert len(ours) == len(original) == len(TRL_SETS[name])
    for path in TRL_TEMPLATES:
        template = path.read_text()
        made = [sorted(rendered(tokenizer, template, row) for row in rows) for rows in (original, ours)]
        assert made[0] == made[1], path.stem


def as_trl_loads(path: Path) -> list[dict[str, Any]]:
    """Rows as its trainer for SFT gives them to a template."""
    kind = "parquet" if path.suffix == ".parquet" else "json"
    rows = load_dataset(kind, data_files=str(path), split="train", cache_dir=str(path.parent / "cache"))
    # Loading JSON Lines puts nulls into turns; TRL's remedy for them.
    converted = [maybe_convert_to_chatml(remove_none_values(row) if kind == "json" else row) for row in rows]
    return [{"messages": row.get("prompt", []) + row.get("completion", []), **row} for row in converted]


def test_some_templates_take_all_of_it(
    loaded: list[dict[str, Any]], tokenizer: PreTrainedTokenizerBase
) -> None:
    by_name = {path.stem: path.read_text() for path in TRL_TEMPLATES}
    text = rendered(tokenizer, by_name["qwen3"], loaded[1])
    assert (
        '<think>\nHm.\n</think>\n\nLet me.\n<tool_call>\n{"name": "weather", "arguments": {"town": "Rome"}}'
        in text
    )
    assert '<tools>\n{"type": "function"' in rendered(tokenizer, by_name["qwen2_5"], loaded[0])


@pytest.fixture(scope="module")
def tokenizer(smollm2: Path) -> PreTrainedTokenizerBase:
    found: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(smollm2)
    return found


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """The rows as trainers load them."""
    folder = tmp_path_factory.mktemp("export")
    exported(folder, *EXAMPLES)
    data = str(folder / DATA)
    rows = load_dataset("parquet", data_files=data, split="train", cache_dir=str(folder / "cache"))
    # In the order of the examples: each begins with another turn, or goes on with one.
    first = {json.dumps(example["messages"][:2]): place for place, example in enumerate(EXAMPLES)}
    return sorted(rows, key=lambda row: first[json.dumps(row["messages"][:2])])


def rendered(tokenizer: PreTrainedTokenizerBase, template: str, row: dict[str, Any]) -> str:
    """As TRL's trainer for SFT calls a template."""
    tools = row.get("tools")
    tools = json.loads(tools) if isinstance(tools, str) else tools
    try:
        return str(
            tokenizer.apply_chat_template(
                row["messages"], chat_template=template, tools=tools or None, tokenize=False
            )
        )
    except (TemplateError, TypeError) as error:
        return f"{type(error).__name__}: {error}"


def test_a_plain_version_has_the_columns_that_it_had(tmp_path: Path) -> None:
    exported(
        tmp_path,
        {"messages": [of("system", "Be brief."), of("user", "a"), of("assistant", "b")], "tools": []},
    )
    turn = pa.struct([("role", pa.string()), ("content", pa.large_string())])
    names = [
        "origin",
        "pair_id",
        "doc_id",
        "dump",
        "source",
        "shard",
        "row",
        "density_ratio",
        "cut_characters",
        "quality",
    ]
    names += ["difficulty", "faithfulness", "answer_log_probability"]
    names += ["prompt_digest", "prompts", "model", "version"]
    schema = pq.read_schema(tmp_path / DATA)
    assert schema == SCHEMA
    assert schema.field("messages").type == pa.list_(turn)
    assert schema.names == ["messages", *names]


def test_one_example_with_more_makes_room_for_all(tmp_path: Path) -> None:
    plain = {"messages": [of("user", "a"), of("assistant", "b")]}
    many = [plain] * 2000 + [{"messages": [of("user", "a"), of("assistant", "b", weight=0)]}] + [plain]
    exported(tmp_path, *many)
    file = pq.ParquetFile(tmp_path / DATA)
    assert file.num_row_groups == 2
    assert "tools" not in file.schema_arrow.names
    assert in_any_order(conversations.read(row["messages"])[0] for row in read(tmp_path)) == in_any_order(
        row["messages"] for row in many
    )


def test_pairs_keep_where_they_come_from_beside_such_examples(tmp_path: Path) -> None:
    pair: dict[str, Any] = dict.fromkeys(SCHEMA.names) | {
        "messages": [of("user", "q"), of("assistant", "a")],
        "origin": "aitp",
        "density_ratio": 0.1 + 0.2,
        "row": 2**53 + 1,
        "prompts": ["rewrite@1"],
    }
    with Export(tmp_path) as made:
        made.write([{**EXAMPLES[0], "origin": "sft"}])
        made.write([pair])
        made.close("aitp")
    (found,) = (row for row in read(tmp_path) if row["origin"] == "aitp")
    assert conversations.read(found.pop("messages"))[0] == pair["messages"]
    assert found.pop("tools") is None
    assert found == {name: value for name, value in pair.items() if name != "messages"}


def test_nothing_gives_empty_files(tmp_path: Path) -> None:
    exported(tmp_path)
    for name in (export.SHAREGPT, export.ALPACA):
        assert json.loads((tmp_path / name).read_text()) == []
    assert read(tmp_path) == []


def test_the_counts_are_of_conversations(tmp_path: Path) -> None:
    told = exported(tmp_path, *EXAMPLES).told
    assert told.kept == {"name": 2, "reasoning_content": 1, "system": 2, "tool_call_id": 2, "tool_calls": 2,
                         "tools": 2, "weight": 1}  # fmt: skip
    assert told.lost == {"name": 2, "tool_call_id": 2, "tool_calls.id": 2, "weight": 1}


_MEASURED = """
import resource, sys, tempfile
from pathlib import Path
from aitp_tasks.dataset.export import Export
with tempfile.TemporaryDirectory() as folder, Export(Path(folder)) as export:
    for n in range(int(sys.argv[1])):
        turns = [{"role": "user", "content": str(n)}, {"role": "assistant", "content": f"{n} is so. " * 200}]
        export.write([{"messages": turns, "origin": "sft"}])
    export.close("aitp")
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


@pytest.mark.slow
@pytest.mark.side_by_side
def test_memory_does_not_grow_with_the_rows() -> None:
    few, many = (
        int(subprocess.check_output([sys.executable, "-c", _MEASURED, str(rows)])) for rows in (4_000, 24_000)
    )
    # The further rows have 48 MB of text, in kB as these figures are.
    assert many - few < 12_000
