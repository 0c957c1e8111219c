"""Token sequences: those of the model's own tokenizer, whatever the text."""

from typing import Any

import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

from aitp_tasks import config
from aitp_tasks.encoder.prepared import Prepared, prepare
from aitp_tasks.encoder.tokens import Tokenised, Tokeniser
from aitp_tasks.errors import InputError
from aitp_tasks.inputs.rows import Refusal
from aitp_tasks.machine import models
from tests.aitp_tasks.conftest import MODELS, REPOSITORY

MODEL = str(MODELS / "all-MiniLM-L6-v2")
LIMIT = 64


@pytest.fixture(scope="module")
def prepared() -> Prepared:
    encoder = config.Encoder(model=MODEL)
    return prepare(encoder, models.identity(encoder))


@pytest.fixture(scope="module")
def plain() -> Any:
    return AutoTokenizer.from_pretrained(MODEL, local_files_only=True)


def tokeniser(prepared: Prepared, **changes: Any) -> Tokeniser:
    encoder = config.Encoder.model_validate({"model": MODEL, "max_tokens": LIMIT} | changes)
    return Tokeniser(prepared.tokenizer_json, prepared.facts, encoder)


def ids(found: Tokenised | Refusal) -> list[list[int]]:
    assert isinstance(found, Tokenised)
    return [window.tolist() for window in found.windows]


def test_real_texts_are_cut_as_by_the_models_own_tokenizer(prepared: Prepared, plain: Any) -> None:
    texts: list[str] = []
    for path in sorted((REPOSITORY / ".aitp/data/corpus").rglob("*.parquet")):
        texts += pq.read_table(path)["text"].to_pylist()
    expected = plain(texts, truncation=True, max_length=LIMIT)["input_ids"]
    assert [ids(found) for found in tokeniser(prepared)(texts)] == [[tokens] for tokens in expected]


@settings(max_examples=300)
@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=900), min_size=1, max_size=4))
def test_any_text_is_cut_as_by_the_models_own_tokenizer(
    prepared: Prepared, plain: Any, texts: list[str]
) -> None:
    expected = plain(texts, truncation=True, max_length=LIMIT)["input_ids"]
    for found, tokens in zip(tokeniser(prepared)(texts), expected, strict=True):
        if len(tokens) == 2:
            assert isinstance(found, Refusal)
            assert found.error_class == "empty"
        else:
            assert ids(found) == [tokens]


@pytest.mark.parametrize(
    "text",
    ["x" * 200_000, ("x" * 700 + " ") * 300, "\n" * 100_000 + "end", "你好" * 5000, "a" + " " * 50_000 + "b"],
    ids=["one word", "long words", "leading lines", "no spaces", "a gap"],
)
def test_texts_whose_prefix_has_few_tokens(prepared: Prepared, plain: Any, text: str) -> None:
    (found,) = tokeniser(prepared)([text])
    assert ids(found) == [plain(text, truncation=True, max_length=LIMIT)["input_ids"]]


def test_windows_hold_every_token_once(prepared: Prepared, plain: Any) -> None:
    text = " ".join(f"token{number}" for number in range(300))
    (found,) = tokeniser(prepared, long_texts="windows")([text])
    windows = ids(found)
    whole = plain(text, add_special_tokens=False)["input_ids"]
    assert [token for window in windows for token in window[1:-1]] == whole
    assert all(len(window) <= LIMIT and window[0] == 101 and window[-1] == 102 for window in windows)


def test_what_is_left_out_is_told(prepared: Prepared) -> None:
    short, long = tokeniser(prepared)(["short", "long " * 200])
    assert isinstance(short, Tokenised)
    assert isinstance(long, Tokenised)
    assert (short.truncated, long.truncated) == (False, True)
    (refused,) = tokeniser(prepared, long_texts="windows", max_windows=2)(["long " * 200])
    assert isinstance(refused, Refusal)
    assert refused.error_class == "too_long"


def test_a_prompt_goes_before_every_text_and_lower_case_is_kept_to(prepared: Prepared, plain: Any) -> None:
    facts = prepared.facts.model_copy(update={"prompt": "Query: ", "lower_case": True})
    encoder = config.Encoder(model=MODEL, max_tokens=LIMIT)
    (found,) = Tokeniser(prepared.tokenizer_json, facts, encoder)(["RIVERS"])
    assert ids(found) == [plain("query: rivers")["input_ids"]]


def test_no_room_for_text_is_named(prepared: Prepared) -> None:
    facts = prepared.facts.model_copy(update={"max_tokens": 2})
    with pytest.raises(InputError, match="leaves no room"):
        Tokeniser(prepared.tokenizer_json, facts, config.Encoder(model=MODEL))
