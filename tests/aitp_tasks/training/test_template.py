"""Which chat template training uses, and that it renders what the model's own does."""

from pathlib import Path

import pytest
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from aitp_tasks.errors import InputError
from aitp_tasks.training import template

pytestmark = pytest.mark.slow

_CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>' + '\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
_MARKED = (
    "{% for m in messages %}{{ m['role'] + ': ' }}{% generation %}{{ m['content'] + '<|im_end|>' }}"
    "{% endgeneration %}{% endfor %}"
)


@pytest.fixture
def tokenizer(smollm2: Path) -> PreTrainedTokenizerBase:
    loaded: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(smollm2)
    return loaded


@pytest.mark.parametrize(
    "messages",
    [
        pytest.param([{"role": "user", "content": "Hi"}], id="default-system-message"),
        pytest.param(
            [{"role": "system", "content": "S"}, {"role": "user", "content": "Hi"}], id="own-system"
        ),
        pytest.param(
            [{"role": "user", "content": " a\n"}, {"role": "assistant", "content": "{{ x }} {% y %}\n\n"}],
            id="blanks-and-braces",
        ),
    ],
)
def test_chatml_twin_renders_the_same_text(
    tokenizer: PreTrainedTokenizerBase, messages: list[dict[str, str]]
) -> None:
    chosen = template.choose(tokenizer, None)
    assert chosen.saved == tokenizer.chat_template
    own = tokenizer.apply_chat_template(messages, tokenize=False)
    assert tokenizer.apply_chat_template(messages, tokenize=False, chat_template=chosen.training) == own


def test_preamble_is_quoted(tokenizer: PreTrainedTokenizerBase) -> None:
    tokenizer.chat_template = "{{ '\\'\"{{ é\\\\ }}' }}" + _CHATML
    # A text before every conversation, also before a system message, is not the preamble of ChatML.
    with pytest.raises(InputError, match="not plain ChatML"):
        template.choose(tokenizer, None)
    tokenizer.chat_template = (
        "{% if messages[0]['role'] != 'system' %}{{ '\\'\"{{ é\\\\ }}' }}{% endif %}" + _CHATML
    )
    training = template.choose(tokenizer, None).training
    messages = [{"role": "user", "content": "Hi"}]
    rendered = tokenizer.apply_chat_template(messages, tokenize=False, chat_template=training)
    assert rendered.startswith("'\"{{ é\\ }}<|im_start|>user\nHi")


def test_own_marks_are_used(tokenizer: PreTrainedTokenizerBase) -> None:
    tokenizer.chat_template = _MARKED
    assert template.choose(tokenizer, None).training == _MARKED


@pytest.mark.parametrize(
    ("own", "message"),
    [
        pytest.param(None, "has no chat template", id="none"),
        pytest.param("{{ messages[0]['content'] }}", "no training twin", id="unknown"),
        pytest.param(
            _CHATML.replace(
                "m['content']", "(m['content'].rstrip() if m['role'] == 'assistant' else m['content'])"
            ),
            "not plain ChatML",
            id="strips-answers",
        ),
        pytest.param(
            _MARKED.replace(" + '<|im_end|>'", ""),
            "leaves the end of the turn outside",
            id="end-of-turn-unmarked",
        ),
    ],
)
def test_refused_templates(tokenizer: PreTrainedTokenizerBase, own: str | None, message: str) -> None:
    tokenizer.chat_template = own
    with pytest.raises(InputError, match=message):
        template.choose(tokenizer, None)


def test_configured_template(tokenizer: PreTrainedTokenizerBase, tmp_path: Path) -> None:
    own = tokenizer.chat_template
    same, other = tmp_path / "same.jinja", tmp_path / "other.jinja"
    same.write_text(template.choose(tokenizer, None).training)
    other.write_text(_MARKED)
    assert template.choose(tokenizer, str(same)).saved == own
    # The model learns another text: the checkpoint must speak it.
    assert template.choose(tokenizer, str(other)).saved == _MARKED
    other.write_text(_CHATML)
    with pytest.raises(InputError, match=r"no \{% generation %} marks"):
        template.choose(tokenizer, str(other))
    with pytest.raises(InputError, match="cannot be read"):
        template.choose(tokenizer, str(tmp_path / "missing.jinja"))
