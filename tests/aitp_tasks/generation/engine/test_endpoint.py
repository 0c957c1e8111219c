"""Responses from a server: a real vLLM, and every way in which a server can fail."""

import dataclasses
import email.utils
import json
import logging
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from aitp_tasks import config
from aitp_tasks.config import Prompts
from aitp_tasks.errors import InputError, TransientError
from aitp_tasks.generation import prompt_files as prompts
from aitp_tasks.generation.engine import Completion, Engine, Job, open_engine
from aitp_tasks.generation.engine.endpoint import KEY_VARIABLE, EndpointEngine
from aitp_tasks.generation.engine.offline import OfflineEngine
from aitp_tasks.generation.engine.prompting import Prompter
from aitp_tasks.generation.requests import Parsed
from aitp_tasks.generation.stored import Response
from aitp_tasks.inputs.rows import Refusal
from aitp_tasks.records import generated
from aitp_tasks.records.run import Run
from aitp_tasks.stages import density, difference, embed, merge, plan, rewrite, score
from tests.aitp_tasks.conftest import MODELS, REPOSITORY, Configure
from tests.aitp_tasks.servers import HTML, KEY, PASSING, Reply, Served, serving, vllm_server

pytestmark = pytest.mark.slow

MODEL = str(MODELS / "SmolLM2-135M-Instruct")
CONTEXT = 768
SCHEMA = {"type": "object", "properties": {"answer": {"type": "string"}}, "required": ["answer"]}
POISON = "poison"


def settings(url: str, **values: Any) -> config.Engine:
    endpoint = {"url": url, "served_model": "smollm", "timeout_seconds": 60.0, "retries": 3} | values
    return config.Engine(
        model=MODEL, max_model_len=CONTEXT, endpoint=config.Endpoint.model_validate(endpoint)
    )


def job(content: str, **values: Any) -> Job:
    sampling = {"max_tokens": 64, "temperature": 0.0}
    plain = Job(id=content, content=content, token_ids=[1], schema=SCHEMA, sampling=sampling)
    return dataclasses.replace(plain, **values)


Outcomes = list[tuple[str, Completion | Refusal]]


def completed(engine: Engine, jobs: list[Job], kept: Outcomes | None = None) -> Outcomes:
    """Ids and outcomes, in the order in which they came; ``kept`` has them after an error, too."""
    waiting = list(jobs)
    outcomes = [] if kept is None else kept
    while True:
        while waiting and engine.room:
            engine.submit(waiting.pop(0))
        found = engine.finished()
        if not found:
            return outcomes
        outcomes += found


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KEY_VARIABLE, KEY)


# A real server


@pytest.fixture(scope="module")
def vllm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """vLLM with the model; its URL."""
    # What docs/how-to/endpoints.md recommends, so that it answers as the offline engine does.
    structured = json.dumps({"backend": "xgrammar", "disable_any_whitespace": True})
    options = ["--model", MODEL, "--served-model-name", "smollm", "--dtype", "bfloat16"]
    options += ["--max-model-len", str(CONTEXT), "--generation-config", "vllm"]
    options += ["--enable-prompt-tokens-details", "--structured-outputs-config", structured]
    with vllm_server(tmp_path_factory.mktemp("vllm"), options) as url:
        yield url


QUESTIONS = ["Why do rivers carry grain to the ports?", "What is the capital of France?", "你好 {}: %s?"]


def score_jobs(engine_settings: config.Engine) -> list[Job]:
    prompt = prompts.load_folder(Prompts(folder=str(REPOSITORY / "prompts")))["score"]
    prompter = Prompter(engine_settings, MODEL)
    jobs = []
    for question in QUESTIONS:
        rendered = prompter.render(prompt, {"question": question}, prompt.sampling["max_tokens"])
        jobs.append(
            Job(question, rendered.content, rendered.token_ids, prompt.output_schema, prompt.sampling, 20)
        )
    return jobs


def one_by_one(engine: Engine, jobs: list[Job]) -> dict[str, Completion | Refusal]:
    """Ids and outcomes; in bfloat16, what else is in a batch changes the probabilities."""
    return {key: outcome for one in jobs for key, outcome in completed(engine, [one])}


def test_vllm_answers_as_the_offline_engine_does(vllm: str, caplog: pytest.LogCaptureFixture) -> None:
    jobs = score_jobs(settings(vllm))
    too_long = job("many words " * CONTEXT)
    with caplog.at_level(logging.DEBUG), open_engine(settings(vllm), MODEL) as engine:
        assert 0 < engine.load_seconds < 60
        outcomes = one_by_one(engine, [*jobs, too_long])
    refusal = outcomes[too_long.id]
    assert isinstance(refusal, Refusal)
    assert refusal.error_class == "not_servable"
    assert refusal.message.startswith("400 ")
    assert "768" in refusal.message
    assert "endpoint=" not in caplog.text
    assert KEY not in caplog.text
    offline_settings = config.Engine(
        model=MODEL,
        max_model_len=CONTEXT,
        engine_args={"dtype": "bfloat16", "enforce_eager": True},
    )
    with OfflineEngine(offline_settings, MODEL) as offline:
        expected = one_by_one(offline, jobs)
    for asked in jobs:
        found, same = outcomes[asked.id], expected[asked.id]
        assert isinstance(found, Completion)
        assert isinstance(same, Completion)
        assert (found.finish_reason, found.text) == ("stop", same.text)
        # The server's chat template gives what the prompter counted.
        assert (found.prompt_tokens, found.generated_tokens) == (len(asked.token_ids), same.generated_tokens)
        means, expected_means = (
            score.expected_scores(Parsed(json.loads(one.text), (), Response(one))) for one in (found, same)
        )
        assert means == pytest.approx(expected_means, abs=0.05)
        assert None not in means
        assert [text for text, _ in found.numbers] == [text for text, _ in same.numbers]
    last = outcomes[jobs[-1].id]
    # The prompt's beginning is that of the jobs before.
    assert isinstance(last, Completion)
    assert last.cached_tokens > 0


def test_vllm_refuses_a_wrong_key_and_an_unknown_model(vllm: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match=rf"{vllm} answers 404 for the model 'other'.*served_model"):
        EndpointEngine(settings(vllm, served_model="other"))
    monkeypatch.delenv(KEY_VARIABLE)
    with pytest.raises(InputError, match=rf"{vllm} refuses the key \(401\): set {KEY_VARIABLE}"):
        EndpointEngine(settings(vllm))


# The ways to fail

Body = dict[str, Any]


def content_of(body: Body) -> str:
    return str(body["messages"][0]["content"])


def chat(body: Body, **changes: Any) -> bytes:
    """An answer that repeats the content; ``changes`` replace values of its one choice."""
    choice = {"message": {"content": f"of {content_of(body)}"}, "finish_reason": "stop"} | changes
    usage = {"prompt_tokens": 9, "completion_tokens": 4, "prompt_tokens_details": {"cached_tokens": 8}}
    return json.dumps({"choices": [choice], "usage": usage}).encode()


def answer(content: str) -> Completion:
    """What ``chat`` comes to."""
    return Completion(f"of {content}", "stop", prompt_tokens=9, generated_tokens=4, cached_tokens=8)


@pytest.fixture
def server() -> Iterator[Served]:
    with serving(chat) as server:
        yield server


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("aitp_tasks.machine.client._FIRST_PAUSE", 0.01)


def outcome_of(engine: Engine, one: Job) -> Completion | Refusal:
    ((key, outcome),) = completed(engine, [one])
    assert key == one.id
    return outcome


def wait_until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def refusing(status: int, refused: Callable[[Body], object], message: bytes = b"") -> Callable[[Body], Any]:
    return lambda body: (status, {}, message) if refused(body) else None


def poisoned(body: Body) -> bool:
    return POISON in content_of(body)


def test_a_job_becomes_a_chat_of_one_message(server: Served) -> None:
    sampling = {"max_tokens": 64, "top_p": 0.9, "top_k": 5}
    with EndpointEngine(settings(server.url)) as engine:
        assert outcome_of(engine, job("Why?", sampling=sampling, alternatives=50)) == answer("Why?")
    _, body, headers = server.requests[-1]
    assert headers["authorization"] == f"Bearer {KEY}"
    assert body == {
        "model": "smollm",
        "messages": [{"role": "user", "content": "Why?"}],
        "max_tokens": 64,
        "temperature": 1.0,
        "top_p": 0.9,
        "top_k": 5,
        "repetition_penalty": 1.0,
        "response_format": {
            "type": "json_schema",
            "json_schema": {"name": "response", "schema": SCHEMA, "strict": True},
        },
        "logprobs": True,
        "top_logprobs": 20,
    }


def logprob(token: str, value: float = -1.0, *others: tuple[str, float]) -> Body:
    top = [{"token": text, "logprob": number} for text, number in others]
    return {"token": token, "logprob": value, "top_logprobs": top}


NUMBERS = {
    "only numbers count": (
        [logprob('{"a":'), logprob(" 7", -0.1, (" 7", -0.1), ("x", -2.0), ("8", -3.0))],
        [(" 7", [(" 7", -0.1), ("8", -3.0)])],
    ),
    "the token itself counts": ([logprob("7", -0.5, ("8", -0.2))], [("7", [("7", -0.5), ("8", -0.2)])]),
    "what cannot be does not": ([logprob("7", -0.5, ("8", -9999.0))], [("7", [("7", -0.5)])]),
    "one that is not told spoils all": ([logprob("7"), logprob("8", -9999.0)], []),
    "none at all": (None, []),
}


@pytest.mark.parametrize(("content", "numbers"), NUMBERS.values(), ids=NUMBERS)
def test_numbers_and_their_alternatives(server: Served, content: Any, numbers: Any) -> None:
    server.rule = lambda body: chat(body, logprobs={"content": content})
    with EndpointEngine(settings(server.url)) as engine:
        outcome = outcome_of(engine, job("How good?", alternatives=20))
    assert isinstance(outcome, Completion)
    assert outcome.numbers == numbers


FINISHES = {
    "length": ({"finish_reason": "length"}, ("of Why?", "length")),
    "content_filter": ({"finish_reason": "content_filter"}, ("of Why?", "content_filter")),
    "cut while it thought": ({"finish_reason": "length", "message": {"content": None}}, ("", "length")),
}


@pytest.mark.parametrize(("changes", "expected"), FINISHES.values(), ids=FINISHES)
def test_how_a_response_ends_is_passed_on(server: Served, changes: Body, expected: tuple[str, str]) -> None:
    server.rule = lambda body: chat(body, **changes)
    with EndpointEngine(settings(server.url)) as engine:
        outcome = outcome_of(engine, job("Why?"))
    assert isinstance(outcome, Completion)
    assert (outcome.text, outcome.finish_reason) == expected


def test_a_server_need_not_count_tokens(server: Served) -> None:
    choice = {"message": {"content": "yes"}, "finish_reason": "stop"}
    server.rule = lambda _: json.dumps({"choices": [choice], "usage": None}).encode()
    with EndpointEngine(settings(server.url)) as engine:
        assert outcome_of(engine, job("Why?")) == Completion("yes", "stop", 0, 0)


@pytest.mark.parametrize("failure", [pytest.param(value, id=name) for name, value in PASSING.items()])
def test_a_passing_fault_is_retried(server: Served, failure: Reply) -> None:
    with EndpointEngine(settings(server.url)) as engine:
        server.next_answers(failure, failure)
        assert outcome_of(engine, job("Why?")) == answer("Why?")
    assert len(server.requests) == 4


def test_a_server_that_is_still_loading_is_waited_for(server: Served) -> None:
    server.next_answers(PASSING["503"], PASSING["503"])
    with EndpointEngine(settings(server.url)) as engine:
        assert engine.load_seconds > 0
        assert engine.restarts == 0
        assert outcome_of(engine, job("Why?")) == answer("Why?")


def in_two_seconds() -> str:
    return email.utils.formatdate(time.time() + 2, usegmt=True)


@pytest.mark.parametrize("value", [lambda: "0.8", in_two_seconds], ids=["seconds", "date"])
def test_retry_after_is_honoured(server: Served, value: Callable[[], str]) -> None:
    with EndpointEngine(settings(server.url)) as engine:
        server.next_answers((429, {"Retry-After": value()}, b""))
        assert outcome_of(engine, job("Why?")) == answer("Why?")
    assert server.requests[-1][0] - server.requests[-2][0] >= 0.8


def test_a_server_that_goes_down_is_a_passing_fault_of_the_task(server: Served) -> None:
    with EndpointEngine(settings(server.url)) as engine:
        server.instead = lambda _: (503, {}, b"loading")
        with pytest.raises(
            TransientError, match=rf"{server.url} failed 4 times \(503.*\): check that it is up"
        ):
            completed(engine, [job("Why?")])
    # The first, four tries and a last one for the probe.
    assert len(server.requests) == 6


def test_an_answer_that_never_comes_is_asked_for_again(server: Served) -> None:
    with EndpointEngine(settings(server.url, timeout_seconds=0.3)) as engine:
        times = iter([5.0])

        def hang(_: Body) -> None:
            time.sleep(next(times, 0.0))

        server.instead = hang
        start = time.monotonic()
        assert outcome_of(engine, job("Why?")) == answer("Why?")
    assert 0.3 <= time.monotonic() - start < 4.0


def test_a_row_that_alone_is_never_answered_costs_itself_only(server: Served) -> None:
    def hang(body: Body) -> None:
        time.sleep(5.0 if poisoned(body) else 0.0)

    with EndpointEngine(settings(server.url, timeout_seconds=1.0, retries=1)) as engine:
        server.instead = hang
        outcomes = dict(completed(engine, [job("a"), job(POISON), job("b")]))
    refusal = outcomes.pop(POISON)
    assert outcomes == {"a": answer("a"), "b": answer("b")}
    assert isinstance(refusal, Refusal)
    assert refusal.error_class == "refused_by_endpoint"
    assert "failed 2 times (no answer within timeout_seconds=1)" in refusal.message


NONSENSE: dict[str, Callable[[Body], Reply]] = {
    "html": lambda _: HTML,
    "empty": lambda _: (200, {}, b""),
    "half a json": lambda body: (200, {}, chat(body)[:-20]),
    "another json": lambda _: (200, {}, b"[1, 2]"),
    "no choices": lambda _: (200, {}, b'{"choices": []}'),
    "null choices": lambda _: (200, {}, b'{"choices": null}'),
    "null content": lambda body: (200, {}, chat(body, message={"content": None})),
    "content in parts": lambda body: (200, {}, chat(body, message={"content": [{"text": "yes"}]})),
    "half a character": lambda body: (200, {}, chat(body, message={"content": "\ud800"})),
    "no end": lambda body: (200, {}, chat(body, finish_reason=None)),
    "tokens without end": lambda body: (200, {}, chat(body).replace(b"9", b"1e999")),
    "null probabilities": lambda body: (200, {}, chat(body, logprobs={"content": [{"token": None}]})),
    "depth": lambda _: (200, {}, b"[" * 100_000),
}


@pytest.mark.parametrize("kind", NONSENSE)
def test_nonsense_is_asked_for_again(server: Served, kind: str) -> None:
    with EndpointEngine(settings(server.url)) as engine:
        server.next_answers(*[NONSENSE[kind]({"messages": [{"content": "Why?"}]})] * 2)
        assert outcome_of(engine, job("Why?")) == answer("Why?")
    assert len(server.requests) == 4


@pytest.mark.parametrize("kind", NONSENSE)
def test_nonsense_costs_the_row_that_always_gets_it(server: Served, kind: str) -> None:
    server.instead = lambda body: NONSENSE[kind](body) if poisoned(body) else None
    with EndpointEngine(settings(server.url)) as engine:
        outcomes = dict(completed(engine, [job("a"), job(POISON), job("b")]))
    refusal = outcomes.pop(POISON)
    assert outcomes == {"a": answer("a"), "b": answer("b")}
    assert isinstance(refusal, Refusal)
    assert refusal.error_class == "refused_by_endpoint"
    assert "no chat completion" in refusal.message


def test_a_server_that_answers_nothing_but_nonsense_any_more_costs_no_row(server: Served) -> None:
    with EndpointEngine(settings(server.url, retries=1)) as engine:
        server.instead = lambda _: HTML
        with pytest.raises(
            TransientError, match=rf"{server.url} refuses whatever it is sent \(the answer of"
        ):
            completed(engine, [job("Why?")])


@pytest.mark.parametrize("status", [400, 413, 422])
def test_one_row_that_is_refused_costs_itself_only(
    server: Served, status: int, caplog: pytest.LogCaptureFixture
) -> None:
    message = f"response_format and logprobs in {POISON}, {KEY}" + "!" * 1000
    body = json.dumps({"error": {"message": message}}).encode()
    server.instead = refusing(status, poisoned, body)
    jobs = [job(str(number), alternatives=20) for number in range(10)]
    jobs[6] = job(POISON, alternatives=20)
    with EndpointEngine(settings(server.url)) as engine:
        outcomes = dict(completed(engine, jobs))
    refusal = outcomes.pop(POISON)
    assert outcomes == {one.id: answer(one.id) for one in jobs if one.id != POISON}
    assert isinstance(refusal, Refusal)
    assert refusal.error_class == "not_servable"
    assert refusal.message.startswith(f"{status} response_format and logprobs in poison, ***!!")
    assert len(refusal.message) == 200
    # What the row's refusal names is no reason to ask the server for less.
    assert "refuses" not in caplog.text
    assert all("logprobs" in body for _, body, _ in server.requests if content_of(body) != "Hello")


def test_content_that_is_forbidden_costs_its_row_only(server: Served) -> None:
    server.instead = refusing(403, poisoned, b'{"error": {"message": "bad words"}}')
    with EndpointEngine(settings(server.url)) as engine:
        outcomes = dict(completed(engine, [job("a"), job(POISON)]))
    assert outcomes == {"a": answer("a"), POISON: Refusal("refused_by_endpoint", "403 bad words")}


def test_a_server_that_refuses_everything_costs_no_row(server: Served) -> None:
    with EndpointEngine(settings(server.url)) as engine:
        server.instead = lambda _: (400, {}, b"not today")
        with pytest.raises(TransientError, match=rf"{server.url} refuses whatever it is sent \(400"):
            completed(engine, [job("Why?")])


WRONG = {
    "401": (401, {}, b"", "refuses the key (401): set AITP_ENGINE_API_KEY"),
    "403": (403, {}, b"", "refuses the key (403): set AITP_ENGINE_API_KEY"),
    "404": (404, {}, b"", "answers 404 for the model 'smollm': correct engine.endpoint.url"),
    "400": (400, {}, b"", "does not answer a chat (400): correct engine.endpoint.url"),
    "405": (405, {}, b"", "does not answer a chat (405): correct engine.endpoint.url"),
    "redirect": (307, {"Location": "/v2/chat"}, b"", "redirects (307): set engine.endpoint.url"),
    "html": (*HTML, "does not answer a chat (the answer of 26 bytes is no chat completion"),
}


@pytest.mark.parametrize(("status", "headers", "body", "message"), WRONG.values(), ids=WRONG)
def test_a_wrong_setting_is_named_at_once(
    server: Served, status: int, headers: dict[str, str], body: bytes, message: str
) -> None:
    server.instead = lambda _: (status, headers, body)
    with pytest.raises(InputError) as caught:
        EndpointEngine(settings(server.url))
    assert message in str(caught.value)
    assert server.url in str(caught.value)
    assert len(server.requests) == (3 if status == 200 else 1)


LATER = {
    "401": (401, {}, "refuses the key (401): set AITP_ENGINE_API_KEY"),
    "403": (403, {}, "refuses the key (403): set AITP_ENGINE_API_KEY"),
    "404": (404, {}, "answers 404"),
    "redirect": (302, {"Location": "/login"}, "redirects (302)"),
}


@pytest.mark.parametrize(("status", "headers", "message"), LATER.values(), ids=LATER)
def test_a_key_that_is_revoked_in_the_middle_costs_no_finished_row(
    server: Served, status: int, headers: dict[str, str], message: str
) -> None:
    kept: Outcomes = []
    with EndpointEngine(settings(server.url, concurrency=1)) as engine:
        server.instead = lambda _: (status, headers, b"") if len(server.requests) > 3 else None
        with pytest.raises(InputError, match=re.escape(message)):
            completed(engine, [job(content) for content in "abcdef"], kept)
    assert kept == [("a", answer("a")), ("b", answer("b"))]


def test_what_is_finished_before_an_error_comes_before_it(server: Served) -> None:
    server.instead = refusing(401, poisoned)
    with EndpointEngine(settings(server.url, concurrency=1)) as engine:
        engine.submit(job("a"))
        engine.submit(job(POISON))
        wait_until(lambda: engine._answers.qsize() == 2)
        assert engine.finished() == [("a", answer("a"))]
        for _ in range(2):
            with pytest.raises(InputError, match=r"\(401\)"):
                engine.finished()


# What a server can do without


REFUSED_PARAMETERS = {
    "response_format": ("response_format", {"response_format"}),
    "logprobs": ("logprobs", {"logprobs", "top_logprobs"}),
    "top_k": ("top_k", {"top_k"}),
    "repetition_penalty": ("repetition_penalty", {"repetition_penalty"}),
    "seed": ("seed", {"seed"}),
}


@pytest.mark.parametrize("status", [400, 422])
@pytest.mark.parametrize(("name", "fields"), REFUSED_PARAMETERS.values(), ids=REFUSED_PARAMETERS)
def test_a_refused_parameter_is_left_out_once_and_for_all(
    server: Served, caplog: pytest.LogCaptureFixture, name: str, fields: set[str], status: int
) -> None:
    server.instead = refusing(status, lambda body: name in body, f"unknown {name}".encode())
    seeded = {"max_tokens": 8, "seed": 7}
    jobs = [job(str(number), alternatives=20, sampling=seeded) for number in range(30)]
    with caplog.at_level(logging.INFO), EndpointEngine(settings(server.url)) as engine:
        assert dict(completed(engine, jobs)) == {one.id: answer(one.id) for one in jobs}
    notes = [record.getMessage() for record in caplog.records if "refuses" in record.getMessage()]
    assert len(notes) == 1
    assert f"endpoint={server.url} refuses parameter={name} reason='{status}" in notes[0]
    asked = [body for _, body, _ in server.requests]
    every = {"response_format", "top_k", "repetition_penalty", "seed", "logprobs", "top_logprobs"}
    assert every - fields <= asked[-1].keys()
    # Those that were under way together, and two probes.
    assert sum(name in body for body in asked) <= 8 + 2


def test_parameters_that_do_not_go_together_are_told_apart(server: Served) -> None:
    server.instead = refusing(400, lambda body: {"response_format", "logprobs"} <= body.keys())
    with EndpointEngine(settings(server.url)) as engine:
        assert outcome_of(engine, job("Why?", alternatives=20)) == answer("Why?")
    assert "response_format" in server.requests[-1][1]
    assert "logprobs" not in server.requests[-1][1]


def test_a_server_of_plain_chat_still_refuses_rows_one_by_one(server: Served) -> None:
    server.instead = refusing(400, lambda body: poisoned(body) or "top_k" in body or "logprobs" in body)
    with EndpointEngine(settings(server.url)) as engine:
        outcomes = dict(completed(engine, [job(one, alternatives=20) for one in ("a", POISON, "b")]))
    assert outcomes.pop(POISON) == Refusal("not_servable", "400")
    assert outcomes == {"a": answer("a"), "b": answer("b")}


# What the chat template is told, and what the model thinks


NO_THINKING: dict[str, Any] = {"enable_thinking": False}


def test_template_arguments_are_sent_with_every_request(server: Served) -> None:
    told = settings(server.url).model_copy(update={"chat_template_args": NO_THINKING})
    with EndpointEngine(told) as engine:
        assert outcome_of(engine, job("Why?")) == answer("Why?")
    assert all(body["chat_template_kwargs"] == NO_THINKING for _, body, _ in server.requests)
    server.requests.clear()
    with EndpointEngine(settings(server.url)):
        assert "chat_template_kwargs" not in server.requests[-1][1]


def test_a_server_that_refuses_template_arguments_is_not_asked_without_them(server: Served) -> None:
    server.instead = refusing(400, lambda body: "chat_template_kwargs" in body)
    told = settings(server.url).model_copy(update={"chat_template_args": NO_THINKING})
    with pytest.raises(InputError, match="that takes engine.chat_template_args"):
        EndpointEngine(told)


@pytest.mark.parametrize("name", ["reasoning", "reasoning_content"])
@pytest.mark.parametrize(("content", "text"), [("yes", "yes"), (None, "")])
def test_what_a_server_tells_apart_as_thinking_is_kept_apart(
    server: Served, name: str, content: str | None, text: str
) -> None:
    choice = {"message": {"content": content, name: "Hm."}, "finish_reason": "stop"}
    server.rule = lambda _: json.dumps({"choices": [choice]}).encode()
    with EndpointEngine(settings(server.url)) as engine:
        assert outcome_of(engine, job("Why?")) == Completion(text, "stop", 0, 0, reasoning="Hm.")


# Many at a time


def test_requests_run_at_the_same_time_up_to_the_bound_and_come_as_they_finish(server: Served) -> None:
    with EndpointEngine(settings(server.url, concurrency=3)) as engine:
        # The first of each three takes longest, so that answers overtake each other.
        server.instead = lambda body: time.sleep(0.1 * (3 - int(content_of(body)) % 3))
        assert engine.room == 6
        for number in range(6):
            engine.submit(job(str(number)))
        assert engine.room == 0
        order = [key for key, _ in engine.finished()]
        assert engine.room == len(order)
        order += [key for key, _ in completed(engine, [job(str(number)) for number in range(6, 12)])]
        assert engine.room == 6
        assert engine.finished() == []
    assert order[:3] == ["2", "1", "0"]
    assert sorted(order, key=int) == [str(number) for number in range(12)]
    assert server.most_under_way == 3


def test_an_engine_that_is_left_stops_asking_and_waits_for_nothing(server: Served) -> None:
    with EndpointEngine(settings(server.url, concurrency=2)) as engine:
        server.instead = lambda _: time.sleep(3)
        for number in range(4):
            engine.submit(job(str(number)))
        wait_until(lambda: len(server.requests) == 3)
        start = time.monotonic()
    assert time.monotonic() - start < 2
    wait_until(lambda: server.under_way == 0)
    time.sleep(0.1)
    assert len(server.requests) == 3


def test_a_pause_ends_when_the_engine_is_left(server: Served) -> None:
    with EndpointEngine(settings(server.url)) as engine:
        server.instead = lambda _: (503, {"Retry-After": "600"}, b"")
        engine.submit(job("Why?"))
        wait_until(lambda: len(server.requests) == 2)
        answers = engine._answers
    with pytest.raises(TransientError, match="was left"):
        answers.get(timeout=10)[1].result()


def test_the_key_and_other_accounts_stay_out_of_logs_and_headers(
    server: Served, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_ORG_ID", "org-of-someone")
    monkeypatch.setenv("OPENAI_PROJECT_ID", "project-of-someone")
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:1/v1")
    with caplog.at_level(logging.DEBUG), EndpointEngine(settings(server.url)) as engine:
        server.next_answers(*[(503, {}, KEY.encode())] * 3)
        assert outcome_of(engine, job("Why?")) == answer("Why?")
    assert f"endpoint={server.url} retry=1 of=3" in caplog.text
    assert KEY not in caplog.text
    assert "someone" not in str(server.requests)


# The stages


def selected(run_config: config.RunConfig) -> Run:
    """A run up to its difference set."""
    run = Run.open(plan.execute(run_config)["run"])
    for unit in range(len(run.plan.groups)):
        embed.execute(run, unit)
    merge.execute(run)
    for unit in range(len(run.plan.groups)):
        density.execute(run, unit)
    difference.execute(run)
    return run


def well_behaved(body: Body) -> bytes:
    """What the prompt's schema asks for."""
    asked = (
        body["response_format"]["json_schema"]["schema"]["properties"] if "response_format" in body else {}
    )
    values = {
        "questions": [f"What of {len(content_of(body))}?", "Which rivers are meant?"],
        "quality": 8,
        "difficulty": 5,
        "additional_information": False,
    }
    response = json.dumps({name: values[name] for name in asked})
    return chat(body, message={"content": response})


def test_a_stage_goes_on_where_a_revoked_key_has_stopped_it(
    server: Served, configure: Configure, root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    endpoint = {"url": server.url, "served_model": "smollm", "concurrency": 2}
    engine = {"model": MODEL, "max_model_len": 1024, "endpoint": endpoint}
    server.rule = well_behaved
    with caplog.at_level(logging.INFO):
        run = selected(configure(difference={"tau": 1e9, "max_documents": 12}, engine=engine))
        server.instead = lambda _: (401, {}, b"") if len(server.requests) > 6 else None
        with pytest.raises(InputError, match=r"refuses the key \(401\)"):
            rewrite.execute(run, 0)
        server.instead = lambda _: None
        assert rewrite.execute(run, 0)["rows_out"] == 12
        assert score.execute(run, 0)["rows_out"] == 24
    figures = run.require_manifest("rewrite", run.part(0)).figures
    # Five were answered; the last of them perhaps not before the error.
    assert 4 <= figures["reused"] <= 5
    assert figures["generated"] == 12 - figures["reused"]
    assert len(generated.rows(run, "rewrite", run.part(0))) == 24
    assert KEY not in caplog.text
    stored = [path.read_bytes() for path in root.rglob("*") if path.is_file()]
    assert not any(KEY.encode() in content for content in stored)
