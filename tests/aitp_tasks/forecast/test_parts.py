"""How many documents a part holds, beside a plain reckoning; and that a run's size stays as it was."""

from dataclasses import replace
from typing import Any

import pytest

from aitp_tasks.errors import InputError
from aitp_tasks.forecast import parts, told
from aitp_tasks.forecast.costs import Cost, Measured
from aitp_tasks.forecast.learned import keep_rehearsed, learn
from aitp_tasks.forecast.work import Done, Places, Sizes, forecast
from aitp_tasks.generation import stored
from aitp_tasks.records import generated
from aitp_tasks.records.run import part_of
from aitp_tasks.selection.sampled import part_count
from tests.aitp_tasks.conftest import Configure
from tests.aitp_tasks.forecast.conftest import MEASURED, Line, whole

HOUR = 3600


def prompts(each: float, **changes: Any) -> Measured:
    """The stages take so long for a request each."""
    return replace(Measured(costs=dict.fromkeys(generated.STAGES, Cost(50.0, each))), **changes)


def reckoned(rewrite: float, score: float, answer: float, questions: float, answers: float) -> int:
    """Documents that are taken in, one after the other, until the hour is full."""
    documents, seconds = 0, 0.0
    while seconds + rewrite + questions * score + answers * answer <= HOUR and documents < 50_000:
        seconds += rewrite + questions * score + answers * answer
        documents += 1
    return max(documents, 1)


@pytest.mark.parametrize(
    ("measured", "documents", "why"),
    [
        (MEASURED, reckoned(1.0, 0.5, 2.0, 1.5, 0.75), "about an hour, at 3.25 s for a document"),
        # What was not measured counts as much as it can be: two questions a document, all answered.
        (prompts(1.0), reckoned(1.0, 1.0, 1.0, 2, 2), "about an hour, at 5 s"),
        (prompts(0.5, questions=0.0), reckoned(0.5, 0.5, 0.5, 0, 0), "about an hour, at 0.5 s"),
        (prompts(1.0, questions=1.0, kept=0.5), reckoned(1.0, 1.0, 1.0, 1, 0.5), "about an hour, at 2.5 s"),
        # Absurd speeds.
        (prompts(0.0), 50_000, "the most that a part may, less than an hour at 0 s"),
        (prompts(1e-300), 50_000, "the most that a part may"),
        (prompts(1e9), 1, "the fewest, more than an hour at 5e+09 s"),
        (prompts(HOUR / 5), 1, "about an hour, at 3.6e+03 s"),
        # Nothing is known, or not of all stages.
        (Measured(), 5000, "assumed: neither an earlier run nor a rehearsal"),
        (replace(MEASURED, costs={"rewrite": Cost(1.0, 1.0), "score": Cost(1.0, 1.0)}), 5000, "assumed"),
    ],
    ids=[
        *("as measured", "shares unknown", "no question", "half is kept", "no time", "hardly any time"),
        *("years", "an hour", "nothing known", "answer unknown"),
    ],
)
def test_a_part_is_an_hour_of_work(
    configure: Configure, measured: Measured, documents: int, why: str
) -> None:
    size = parts.size(configure(), measured)
    assert size.documents == documents
    assert size.why.startswith(why)


def test_each_answer_to_a_question_is_work(configure: Configure) -> None:
    settings = {
        "folder": configure().prompts.folder,
        "answers_per_question": 4,
        "sampling": {"temperature": 1},
    }
    assert parts.size(configure(prompts=settings), MEASURED).documents == reckoned(1.0, 0.5, 2.0, 1.5, 3.0)


def test_a_number_that_is_given_holds(configure: Configure) -> None:
    config = configure(difference={"documents_per_part": 7})
    assert parts.size(config, MEASURED).documents == 7
    assert "documents_per_part" in parts.size(config, MEASURED).why


@pytest.mark.parametrize(
    ("documents", "per_part", "count"),
    [
        *((0, 5000, 0), (1, 5000, 1), (5000, 5000, 1), (5001, 5000, 2), (732_000, 50_000, 15)),
        # Airflow maps over 1,024: parts grow.
        *((1000, 1, 1000), (1001, 1, 1000), (10**9, 1, 1000)),
    ],
)
def test_parts_grow_rather_than_become_more_than_airflow_maps_over(
    documents: int, per_part: int, count: int
) -> None:
    assert part_count(documents, per_part) == count
    assert count <= 1024
    # The last document of the hash space has its place.
    assert count == 0 or part_of("f" * 64, count) == count - 1


@pytest.mark.slow
def test_what_decides_no_response_changes_neither_run_nor_responses(line: Line) -> None:
    open_size, before, other = (
        line.planned("new", difference={"documents_per_part": number}) for number in (None, 5000, 4999)
    )
    # A run of a release that knew 5000 only is found again.
    assert open_size.uri == before.uri != other.uri
    prefixes = {
        stored.prefix(stage, run.plan.prompts[stage], run.config, run.plan.engine_identity, None)
        for run in (open_size, other)
        for stage in generated.STAGES
    }
    assert len(prefixes) == len(generated.STAGES)


@pytest.mark.slow
def test_a_runs_size_is_what_its_first_try_has_found(line: Line) -> None:
    run = line.planned("new")
    assert (parts.settled(run).documents, parts.settled(run).why[:7]) == (5000, "assumed")
    # In a night of ten documents 2, 0.5 and 3 seconds went by for a request of each stage.
    whole(line.night("before"))
    later = line.planned("newest")
    found = parts.settled(later)
    assert found.documents == reckoned(2.0, 0.5, 3.0, 2.0, 1.0)
    whole(line.night("slow"), slow=100.0)
    keep_rehearsed(later, prompts(1e9))
    assert parts.size(later.config, learn(later).measured).documents < found.documents
    assert parts.settled(later) == found
    assert parts.settled(run).documents == 5000
    given = line.planned("newest", difference={"documents_per_part": 3})
    assert parts.settled(given).documents == 3


@pytest.mark.slow
def test_of_two_tries_at_once_the_first_decides(line: Line, monkeypatch: pytest.MonkeyPatch) -> None:
    run = line.planned("new")
    found = parts.settled(run)
    monkeypatch.setattr(type(run.storage), "find", lambda *_: None)
    keep_rehearsed(run, prompts(1.0))
    assert parts.settled(run) == found


@pytest.mark.slow
def test_a_size_that_was_edited_is_refused(line: Line) -> None:
    run = line.planned("new")
    for data in (b"", b'{"documents": 0, "why": ""}', b'{"documents": "many", "why": ""}'):
        run.storage.write(run.key("parts", "size.json"), data)
        with pytest.raises(InputError, match=r"parts/size.json cannot be read"):
            parts.settled(run)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("changes", "measured", "starts", "said"),
    [
        ({}, MEASURED, 30, "a part holds up to 1,107 documents, about an hour, at 3.25 s"),
        ({}, Measured(), 6, "a part holds up to 5,000 documents, assumed"),
        ({"difference": {"documents_per_part": 3}}, MEASURED, 3000, "since there are 1,000 parts at most"),
    ],
    ids=["learnt", "assumed", "too many"],
)
def test_plan_tells_parts_and_engine_starts(
    line: Line, changes: dict[str, Any], measured: Measured, starts: int, said: str
) -> None:
    run, done = line.planned("new", **changes), Done()
    sizes = Sizes((("corpus", 10_000), ("sft", 3000)))
    learned = replace(learn(run), measured=measured)
    result = told.tell(run, learned, sizes, done, 1.0)
    assert result["parts"] == forecast(run.config, sizes, measured, Places.of(run.plan, 3000)).parts
    assert result["engine_starts"] == starts == 3 * result["parts"]
    assert any(said in line for line in result["assumptions"])
    shown = table_line(told.table.render(result))
    assert f"{result['parts']:,}, with {starts:,} engine starts" in shown
    # What difference has cut stays.
    for selected, count in ((10_000, 7), (0, 0)):
        cut = told.tell(run, learned, sizes, Done(selected=selected, parts=count), 1.0)
        assert (cut["parts"], cut["engine_starts"]) == (count, 3 * count)
        assert not any("a part holds" in line for line in cut["assumptions"])


def table_line(text: str) -> str:
    """The line of the table that tells the parts."""
    return next(line for line in text.splitlines() if line.startswith("parts"))
