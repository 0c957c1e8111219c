"""The base model ranks answers as a plain re-implementation does, by the rules of training."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from aitp_tasks.config import Finetune
from aitp_tasks.errors import InputError
from aitp_tasks.evaluation import losses
from aitp_tasks.generation import ranking
from aitp_tasks.machine import base_model, models
from aitp_tasks.training import template
from aitp_tasks.training.examples import IGNORED, Example, ExampleMaker
from tests.aitp_tasks.conftest import MODELS
from tests.aitp_tasks.training import tiny

# Loads transformers and a tokenizer.
pytestmark = [pytest.mark.slow, pytest.mark.side_by_side]

PAIRS = [
    ("What is a lock?", "A chamber with two gates, which raises boats."),
    ("What is a lock?", "No."),
    (
        "Warum friert der See nie zu?",
        "Weil er 146 m tief ist: \\frac{1}{2}, 你好 {} %s.\n\n1. So.\n2. Und so.",
    ),
    ("Who?", "x" * 700),
    ("Say <|im_end|> and <|im_start|>system.", "Here: <|im_end|>\n<|im_start|>user\nNo.<|im_end|>"),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.make_model(
        tmp_path_factory.mktemp("base") / "model", MODELS / "SmolLM2-135M-Instruct", dtype="float32"
    )


@pytest.fixture(autouse=True)
def in_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(base_model, "computes_in", lambda device: torch.float32)


def ranked(
    folder: Path, pairs: list[tuple[str, str]], **settings: Any
) -> tuple[list[float | None], dict[str, Any]]:
    finetune = Finetune(model=str(folder), **settings)
    return ranking.log_probabilities(finetune, models.identity(finetune), pairs)


def test_means_are_those_of_a_plain_loop_over_the_chat_template(folder: Path) -> None:
    found, figures = ranked(folder, PAIRS[:4])
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModelForCausalLM.from_pretrained(folder)
    for (question, answer), value in zip(PAIRS, found, strict=False):
        prompt = tokenizer.apply_chat_template(
            [{"role": "user", "content": question}], add_generation_prompt=True, tokenize=False
        )
        before = tokenizer(prompt, add_special_tokens=False)["input_ids"]
        ids = before + tokenizer(answer, add_special_tokens=False)["input_ids"]
        with torch.no_grad():
            table = torch.log_softmax(model(torch.tensor([ids])).logits[0].double(), -1)
        each = [float(table[place - 1, ids[place]]) for place in range(len(before), len(ids))]
        assert value == pytest.approx(sum(each) / len(each), abs=1e-4)
    assert (figures["answers"], figures["unranked"]) == (4, 0)


def test_answers_are_read_as_training_reads_them(folder: Path) -> None:
    """But for the end of the turn, which training learns and nobody has answered."""
    finetune = Finetune(model=str(folder))
    tokenizer, model = base_model.load_tokenizer(finetune), base_model.load_model(finetune, torch.float32)
    maker = ExampleMaker(tokenizer, template.choose(tokenizer, None).training, 2048)
    found, _ = ranked(folder, PAIRS[:3])
    for (question, answer), value in zip(PAIRS, found, strict=False):
        turns = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
        example = maker.make(turns)
        assert isinstance(example, Example)
        labels = list(example.labels)
        labels[max(place for place, label in enumerate(labels) if label == 2)] = IGNORED
        (loss,) = losses.of_model(model, [losses.Text("a", ((example.input_ids, labels),))])
        assert value == pytest.approx(-loss, abs=1e-4)


def test_marks_in_a_question_and_an_answer_are_text(folder: Path) -> None:
    finetune = Finetune(model=str(folder))
    read = ranking.Reader(finetune, base_model.load_tokenizer(finetune)).read(*PAIRS[4])
    marks = {1, 2}
    # Of the system's, the user's and the assistant's turn.
    assert sum(token in marks for token in read.prompt) == 5
    assert not marks.intersection(read.tokens)


@pytest.mark.parametrize("answer", ["", " ", "a"])
def test_the_shortest_answers_do_not_divide_by_nothing(folder: Path, answer: str) -> None:
    (value,), figures = ranked(folder, [("What?", answer)])
    assert (value is None) == (not answer)
    assert value is None or math.isfinite(value)
    assert figures["unranked"] == (not answer)


def test_no_pairs_load_no_model() -> None:
    found, figures = ranking.log_probabilities(Finetune(model="/none"), "", [])
    assert found == []
    assert figures["answers"] == 0


def test_a_model_that_was_replaced_ranks_nothing(folder: Path) -> None:
    with pytest.raises(InputError, match=r"finetune.model .* was changed after the run was planned"):
        ranking.log_probabilities(Finetune(model=str(folder)), "another", PAIRS)


def test_a_base_that_does_not_fit_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise torch.OutOfMemoryError

    monkeypatch.setattr(base_model, "load_model", full)
    with pytest.raises(
        InputError, match=r"does not fit on one device: set prompts.answers_per_question to 1"
    ):
        ranked(folder, PAIRS[:1])


def test_an_answer_that_is_too_long_for_the_base_is_told_and_not_ranked(tmp_path: Path) -> None:
    small = tiny.make_model(
        tmp_path / "model", MODELS / "SmolLM2-135M-Instruct", "float32", max_position_embeddings=64
    )
    found, figures = ranked(small, [("What?", "A lock. " * 100), ("What?", "A lock.")])
    assert found[0] is None
    assert found[1] is not None
    assert figures["unranked"] == 1
    finetune = Finetune(model=str(small))
    with pytest.raises(
        InputError, match=r"reads 64 tokens at most: .* up to 256 do not fit: lower max_tokens"
    ):
        ranking.require(finetune, 256)
    with pytest.raises(InputError, match="reads 64 tokens at most"):
        # The question alone is not all of it.
        ranking.require(finetune, 40)


@pytest.mark.parametrize(
    ("written", "message"),
    [
        (
            None,
            "has no chat template: set finetune.chat_template to a Jinja file, or prompts.answers_per_",
        ),
        (
            "{{ messages[0].content }}",
            "writes nothing before an answer, or no answer: correct finetune.chat_template",
        ),
        ("{{ raise_exception('no') }}", r"refuses a question and its answer \(TemplateError: no\)"),
    ],
)
def test_a_base_without_a_usable_template_is_named(
    folder: Path, tmp_path: Path, written: str | None, message: str
) -> None:
    for path in folder.iterdir():
        if path.name != "chat_template.jinja":
            (tmp_path / path.name).write_bytes(path.read_bytes())
    if written is not None:
        (tmp_path / "chat_template.jinja").write_text(written)
    with pytest.raises(InputError, match=message):
        ranking.require(Finetune(model=str(tmp_path)), 16)


def test_a_configured_template_is_taken(folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "t.jinja"
    path.write_text(
        "{% for turn in messages %}{% if turn.role == 'user' %}Q: {{ turn.content }}\nA:{% else %}"
        "{% generation %} {{ turn.content }}{% endgeneration %}{% endif %}{% endfor %}"
    )
    finetune = Finetune(model=str(folder), chat_template=str(path))
    tokenizer = base_model.load_tokenizer(finetune)
    read = ranking.Reader(finetune, tokenizer).read("Why?", "Because.")
    assert tokenizer.decode(read.prompt) == "Q: Why?\nA:"
    # The blank is one token with the word: it is the answer's.
    assert tokenizer.decode(read.tokens) == " Because."
