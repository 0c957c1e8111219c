"""What is known of each language is complete and well-formed, and texts are taken for their language."""

import json
import tomllib
from pathlib import Path
from typing import Any

import pytest

from aitp_tasks.generation.gates import languages
from aitp_tasks.generation.gates.analysis import Text

FOLDER = Path(languages.__file__).with_name("languages")
LANGUAGES: dict[str, Any] = json.loads(Path(__file__).with_name("languages.json").read_text(encoding="utf-8"))
KNOWN = ("de", "en", "es", "fr", "it", "ja", "nl", "pt", "ru", "zh")


def test_the_known_languages() -> None:
    assert tuple(languages.known()) == KNOWN


@pytest.mark.parametrize("code", KNOWN)
def test_every_field_of_a_file_is_documented(code: str) -> None:
    values = tomllib.loads((FOLDER / f"{code}.toml").read_text(encoding="utf-8"))
    assert languages.__doc__ is not None
    for name in values:
        assert name in languages.__doc__
    for name in ("stop_words", "negations", "mentions", "refusals", "asks"):
        assert values[name]


@pytest.mark.parametrize("code", KNOWN)
def test_words_are_written_as_they_are_compared(code: str) -> None:
    language = languages.known()[code]
    for word in language.stop_words | language.verbs | language.imperatives | language.mention_words:
        assert word == word.casefold()


@pytest.mark.parametrize("code", KNOWN)
def test_texts_are_taken_for_their_language(code: str) -> None:
    texts = LANGUAGES[code]
    for text in (texts["document"], texts["answer"], *texts["questions"]):
        assert Text(text).language in (languages.known()[code], None)
    assert Text(texts["document"]).language is languages.known()[code]


@pytest.mark.parametrize("text", ["", "42", "Bees pollinate flowers", "ผึ้งบิน", "النحل يطير", "🐝"])
def test_other_texts_are_of_no_known_language(text: str) -> None:
    assert Text(text).language is None


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("O que o autor afirma sobre a geada?", "pt"),
        ("Explica la fotosíntesis.", "es"),
        ("Qu'est-ce que l'art ?", "fr"),
    ],
)
def test_the_model_decides_between_languages_that_share_a_texts_words(text: str, code: str) -> None:
    assert Text(text).language is languages.known()[code]
