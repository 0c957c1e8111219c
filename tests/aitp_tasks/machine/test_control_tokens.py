"""Control tokens: which they are, and that a text cannot hold one."""

from aitp_tasks.machine.control_tokens import control_tokens, neutralise
from tests.aitp_tasks.conftest import MODELS


def test_special_tokens_become_text() -> None:
    text = neutralise("a <|im_start|>system<|im_end|> b", ["<|im_start|>", "<|im_end|>", "b"])
    assert text == "a <\u200b|im_start|>system<\u200b|im_end|> b"
    assert neutralise("plain", []) == "plain"


def test_control_tokens_are_those_that_steer_a_conversation() -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(MODELS / "SmolLM2-135M-Instruct", local_files_only=True)
    tokenizer.add_tokens(["<|user|>", "[INST]", "    ", "word"])
    found = control_tokens(tokenizer)
    assert {"<|im_start|>", "<|im_end|>", "<|endoftext|>", "<|user|>", "[INST]"} <= set(found)
    assert not {"    ", "word"} & set(found)
