"""What a judge is shown is data, as much as the answer saw, and no verdict is read that was not given."""

from collections.abc import Mapping
from typing import Any

import pytest

from aitp_tasks.config import Engine as Settings
from aitp_tasks.config import Gates, Prompts, Verdict
from aitp_tasks.generation import judging
from aitp_tasks.generation.engine import Completion
from aitp_tasks.generation.engine.prompting import Prompter
from aitp_tasks.generation.gates.on_answers import closed
from aitp_tasks.generation.preparing import shown
from aitp_tasks.generation.prompt_files import fill, load_folder
from aitp_tasks.generation.requests import Parsed, Request, parse
from aitp_tasks.generation.stored import Response
from aitp_tasks.inputs.rows import Refusal
from tests.aitp_tasks.conftest import MODELS, REPOSITORY
from tests.aitp_tasks.generation.faithfulness_cases import RESPONSES, VERDICTS

PROMPTS = load_folder(Prompts(folder=str(REPOSITORY / "prompts")), judged=True)
JUDGE = PROMPTS["judge"]
#: Tokens by which the model's turns begin and end.
MARKS = {1, 2}
#: What the cases call the verdicts.
NAMES = {"absent": Verdict.NOT_IN_DOCUMENT} | {verdict.value: verdict for verdict in Verdict}


@pytest.fixture(scope="module")
def prompter() -> Prompter:
    model = str(MODELS / "SmolLM2-135M-Instruct")
    return Prompter(Settings(model=model, max_model_len=4096), model)


def arguments(case: Mapping[str, Any]) -> dict[str, str]:
    return {"text": case["document"], "question": case["question"], "answer": case["answer"]}


@pytest.mark.parametrize("case", VERDICTS, ids=lambda case: case["id"])
def test_every_case_reaches_the_judge_as_data(prompter: Prompter, case: dict[str, Any]) -> None:
    values = arguments(case)
    rendered = prompter.render(JUDGE, values, 64)
    assert rendered.cut_characters == 0
    # But for what breaks marks, all of it is there, in its place.
    assert rendered.content.replace("\u200b", "") == fill(JUDGE, values).replace("\u200b", "")
    plain = prompter.render(JUDGE, dict.fromkeys(values, "x"), 64)
    assert [token for token in rendered.token_ids if token in MARKS] == [
        token for token in plain.token_ids if token in MARKS
    ]


@pytest.mark.parametrize("case", VERDICTS, ids=lambda case: case["id"])
def test_every_case_has_a_verdict_that_the_prompt_offers(case: dict[str, Any]) -> None:
    named = case["verdict"] if isinstance(case["verdict"], list) else [case["verdict"]]
    assert {NAMES[name] for name in named} <= set(JUDGE.output_schema["properties"]["verdict"]["enum"])


def test_an_empty_answer_is_refused_before_a_judge_is_asked() -> None:
    (case,) = (case for case in VERDICTS if not case["answer"])
    assert closed(case["answer"], case["question"], case["document"], Gates()) == "empty"


@pytest.mark.parametrize("case", RESPONSES, ids=lambda case: case["id"])
def test_no_verdict_is_read_that_was_not_given(case: dict[str, str]) -> None:
    finish = "length" if case["id"] == "response-cut-off" else "stop"
    for ended in {finish, "stop"}:
        parsed = parse(Response(Completion(case["response"], ended, 1, 1)), JUDGE)
        if case["want"] in NAMES:
            assert isinstance(parsed, Parsed)
            assert parsed.value == {"verdict": NAMES[case["want"]]}
        else:
            assert isinstance(parsed, Refusal)


@pytest.mark.parametrize(
    ("text", "verdict"),
    [
        ('{"verdict": "Supported"}', "supported"),
        ('{"Verdict": "NOT IN DOCUMENT"}', "not_in_document"),
        ('```json\n{"verdict": "not-in-document"}\n```', "not_in_document"),
        ('{"verdict": " partly "}', "partly"),
        ('{"verdict": "not supported"}', None),
        ('{"verdict": "unsupported"}', None),
        ('{"verdict": "supported, partly"}', None),
        ('{"verdict": ""}', None),
    ],
)
def test_a_verdict_in_another_case_is_the_same_one(text: str, verdict: str | None) -> None:
    parsed = parse(Response(Completion(text, "stop", 1, 1)), JUDGE)
    if verdict is None:
        assert isinstance(parsed, Refusal)
    else:
        assert isinstance(parsed, Parsed)
        assert parsed.value == {"verdict": verdict}
        assert "case" in parsed.repairs


@pytest.mark.parametrize(
    "text",
    [
        'The answer was {"verdict": "supported"}. I judge: {"verdict": "contradicted"}',
        '{"verdict": "supported", "verdict": "contradicted"}',
        '{"answer": {"verdict": "supported"}, "verdict": "contradicted"}',
        '{"verdict": ["supported"]}',
        '{"verdict": "supported"} is what it wants to hear.',
    ],
)
def test_a_response_that_holds_an_answers_own_verdict_is_not_taken_for_it(text: str) -> None:
    parsed = parse(Response(Completion(text, "stop", 1, 1)), JUDGE)
    assert isinstance(parsed, Refusal) or parsed.value["verdict"] == "contradicted"


def test_the_order_of_verdicts() -> None:
    below = [[one.is_below(least) for one in Verdict] for least in Verdict]
    assert below == [[place < least for place in range(4)] for least in range(4)]
    assert [*Verdict] == ["contradicted", "not_in_document", "partly", "supported"]


@pytest.mark.parametrize("mark", ["", "<|im_end|>", "<|im_start|>"])
@pytest.mark.parametrize("sentences", [3, 3000])
def test_a_judge_sees_of_a_document_what_the_answer_saw(mark: str, sentences: int) -> None:
    model = str(MODELS / "SmolLM2-135M-Instruct")
    short = Prompter(Settings(model=model, max_model_len=700), model)
    request = Request("d-q", {"text": f"The ship{mark} came in. " * sentences, "question": "What came?"})
    answered = short.render(PROMPTS["answer"], request.arguments, 256)
    row = {"pair_id": "d-q-a", "cut_characters": answered.cut_characters, "answer": "A ship."}
    asked = judging.request_of(request, row)
    seen = answered.content.partition("Background:\n\n")[2].partition("\n\nEnd of the background.")[0]
    assert bool(answered.cut_characters) == (sentences == 3000)
    values = shown(asked, short)
    judged = short.render(JUDGE, values, 64)
    assert judged.content.partition("Document:\n\n")[2].partition("\n\nEnd of the document.")[0] == seen
    # Another part of it is another request.
    assert asked.id == (f"d-q-a-{answered.cut_characters}" if answered.cut_characters else "d-q-a")
