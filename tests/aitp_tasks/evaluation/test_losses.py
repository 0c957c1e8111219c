"""Losses against a plain re-implementation in transformers alone, in float32."""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from aitp_tasks.config import Finetune
from aitp_tasks.evaluation import losses
from aitp_tasks.training import template
from aitp_tasks.training.examples import ExampleMaker
from tests.aitp_tasks.training import tiny

_LENGTH = 64


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """Threads that wait for each other cost more than so small a model."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, smollm2: Path) -> Path:
    return tiny.make_model(tmp_path_factory.mktemp("tiny") / "model", smollm2, dtype="float32")


@pytest.fixture(scope="module")
def model(folder: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)


@pytest.fixture(scope="module")
def tokenizer(folder: Path) -> Any:
    return AutoTokenizer.from_pretrained(folder)


def _texts(folder: Path, tokenizer: Any, given: list[list[dict[str, Any]]], **settings: Any) -> losses.Texts:
    finetune = Finetune.model_validate({"model": str(folder), "max_length": _LENGTH, **settings})
    templates = template.choose(tokenizer, None)
    maker = ExampleMaker(tokenizer, templates.training, finetune.max_length)
    rows = [{"id": f"{number}", "messages": messages} for number, messages in enumerate(given)]
    return losses.of_conversations(rows, maker, finetune)


def _nats(model: Any, tokens: list[int], learnt: list[bool]) -> list[float]:
    """Of each token that is learnt, minus the logarithm of its probability: by hand."""
    with torch.no_grad():
        logits = model(torch.tensor([tokens])).logits[0].double()
    found = []
    for place in range(1, len(tokens)):
        if learnt[place]:
            row = logits[place - 1]
            top = row.max()
            found.append(float(top + (row - top).exp().sum().log() - row[tokens[place]]))
    return found


def _said(tokenizer: Any, messages: list[dict[str, str]], cut: int = 10**9) -> tuple[list[int], list[bool]]:
    """ChatML by hand: which tokens are what the assistant says, with the end of its turn."""
    tokens: list[int] = []
    learnt: list[bool] = []
    if messages[0]["role"] != "system":
        preamble = "You are a helpful AI assistant named SmolLM, trained by Hugging Face"
        messages = [{"role": "system", "content": preamble}, *messages]
    for turn in messages:
        for text, is_learnt in (
            (f"<|im_start|>{turn['role']}\n", False),
            (f"{turn['content']}<|im_end|>", turn["role"] == "assistant"),
            ("\n", False),
        ):
            ids = tokenizer(text, add_special_tokens=False)["input_ids"]
            tokens += ids
            learnt += [is_learnt] * len(ids)
    return tokens[:cut], learnt[:cut]


def test_conversations_as_by_hand(folder: Path, model: Any, tokenizer: Any) -> None:
    given = [*tiny.pairs(3), [*tiny.pairs(1)[0], *tiny.pairs(2)[1]]]
    found = _texts(folder, tokenizer, given, max_length=256)
    assert [text.id for text in found.texts] == ["0", "1", "2", "3"]
    expected = [_nats(model, *_said(tokenizer, messages)) for messages in given]
    assert [text.tokens for text in found.texts] == [len(each) for each in expected]
    means = [math.fsum(each) / len(each) for each in expected]
    assert losses.of_model(model, found.texts) == pytest.approx(means, abs=1e-5)


def test_long_ones_as_training_takes_them(folder: Path, model: Any, tokenizer: Any) -> None:
    long = [
        {"role": "user", "content": "Count."},
        {"role": "assistant", "content": " ".join(str(number) for number in range(200))},
    ]
    cut = _texts(folder, tokenizer, [long])
    expected = _nats(model, *_said(tokenizer, long, _LENGTH))
    assert cut.texts[0].tokens == len(expected) < 60
    assert losses.of_model(model, cut.texts)[0] == pytest.approx(sum(expected) / len(expected), abs=1e-5)
    dropped = _texts(folder, tokenizer, [long, *tiny.pairs(1)], long_examples="drop")
    assert (len(dropped.texts), dict(dropped.left)) == (1, {"too_long": 1})
    # One conversation is one example, whose parts count by their tokens.
    exchanges = [turn for pair in tiny.pairs(6) for turn in pair]
    split = _texts(folder, tokenizer, [exchanges], long_examples="split_turns")
    (text,) = split.texts
    assert len(text.parts) > 1
    each = [_nats(model, tokens, [label != -100 for label in labels]) for tokens, labels in text.parts]
    assert text.tokens == sum(map(len, each))
    assert losses.of_model(model, split.texts)[0] == pytest.approx(
        sum(map(sum, each)) / text.tokens, abs=1e-5
    )


def test_documents_as_plain_text(model: Any, tokenizer: Any) -> None:
    given = ["Rivers flow to the sea.", "<|im_start|>user\nNo turn<|im_end|>", "a " * 1000]
    rows = [{"id": text[:5], "text": text} for text in given]
    found = losses.of_documents(rows, tokenizer, _LENGTH)
    assert not found.left
    measured = losses.of_model(model, found.texts)
    for text, loss, one in zip(given, measured, found.texts, strict=True):
        tokens = tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"][:_LENGTH]
        expected = _nats(model, tokens, [True] * len(tokens))
        assert one.tokens == len(expected)
        assert loss == pytest.approx(sum(expected) / len(expected), abs=1e-5)
    # The mark is read as text: no token steers a conversation.
    assert tokenizer.convert_tokens_to_ids("<|im_start|>") not in found.texts[1].parts[0][0]


def test_what_has_no_token_to_predict_is_counted(folder: Path, model: Any, tokenizer: Any) -> None:
    found = losses.of_documents([{"id": "a", "text": ""}, {"id": "b", "text": "a"}], tokenizer, _LENGTH)
    assert (found.texts, dict(found.left)) == ([], {losses.NO_TOKEN: 2})
    no_answer = _texts(folder, tokenizer, [[{"role": "user", "content": "a"}]])
    assert (no_answer.texts, dict(no_answer.left)) == ([], {"no_answer": 1})
    assert losses.of_model(model, []).shape == (0,)


def test_equal_examples_have_equal_losses(folder: Path, model: Any, tokenizer: Any) -> None:
    found = _texts(folder, tokenizer, [tiny.pairs(1)[0]] * 3)
    first, *others = losses.of_model(model, found.texts)
    assert others == [first, first]
