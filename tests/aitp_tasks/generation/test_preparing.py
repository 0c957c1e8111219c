"""What waits for an engine: in order, in batches, never many at a time, and second attempts first."""

from typing import Any

import pytest

from aitp_tasks.errors import InputError
from aitp_tasks.generation import preparing
from aitp_tasks.generation.engine import Completion
from aitp_tasks.generation.engine.prompting import Rendered
from aitp_tasks.generation.preparing import Case, Waiting
from aitp_tasks.generation.requests import Request
from aitp_tasks.generation.stored import Response
from aitp_tasks.inputs.rows import Refusal
from aitp_tasks.records.plan import FrozenPrompt
from aitp_tasks.stages import rewrite

PROMPT = FrozenPrompt(
    name="rewrite", version="1", template="{}", output_schema={}, sampling={"max_tokens": 100}
)


class StandInPrompter:
    """Notes what it is asked; refuses what says so."""

    context = 1000

    def __init__(self) -> None:
        self.batches: list[list[tuple[str, int]]] = []

    def render_all(self, prompt: FrozenPrompt, asked: list[Any]) -> list[Rendered | ValueError]:
        self.batches.append([(values["text"], room) for values, room in asked])
        return [self._rendered(values["text"], room) for values, room in asked]

    def _rendered(self, text: str, room: int) -> Rendered | ValueError:
        if text == "template":
            raise InputError("the chat template refuses the prompt")
        if text == "unservable" or (text == "narrow" and room > 100):
            return ValueError("leaves no room")
        return Rendered(text, [1] * 10, 3)


@pytest.fixture
def prompter(monkeypatch: pytest.MonkeyPatch) -> StandInPrompter:
    """Of its context, four prompts are held ready."""
    monkeypatch.setattr(preparing, "_TOKENS_READY", 4 * StandInPrompter.context)
    return StandInPrompter()


def case(number: int, text: str = "text", finish: str | None = None) -> Case:
    attempts = [Response(Completion("", finish, 10, 100))] if finish else []
    made = Case(Request(f"{number:03}", {"text": text}), attempts)
    if finish:
        made.reading = Refusal("cut_off" if finish == "length" else "not_parsed", "")
    return made


def waiting(prompter: StandInPrompter, *cases: Case) -> Waiting:
    return Waiting(rewrite.STAGE, PROMPT, prompter, cases)  # type: ignore[arg-type]


def ids(taken: list[Any]) -> list[str]:
    return [job.id for _, job in taken]


@pytest.mark.parametrize("room", [1, 3, 4, 7, 100])
def test_all_are_handed_out_in_their_order_and_a_few_are_ready(prompter: StandInPrompter, room: int) -> None:
    queue = waiting(prompter, *map(case, range(11)))
    taken: list[str] = []
    while queue:
        one = ids(queue.take(room))
        assert len(one) <= room
        taken += one
        queue.prepare()
        queue.prepare()
        assert sum(map(len, prompter.batches)) - len(taken) <= 4
    assert taken == [f"{number:03}" for number in range(11)]
    assert [len(batch) for batch in prompter.batches] == [4, 4, 3]


def test_a_long_context_leaves_one_ready(prompter: StandInPrompter) -> None:
    prompter.context = 10**9
    queue = waiting(prompter, case(1), case(2))
    queue.prepare()
    assert [len(batch) for batch in prompter.batches] == [1]


def test_a_second_attempt_goes_before_what_is_ready(prompter: StandInPrompter) -> None:
    queue = waiting(prompter, *map(case, range(6)))
    assert ids(queue.take(2)) == ["000", "001"]
    for number in (0, 1, 7):
        queue.again(case(number, finish="stop"))
    assert len(queue) == 7
    # The last that was finished is the first.
    assert ids(queue.take(2)) == ["007", "001"]
    assert ids(queue.take(5)) == ["000"]
    assert ids(queue.take(5)) == ["002", "003"]


def test_what_cannot_be_served_costs_itself_only(prompter: StandInPrompter) -> None:
    refused = [case(number, "unservable") for number in range(1, 6)]
    queue = waiting(prompter, case(0), *refused, case(6))
    taken: list[str] = []
    while queue:
        taken += ids(queue.take(2))
    assert taken == ["000", "006"]
    assert all(one.reading == Refusal("not_servable", "leaves no room") for one in refused)


def test_more_room_where_the_document_leaves_it(prompter: StandInPrompter) -> None:
    queue = waiting(prompter)
    cases = [case(1, "wide", "length"), case(2, "narrow", "length"), case(3, "text", "stop")]
    for one in reversed(cases):
        queue.again(one)
    jobs = [job for _, job in queue.take(3)]
    assert prompter.batches == [[("wide", 200), ("narrow", 200), ("text", 100)], [("narrow", 100)]]
    assert [job.sampling for job in jobs] == [
        {"max_tokens": 200},
        {"max_tokens": 200},
        {"max_tokens": 100, "temperature": 0.7},
    ]
    assert [one.cut_characters for one in cases] == [3, 3, 3]


def test_a_template_that_refuses_ends_the_stage(prompter: StandInPrompter) -> None:
    queue = waiting(prompter, case(0), case(1, "template"))
    with pytest.raises(InputError, match="the chat template refuses the prompt"):
        queue.prepare()
