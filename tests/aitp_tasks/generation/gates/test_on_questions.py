"""Each gate of questions closes what it should, and its near misses pass all gates."""

import json
from pathlib import Path
from typing import Any

import pytest

from aitp_tasks.config import Gates
from aitp_tasks.generation.gates import on_questions

HERE = Path(__file__).parent
CASES: dict[str, dict[str, list[Any]]] = json.loads((HERE / "questions.json").read_text(encoding="utf-8"))
LANGUAGES: dict[str, Any] = json.loads((HERE / "languages.json").read_text(encoding="utf-8"))
ALONE = ("too_short", "not_a_question", "mentions_document", "control_characters")


def closed(question: str, document: str = "", earlier: tuple[str, ...] = (), **settings: Any) -> str | None:
    return on_questions.closed(question, document, earlier, Gates(**settings))


@pytest.mark.parametrize("gate", CASES)
def test_cases_are_many_and_different(gate: str) -> None:
    for cases in CASES[gate].values():
        assert len({json.dumps(case) for case in cases}) == len(cases) >= 15


@pytest.mark.parametrize(
    ("gate", "question"), [(gate, case) for gate in ALONE for case in CASES[gate]["closed"]]
)
def test_questions_that_are_not_asked(gate: str, question: str) -> None:
    assert closed(question) == gate


@pytest.mark.parametrize("question", [case for gate in ALONE for case in CASES[gate]["open"]])
def test_near_misses_are_asked(question: str) -> None:
    assert closed(question) is None


@pytest.mark.parametrize(("asked", "of"), CASES["wrong_language"]["closed"])
def test_questions_in_another_language_than_their_document(asked: str, of: str) -> None:
    found = [closed(question, LANGUAGES[of]["document"]) for question in LANGUAGES[asked]["questions"]]
    assert found.count("wrong_language") >= 3
    assert set(found) <= {"wrong_language", None}


@pytest.mark.parametrize(("question", "of"), CASES["wrong_language"]["open"])
def test_questions_in_a_doubtful_language_are_asked(question: str, of: str) -> None:
    assert closed(question, LANGUAGES[of]["document"]) is None


def test_language_may_be_left_open() -> None:
    question, document = LANGUAGES["de"]["questions"][1], LANGUAGES["en"]["document"]
    assert closed(question, document) == "wrong_language"
    assert closed(question, document, question_language=False) is None


@pytest.mark.parametrize("code", LANGUAGES)
def test_different_questions_in_their_documents_language_are_asked(code: str) -> None:
    asked: tuple[str, ...] = ()
    for question in LANGUAGES[code]["questions"]:
        assert closed(question, LANGUAGES[code]["document"], asked) is None
        asked = (*asked, question)


@pytest.mark.parametrize(("one", "other"), CASES["near_identical"]["closed"])
def test_near_identical_questions(one: str, other: str) -> None:
    assert closed(other, "", ("What is honey made of?", one)) == "near_identical"
    assert closed(one, "", (other,)) == "near_identical"


@pytest.mark.parametrize(("one", "other"), CASES["near_identical"]["open"])
def test_questions_that_differ_in_what_matters_are_asked(one: str, other: str) -> None:
    assert closed(other, "", (one,)) is None
    assert closed(one, "", (other,)) is None


def test_limits_are_those_of_the_settings() -> None:
    assert closed("Why do bees swarm?", min_question_words=4) is None
    assert closed("Why do bees swarm?", min_question_words=5) == "too_short"
    one = "What are the main reasons for the fall of the western empire?"
    other = "What are the reasons for the fall of the western empire?"
    assert closed(one, "", (other,), max_question_similarity=0.9) == "near_identical"
    assert closed(one, "", (other,), max_question_similarity=1.0) is None
