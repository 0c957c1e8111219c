"""Log-probabilities of a batch are those of each text alone, and what is chosen by them is what was meant."""

import math
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from aitp_tasks.errors import TransientError
from aitp_tasks.machine import likelihood
from aitp_tasks.machine.likelihood import Continuation, likeliest, mean
from tests.aitp_tasks.generation.faithfulness_cases import CHOICES

VOCABULARY = 64


@pytest.fixture(scope="module")
def model() -> LlamaForCausalLM:
    torch.manual_seed(0)
    settings = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        initializer_range=0.5,
    )
    return LlamaForCausalLM(settings)


def plainly(model: LlamaForCausalLM, text: Continuation) -> list[float]:
    """Token by token, each from all that stands before it, without batches, slices or losses of a library."""
    ids = [*text.prompt, *text.tokens]
    found = []
    for place in range(len(text.prompt), len(ids)):
        with torch.no_grad():
            logits = model(torch.tensor([ids[:place]])).logits[0, -1].double()
        found.append(float(logits[ids[place]] - torch.log(torch.exp(logits).sum())))
    return found


def texts(lengths: Sequence[tuple[int, int]]) -> list[Continuation]:
    drawn = torch.Generator().manual_seed(1)
    return [
        Continuation(
            *(torch.randint(VOCABULARY, (length,), generator=drawn).tolist() for length in (before, behind))
        )
        for before, behind in lengths
    ]


@pytest.mark.parametrize("tokens", [1, 50, 10_000])
def test_a_batch_reads_each_text_as_it_is_read_alone(
    model: LlamaForCausalLM, monkeypatch: pytest.MonkeyPatch, tokens: int
) -> None:
    monkeypatch.setattr(likelihood, "_BATCH_TOKENS", tokens)
    asked = texts([(3, 7), (1, 1), (40, 2), (2, 0), (5, 30), (3, 7), (1, 25)])
    found = likelihood.of_model(model, asked)
    for text, values in zip(asked, found, strict=True):
        assert values == pytest.approx(plainly(model, text), abs=1e-4)


def test_batches_hold_every_text_once_and_no_more_tokens_than_they_may() -> None:
    asked = texts([(1, length % 300) for length in range(0, 2000, 37)] + [(1, 9000)])
    batches = [[asked[place] for place in batch] for batch in likelihood._batches(asked)]
    assert sorted(len(text) for batch in batches for text in batch) == sorted(map(len, asked))
    for batch in batches:
        assert len(batch) == 1 or len(batch) * max(map(len, batch)) <= likelihood._BATCH_TOKENS
    assert len(batches) < len(asked) / 3


def test_nothing_is_asked_of_no_texts(model: LlamaForCausalLM) -> None:
    assert likelihood.of_model(model, []) == []


def test_a_device_that_is_too_small_is_a_passing_fault(
    model: LlamaForCausalLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(**_: Any) -> None:
        raise torch.OutOfMemoryError

    monkeypatch.setattr(model, "forward", full)
    with pytest.raises(
        TransientError, match="out of device memory on 4096 tokens at once, or on one text of 9"
    ):
        likelihood.of_model(model, texts([(4, 5)]))


@pytest.mark.parametrize("case", CHOICES, ids=lambda case: case["id"])
def test_of_those_that_pass_the_likeliest_is_kept(case: dict[str, Any]) -> None:
    passing = [place for place, answer in enumerate(case["answers"]) if answer["passes"]]
    means = [mean(_numbers(case["answers"][place]["logprobs"])) for place in passing]
    best = likeliest(means)
    kept = None if best is None else passing[best]
    wanted = case["kept"] if isinstance(case["kept"], list) else [case["kept"]]
    assert kept in wanted
    assert all(value is None or math.isfinite(value) for value in means)


def _numbers(values: Sequence[float | None]) -> list[float]:
    """What a server has not told is no number."""
    return [math.nan if value is None else value for value in values]


@pytest.mark.parametrize(
    "case", [case for case in CHOICES if len(case["answers"]) > 1], ids=lambda case: case["id"]
)
def test_another_order_keeps_as_likely_a_one(case: dict[str, Any]) -> None:
    means = [mean(_numbers(answer["logprobs"])) for answer in case["answers"] if answer["passes"]]
    turned = means[::-1]
    best, other = likeliest(means), likeliest(turned)
    assert (best is None) == (other is None)
    if best is not None and other is not None:
        assert means[best] == turned[other]
