"""A tokenizer that makes what the model has no embeddings for, and one that only could."""

from pathlib import Path

import pytest
from transformers import AutoTokenizer

from aitp_tasks.config import Finetune
from aitp_tasks.errors import InputError
from aitp_tasks.stages import plan
from aitp_tasks.training import checks, vocabulary
from tests.aitp_tasks.conftest import Configure
from tests.aitp_tasks.training import tiny

#: Of the tokenizer.
_TOKENS = 49152


def _said(token: int, known: int) -> str:
    return rf"its tokenizer makes token {token} \('.+'\), and the model has embeddings for {known}: take the "


def test_marks_without_embeddings_are_refused_at_plan(
    configure: Configure, smollm2: Path, tmp_path: Path
) -> None:
    model = tiny.make_model(tmp_path / "small", smollm2, vocab_size=1000)
    with pytest.raises(InputError, match=_said(34519, 1000)):
        plan.execute(configure(finetune={"model": str(model)}))


def test_tokens_that_no_example_has_are_no_fault(smollm2: Path, tmp_path: Path) -> None:
    model = tiny.make_model(tmp_path / "whole", smollm2)
    tokenizer = AutoTokenizer.from_pretrained(model)
    tokenizer.add_special_tokens({"pad_token": "<padding>"})
    tokenizer.save_pretrained(model)
    assert len(tokenizer) == _TOKENS + 1
    job = tiny.make_job(tmp_path / "job", model, tiny.pairs(3))
    checks.require_template(Finetune(model=str(model)))
    vocabulary.require_examples(job.finetune, job.examples)
