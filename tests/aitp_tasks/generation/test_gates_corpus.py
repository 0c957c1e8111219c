"""Questions and answers in ten languages get the verdict that they deserve, but for those known to be missed.

Those in ``blind`` were written from what the gates are for, before anyone looked at
their patterns; those in ``further`` and ``later`` after, about other subjects, each time to
see how far the patterns reach.
"""

from itertools import chain
from pathlib import Path
from typing import Any

import pytest
import yaml

from aitp_tasks.config import Gates
from aitp_tasks.generation.gates import languages, on_answers, on_questions

CORPUS = Path(__file__).with_name("gates") / "corpus"
FILES = {f"{path.parent.name}/{path.stem}": path for path in sorted(CORPUS.glob("*/*.yaml"))}
LOADED: dict[str, dict[str, Any]] = {
    name: yaml.safe_load(path.read_text(encoding="utf-8")) for name, path in FILES.items()
}
MISSED: list[Any] = yaml.safe_load((CORPUS / "missed.yaml").read_text(encoding="utf-8"))
#: Both say that something is missing; which is told first does not matter.
MISSING = {"mentions_document", "lacks_material"}


def cases(kind: str) -> list[tuple[str, str, Any]]:
    """File, verdict and case."""
    return [
        (name, verdict, case)
        for name, loaded in LOADED.items()
        for verdict, listed in loaded[kind].items()
        for case in listed
    ]


def is_right(found: str | None, verdict: str) -> bool:
    if verdict == "open":
        return found is None
    return found == verdict or {found, verdict} <= MISSING


@pytest.mark.parametrize(("name", "verdict", "question"), cases("questions"))
def test_a_question(name: str, verdict: str, question: str) -> None:
    found = on_questions.closed(question, LOADED[name]["document"], (), Gates())
    assert is_right(found, verdict) is (question not in MISSED), found


@pytest.mark.parametrize(("name", "verdict", "pair"), cases("answers"))
def test_an_answer(name: str, verdict: str, pair: list[str]) -> None:
    question, answer = pair
    found = on_answers.closed(answer, question, LOADED[name]["document"], Gates())
    assert is_right(found, verdict) is (pair not in MISSED), found


def test_the_corpus_is_large_and_has_all_languages() -> None:
    everything = [str(case) for *_, case in chain(cases("questions"), cases("answers"))]
    assert len(set(everything)) > 700
    for folder in ("blind", "further"):
        assert {name.partition("/")[2] for name in FILES if name.startswith(folder)} == set(languages.known())
    assert len(MISSED) < len(everything) / 100
