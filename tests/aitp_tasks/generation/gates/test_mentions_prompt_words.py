"""What a prompt calls the document, and forbids to mention, is gated in every language."""

import re
from pathlib import Path

import pytest
import yaml

from aitp_tasks.config import Gates
from aitp_tasks.generation.gates import languages, on_answers, on_questions
from tests.aitp_tasks.conftest import REPOSITORY

WORDS: dict[str, dict[str, list[str]]] = yaml.safe_load(
    Path(__file__).with_name("prompt_words.yaml").read_text(encoding="utf-8")
)
TEMPLATES = {
    path.stem: "\n".join(yaml.safe_load(path.read_text(encoding="utf-8"))["prompt_format"])
    for path in sorted((REPOSITORY / "prompts").glob("*.yaml"))
}
#: A heading on a line of its own, "End of the …", and what is not to be mentioned.
HEADING = re.compile(r"^(\w+):$|\bEnd of the (\w+)", re.MULTILINE)
FORBIDDEN = re.compile(r"[Dd]o not mention ([^.]+)\.")
SENTENCES = [
    (word, code, sentence)
    for word, spoken in WORDS.items()
    for code, sentences in spoken.items()
    for sentence in sentences
]


def names_in(template: str) -> set[str]:
    """The words that a prompt has for the document."""
    headings = {(first or second).lower() for first, second in HEADING.findall(template)}
    forbidden = {
        noun for listed in FORBIDDEN.findall(template) for noun in re.findall(r"\b(?:the|an?) (\w+)", listed)
    }
    return headings - {"question", "answer"} | forbidden


def test_the_prompts_name_their_document() -> None:
    assert {"background", "document", "text", "passage", "author"} <= set().union(
        *map(names_in, TEMPLATES.values())
    )


@pytest.mark.parametrize("name", TEMPLATES)
def test_every_word_of_a_prompt_is_gated_in_every_language(name: str) -> None:
    for word in names_in(TEMPLATES[name]):
        assert set(WORDS[word]) == set(languages.known()), word


@pytest.mark.parametrize(("word", "code", "sentence"), SENTENCES)
def test_it_is_closed(word: str, code: str, sentence: str) -> None:
    if sentence.rstrip().endswith(("?", "？")):
        assert on_questions.closed(sentence, "", (), Gates()) == "mentions_document"
    else:
        assert on_answers.closed(sentence, "", "", Gates()) == "mentions_document"
