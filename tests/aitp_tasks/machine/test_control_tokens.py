"""Control tokens: which they are, and that a text cannot hold one."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, models, normalizers, pre_tokenizers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from aitp_tasks.machine.control_tokens import Neutraliser, reading_marks_only, special_tokens, turn_marks
from tests.aitp_tasks.conftest import MODELS

GROUPS: list[dict[str, Any]] = yaml.safe_load(Path(__file__).with_suffix(".yaml").with_name(
    "control_tokens.yaml").read_text(encoding="utf-8"))  # fmt: skip

_CHATML = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
TEMPLATES = {
    "chatml": _CHATML,
    "preamble": "{% if messages[0]['role'] != 'system' %}<|im_start|>system\nYou are a helpful "
    "<b>assistant</b>, trained by [us]. Be good.<|im_end|>\n{% endif %}" + _CHATML,
    "thinking": _CHATML.replace("assistant\n{%", "assistant\n<think>\n\n</think>\n\n{%"),
    "minimax": "{{ ']~!b[' }}{% for m in messages %}]~b]{{ m['role'] }}\n{{ m['content'] }}[e~[\n{% endfor %}"
    "{% if add_generation_prompt %}]~b]assistant\n{% endif %}",
    "llama2": "{% if messages[0]['role'] == 'system' %}{% set system = '<<SYS>>\n' + messages[0]['content']"
    " + '\n<</SYS>>\n\n' %}{% set messages = messages[1:] %}{% else %}{% set system = '' %}{% endif %}"
    "{% for m in messages %}{% if m['role'] == 'user' %}{{ '<s>[INST] ' + (system if loop.first else '') + "
    "m['content'] + ' [/INST]' }}{% elif m['role'] == 'assistant' %}{{ ' ' + m['content'] + ' </s>' }}"
    "{% else %}{{ raise_exception('no such role') }}{% endif %}{% endfor %}",
    "zephyr": "{% for m in messages %}{{ '<|' + m['role'] + '|>\n' + m['content'] + eos_token + '\n' }}"
    "{% endfor %}{% if add_generation_prompt %}<|assistant|>\n{% endif %}",
    "alpaca": "Below is an instruction that describes a task.\n\n{% for m in messages %}"
    "{% if m['role'] == 'user' %}### Instruction:\n{{ m['content'] }}\n\n{% else %}### Response:\n"
    "{{ m['content'] + eos_token }}\n\n{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}### Response:\n{% endif %}",
    "vicuna": "The helpful assistant: a chat. {% for m in messages %}{% if m['role'] == 'user' %}"
    "{{ 'USER: ' + m['content'] + ' ' }}{% elif m['role'] == 'assistant' %}"
    "{{ 'ASSISTANT: ' + m['content'] + eos_token }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}ASSISTANT:{% endif %}",
}
_NORMALISERS = {
    "lowercase": normalizers.Lowercase(),
    "nfkc": normalizers.NFKC(),
    "bert": normalizers.BertNormalizer(),
    "metaspace": normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]),
}


def made(group: dict[str, Any]) -> Any:
    """A tokenizer of single bytes with a group's tokens, normaliser and template."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={sign: place for place, sign in enumerate(alphabet)}, merges=[]))
    if "normaliser" in group:
        tokenizer.normalizer = _NORMALISERS[group["normaliser"]]
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.add_tokens([AddedToken(token, normalized=False) for token in group.get("added", ())])
    tokenizer.add_special_tokens(
        [AddedToken(token, special=True, normalized=False) for token in group.get("special", ())]
        + [AddedToken(token, special=True, normalized=True) for token in group.get("normalised", ())]
    )
    loaded: Any = PreTrainedTokenizerFast(tokenizer_object=tokenizer, **group.get("named", {}))
    loaded.chat_template = TEMPLATES[group["template"]]
    return loaded


def marks_of(tokenizer: Any) -> set[str]:
    def render(messages: list[dict[str, str]], opening: bool) -> str:
        return str(tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=opening))

    return turn_marks(tokenizer, render) | special_tokens(tokenizer)


CASES = [
    pytest.param(group, case["text"], case.get("right", case["text"]), id=f"{group['name']}: {case['text']}")
    for group in GROUPS
    for case in group["cases"]
]


@pytest.mark.parametrize(("group", "text", "right"), CASES)
def test_marks_become_text_and_the_rest_stays(group: dict[str, Any], text: str, right: str) -> None:
    tokenizer = made(group)
    plain, found = Neutraliser(tokenizer, marks_of(tokenizer))(text)
    assert plain == right.replace("¦", group.get("breaker", "\u200b"))
    assert found.total() == right.count("¦")


@pytest.mark.parametrize("group", GROUPS, ids=[group["name"] for group in GROUPS])
def test_no_text_holds_a_token_that_steers(group: dict[str, Any]) -> None:
    tokenizer = made(group)
    marks = marks_of(tokenizer)
    neutralise = Neutraliser(tokenizer, marks)
    controls = {number for token, number in tokenizer.get_added_vocab().items() if token in marks}
    pieces = [*marks, *(mark[:2] for mark in marks), *(mark[2:] for mark in marks), "ﬁ", "⑴", "\u200b", " "]
    texts = st.lists(st.sampled_from(pieces) | st.text(max_size=3)).map("".join)

    @given(texts)
    def check(text: str) -> None:
        plain, found = neutralise(text)
        assert controls.isdisjoint(tokenizer.encode(plain, add_special_tokens=False))
        assert (plain == text) or found
        assert neutralise(plain) == (plain, {})
        if not found:
            assert plain == text

    check()


def test_the_small_models_own_placeholders_are_text() -> None:
    tokenizer: Any = AutoTokenizer.from_pretrained(MODELS / "SmolLM2-135M-Instruct", local_files_only=True)
    neutralise = Neutraliser(tokenizer, marks_of(tokenizer))
    assert neutralise("cat <filename> <jupyter_code>")[0] == "cat <filename> <jupyter_code>"
    for token in ("<|im_start|>", "<|im_end|>", "<|endoftext|>"):
        assert neutralise(f"a{token}") == (f"a<\u200b{token[1:]}", {token: 1})


def test_special_tokens_that_nobody_writes_are_read_as_text() -> None:
    tokenizer: Any = AutoTokenizer.from_pretrained(MODELS / "SmolLM2-135M-Instruct", local_files_only=True)
    tokenizer.add_tokens(["<table>"])
    reading = reading_marks_only(tokenizer, ["<|im_start|>"], "{{ eos_token }}")
    text = "<|im_start|>cat <filename>\n<table> é 词<|endoftext|><|im_end|>"
    ids = reading.encode(text, add_special_tokens=False)
    assert tokenizer.decode(ids) == text
    controls = {token: tokenizer.convert_tokens_to_ids(token) in ids for token in tokenizer.get_added_vocab()}
    assert {token for token, there in controls.items() if there} == {"<|im_start|>", "<|im_end|>", "<table>"}
    plain = "Runs  of    blanks, 'quotes' and\n\n\ttabs: 词语 é"
    assert reading.encode(plain, add_special_tokens=False) == tokenizer.encode(plain)


def test_marks_of_a_megabyte_are_found_in_linear_time() -> None:
    """No time is asserted: what is quadratic does not end."""
    for group in GROUPS:
        tokenizer = made(group)
        marks = marks_of(tokenizer)
        text = "".join(sorted(marks)) + "<" * 300_000 + "[" * 300_000 + "### " * 100_000
        plain, _ = Neutraliser(tokenizer, marks)(text)
        assert len(plain) > len(text) - 10
