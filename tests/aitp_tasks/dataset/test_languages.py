"""Which languages a version's rows are in."""

from pathlib import Path

from aitp_tasks.dataset import languages
from tests.aitp_tasks import handed

GERMAN = "Die Schiffe landen im Hafen neben der alten Stadt, weil das Wasser dort tief genug ist"
ENGLISH = "The ships land in the harbour beside the old town because the water is deep enough there"


def test_all_languages_of_more_than_a_few_rows_are_told(tmp_path: Path) -> None:
    texts = [GERMAN] * 40 + [ENGLISH] * 60 + ["0 1 2 3", "x = y + z;"]
    given = [
        {"messages": [{"role": "user", "content": f"{text} {number}"}], "origin": "sft"}
        for number, text in enumerate(texts)
    ]
    handed.exported(tmp_path, given)
    found = languages.of_version(tmp_path)
    assert (found["en"], found["de"]) == (60, 40)
    assert languages.main(found) == ["en", "de"]


def test_conversations_of_any_form_are_read(tmp_path: Path) -> None:
    call = {"type": "function", "function": {"name": "f", "arguments": {}}}
    turns = [{"role": "user", "content": GERMAN}, {"role": "assistant", "content": "", "tool_calls": [call]}]
    handed.exported(tmp_path, [{"messages": turns, "origin": "sft"}])
    assert languages.of_version(tmp_path) == {"de": 1}


def test_a_few_rows_may_be_a_mistake_and_none_are_no_language(tmp_path: Path) -> None:
    assert languages.main({"en": 97, "fr": 3}) == ["en"]
    assert languages.main({"en": 20, "fr": 1}) == ["en"]
    assert languages.main({"no": 50, "en": 50}) == ["en", "no"]
    assert languages.main({"de": 1}) == ["de"]
    assert languages.main({}) == []
    handed.exported(tmp_path, [])
    assert languages.of_version(tmp_path) == {}
