"""Thinking is told apart from the response: by vLLM's parsers alone, and by the real engine."""

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

from aitp_tasks.config import Engine as Settings
from aitp_tasks.config import Prompts
from aitp_tasks.errors import InputError
from aitp_tasks.generation import prompt_files as prompts
from aitp_tasks.generation.engine import Completion, Job, offline
from aitp_tasks.generation.engine.offline import OfflineEngine
from aitp_tasks.generation.engine.prompting import Prompter
from aitp_tasks.generation.engine.reasoning import Divided, Reasoning, require
from aitp_tasks.inputs.rows import Refusal
from tests.aitp_tasks.conftest import MODELS, REPOSITORY

pytestmark = pytest.mark.slow

MODEL = MODELS / "SmolLM2-135M-Instruct"
#: Tokens that the small model has and does not use, under the names of a model that thinks.
NAMES = {"<jupyter_start>": "<think>", "<jupyter_text>": "</think>"}
TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n"
    "{% if enable_thinking is defined and not enable_thinking %}<think>\n\n</think>\n\n{% endif %}{% endif %}"
)
#: The engine's process, in which requests of this top_k end their thinking at once.
ENDS = 7
ENDING = """
from aitp_tasks.generation.engine import worker
add = worker._Server._add
def ending(server, job):
    if job["sampling"].get("top_k") == %d:
        job["sampling"]["logit_bias"] = {%d: 100.0}
    add(server, job)
worker._Server._add = ending
worker.main()
"""
SCORE = prompts.load_folder(Prompts(folder=str(REPOSITORY / "prompts")))["score"]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small model with tokens for thinking; it does not know what they are for."""
    folder = tmp_path_factory.mktemp("thinking") / "model"
    shutil.copytree(MODEL, folder)
    for path in (folder / "tokenizer.json", folder / "tokenizer_config.json"):
        described = path.read_text(encoding="utf-8")
        for before, name in NAMES.items():
            described = described.replace(json.dumps(before), json.dumps(name))
        path.write_text(described, encoding="utf-8")
    for path in folder.glob("chat_template*"):
        path.unlink()
    (folder / "chat_template.jinja").write_text(TEMPLATE, encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def tokenizer(model: Path) -> Any:
    return AutoTokenizer.from_pretrained(model)


ANSWER = '{"quality": 8, "difficulty": 5, "additional_information": false}'


@pytest.mark.parametrize("parser", ["deepseek_r1", "qwen3"])
@pytest.mark.parametrize(
    ("generated", "reasoning", "text"),
    [
        (f"<think>First, 7 of 10.</think>{ANSWER}", "First, 7 of 10.", ANSWER),
        (f'<think>A draft: {{"quality": 1}}\n</think>{ANSWER}', 'A draft: {"quality": 1}', ANSWER),
        (f"First, 7 of 10.</think>{ANSWER}", "First, 7 of 10.", ANSWER),
        (f"<think>It is {ANSWER}", f"It is {ANSWER}", ""),
        ("<think>Nothing follows.</think>", "Nothing follows.", ""),
        (f"<think></think>{ANSWER}", "", ANSWER),
    ],
)
def test_thinking_is_told_apart(
    tokenizer: Any, parser: str, generated: str, reasoning: str, text: str
) -> None:
    tokens = tokenizer.encode(generated, add_special_tokens=False)
    divided = Reasoning(parser, tokenizer, {}).divided([1, 2], generated, tokens)
    assert (divided.reasoning.strip(), divided.text) == (reasoning, text)
    assert tokenizer.decode(tokens[len(tokens) - divided.tokens :]) == text


def test_what_follows_a_prompt_that_ends_the_thinking_is_the_response(tokenizer: Any) -> None:
    prompt = tokenizer.encode("<|im_start|>assistant\n<think>\n\n</think>\n\n")
    told = Reasoning("qwen3", tokenizer, {"enable_thinking": False}).divided(prompt, ANSWER, [9, 9])
    assert told == Divided("", ANSWER, 2)


def test_a_parser_that_cannot_be_used_is_named(tokenizer: Any) -> None:
    with pytest.raises(ValueError, match=r"engine.reasoning_parser=mine is none of vLLM's: .*qwen3"):
        require("mine")
    plain = AutoTokenizer.from_pretrained(MODEL)
    with pytest.raises(ValueError, match="engine.reasoning_parser=deepseek_r1 cannot be used"):
        Reasoning("deepseek_r1", plain, {})


def thinking(model: Path, **values: Any) -> Settings:
    eager = {"enforce_eager": True}
    return Settings.model_validate(
        {"model": str(model), "max_model_len": 1024, "engine_args": eager} | values
    )


def answered(settings: Settings, model: Path, sampling: list[dict[str, Any]]) -> list[Completion | Refusal]:
    """The score prompt's responses, one for each sampling."""
    prompter = Prompter(settings, str(model))
    rendered = prompter.render(SCORE, {"question": "How does a lock </think> lift a boat?"}, 64)
    found: dict[str, Completion | Refusal] = {}
    with OfflineEngine(settings, str(model)) as engine:
        for number, values in enumerate(sampling):
            job = Job(str(number), rendered.content, rendered.token_ids, SCORE.output_schema, values, 20)
            engine.submit(job)
        while len(found) < len(sampling):
            found |= dict(engine.finished())
    return [found[str(number)] for number in range(len(sampling))]


def test_the_engine_lets_a_model_think_and_keeps_that_apart(
    model: Path, tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = ENDING % (ENDS, tokenizer.convert_tokens_to_ids("</think>"))
    monkeypatch.setattr(offline, "COMMAND", [sys.executable, "-c", script])
    settings = thinking(model, reasoning_parser="deepseek_r1")
    plain = {"max_tokens": 64, "temperature": 0.0}
    thinks, ends = answered(settings, model, [plain, plain | {"top_k": ENDS}])
    assert isinstance(thinks, Completion)
    assert isinstance(ends, Completion)
    # A document's own mark has not ended the thinking: what is free of the schema is no response.
    assert (bool(thinks.reasoning), thinks.text, thinks.numbers) == (True, "", [])
    assert set(json.loads(ends.text)) == {"quality", "difficulty", "additional_information"}
    assert len(ends.numbers) >= 2


def test_a_template_argument_keeps_a_model_from_thinking(model: Path) -> None:
    no = {"enable_thinking": False}
    settings = thinking(model, reasoning_parser="deepseek_r1", chat_template_args=no)
    (said,) = answered(settings, model, [{"max_tokens": 64, "temperature": 0.0}])
    assert isinstance(said, Completion)
    assert said.reasoning == ""
    assert set(json.loads(said.text)) == {"quality", "difficulty", "additional_information"}


def test_the_engine_names_a_parser_that_vllm_lacks(model: Path) -> None:
    settings = thinking(model, reasoning_parser="mine")
    with pytest.raises(InputError, match="engine.reasoning_parser=mine is none of vLLM's"):
        answered(settings, model, [{"max_tokens": 4}])
