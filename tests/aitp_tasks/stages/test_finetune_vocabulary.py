"""The stage and a model that has fewer embeddings than its tokenizer makes tokens."""

from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

from aitp_tasks.errors import InputError
from aitp_tasks.stages import finetune
from tests.aitp_tasks.training import tiny

#: Of the tokenizer.
_TOKENS = 49152


def test_examples_without_embeddings_are_refused_before_devices_are_leased(
    make_run: Any, smollm2: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tiny.make_model(tmp_path / "small", smollm2, vocab_size=_TOKENS - 1)
    last = AutoTokenizer.from_pretrained(model).decode([_TOKENS - 1])
    monkeypatch.setattr(finetune.devices, "lease", pytest.fail)
    turns = [{"role": "user", "content": "Which?"}, {"role": "assistant", "content": last}]
    with pytest.raises(
        InputError, match=rf"token {_TOKENS - 1} .* has embeddings for {_TOKENS - 1}: take the tok"
    ):
        finetune.execute(make_run([*tiny.pairs(3), turns], model=str(model)), None)
