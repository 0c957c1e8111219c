"""Each gate of answers closes what it should, and its near misses pass all gates."""

import json
from pathlib import Path
from typing import Any

import pytest

from aitp_tasks.config import Gates
from aitp_tasks.generation.gates import on_answers

HERE = Path(__file__).parent
CASES: dict[str, dict[str, list[Any]]] = json.loads((HERE / "answers.json").read_text(encoding="utf-8"))
LANGUAGES: dict[str, Any] = json.loads((HERE / "languages.json").read_text(encoding="utf-8"))
QUESTION = "Why do bees stay in the hive on frosty nights?"
#: Of these no stop words are known, or the other subject shares some words.
TOLERANT = ("cs", "de", "hi", "sv", "th")


def closed(answer: str, question: str = QUESTION, document: str = "", **settings: Any) -> str | None:
    return on_answers.closed(answer, question, document, Gates(**settings))


def closed_in(code: str, answer: str, **settings: Any) -> str | None:
    """The gate for an answer to the first question of a language's document."""
    return closed(answer, LANGUAGES[code]["questions"][0], LANGUAGES[code]["document"], **settings)


@pytest.mark.parametrize("gate", CASES)
def test_cases_are_many_and_different(gate: str) -> None:
    for cases in CASES[gate].values():
        assert len({json.dumps(case) for case in cases}) == len(cases) >= 15


@pytest.mark.parametrize(
    ("gate", "answer"), [(gate, case) for gate in CASES for case in CASES[gate]["closed"]]
)
def test_answers_that_are_not_kept(gate: str, answer: str) -> None:
    assert closed(answer) == gate


@pytest.mark.parametrize("case", [case for gate in CASES for case in CASES[gate]["open"]])
def test_near_misses_are_kept(case: str | list[str]) -> None:
    answer, question = case if isinstance(case, list) else (case, QUESTION)
    assert closed(answer, question, answer_language=False) is None


@pytest.mark.parametrize("code", LANGUAGES)
def test_an_answer_in_its_own_words_is_kept(code: str) -> None:
    assert closed_in(code, LANGUAGES[code]["answer"]) is None


@pytest.mark.parametrize("code", LANGUAGES)
def test_the_document_as_its_answer(code: str) -> None:
    document = LANGUAGES[code]["document"]
    assert closed_in(code, document) == "copies_document"
    assert closed_in(code, f"{document} ", max_copied=1.0) is None


@pytest.mark.parametrize("code", LANGUAGES)
def test_a_quotation_is_no_copy(code: str) -> None:
    document, answer = LANGUAGES[code]["document"], LANGUAGES[code]["answer"]
    assert closed_in(code, f"{answer} “{document[: len(document) // 3]}”") is None


@pytest.mark.parametrize("code", [code for code in LANGUAGES if code not in TOLERANT])
def test_an_answer_about_something_else(code: str) -> None:
    assert closed_in(code, LANGUAGES[code]["other_subject"], min_support=0.05) == "unsupported"
    assert closed_in(code, LANGUAGES[code]["other_subject"], min_support=0.0) is None


@pytest.mark.parametrize("code", ["fr", "it", "ja", "ko", "nl", "ru", "zh"])
def test_an_answer_without_a_word_of_its_question_or_document(code: str) -> None:
    assert closed_in(code, LANGUAGES[code]["other_subject"]) == "unsupported"


def test_an_answer_from_own_knowledge_is_kept() -> None:
    answer = (
        "Hornets and wax moths do so: the former hunt workers on the wing, the latter eat comb and brood."
    )
    assert closed(answer, "Which insects harm a colony?", LANGUAGES["en"]["document"]) is None


@pytest.mark.parametrize(
    ("code", "of"), [("ru", "en"), ("zh", "en"), ("ja", "de"), ("ar", "fr"), ("en", "ko")]
)
def test_an_answer_in_another_script(code: str, of: str) -> None:
    assert closed_in(of, LANGUAGES[code]["answer"]) == "wrong_language"
    assert closed_in(of, LANGUAGES[code]["answer"], answer_language=False) == "unsupported"


@pytest.mark.parametrize("code", TOLERANT)
def test_where_support_is_uncertain_an_answer_is_kept(code: str) -> None:
    assert closed_in(code, LANGUAGES[code]["other_subject"]) is None


def test_code_needs_no_support() -> None:
    code = "\n".join(
        f"    {name} = compute_{name}()" for name in ["alpha", "beta", "gamma", "delta", "epsilon", "zeta"]
    )
    assert closed_in("en", f"```python\n{code}\n```") is None


def test_a_short_document_supports_nothing_and_closes_nothing() -> None:
    assert closed(LANGUAGES["en"]["other_subject"], document="Bees stay in the hive.") is None
