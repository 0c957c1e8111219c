"""Responses from a server that speaks OpenAI's ``/v1/chat/completions``: a vLLM of the user's own.

The server puts the content into its own chat template, so it has to serve the
same model. What is asked of it beyond plain chat (the response's schema, vLLM's
own sampling parameters, log-probabilities) is left out, once it refuses that and
still answers without. Whether a failed request or the server is at fault, a probe
tells: a row is refused only while the server answers another request.
"""

import json
import logging
import queue
import threading
import time
from concurrent.futures import Future
from functools import partial
from types import TracebackType
from typing import Any, Self

from aitp_tasks import config
from aitp_tasks.errors import AitpError, InputError, TransientError
from aitp_tasks.generation.engine import Completion, Job, NumberToken
from aitp_tasks.inputs.rows import Refusal
from aitp_tasks.machine.client import (
    REFUSED,
    ExhaustedError,
    ForbiddenError,
    NonsenseError,
    Pool,
    RefusedError,
    Server,
)

log = logging.getLogger(__name__)

KEY_VARIABLE = "AITP_ENGINE_API_KEY"
#: What every model can answer.
_PROBE, _PROBE_SAMPLING = "Hello", {"max_tokens": 1, "temperature": 0.0}
#: Most alternatives that the protocol allows for.
_MOST_ALTERNATIVES = 20
#: Sent when a prompt does not set them: vLLM would take them from the model's generation_config.json.
_NEUTRAL = {"temperature": 1.0, "top_p": 1.0, "top_k": 0, "repetition_penalty": 1.0}
#: Of the sampling parameters, those that are not OpenAI's, or that not every server takes.
_EXTRA = ("top_k", "repetition_penalty", "seed")
#: How servers write the logarithm of zero.
_IMPOSSIBLE = -9999.0

Body = dict[str, Any]


class EndpointEngine:
    """A server, and the requests that it is working on.

    Attributes:
        load_seconds: until its first answer.
        restarts: none are this engine's own.
    """

    def __init__(self, settings: config.Engine) -> None:
        """Connect, and wait for a first answer.

        Raises:
            InputError: the server refuses the key, does not have the model, or is no
                chat server.
            TransientError: it does not answer.
        """
        assert settings.endpoint is not None
        start = time.monotonic()
        self._settings = settings.endpoint
        # Not a wish: without them, a model that shall not think thinks.
        template_args = settings.chat_template_args
        self._always = {"chat_template_kwargs": template_args} if template_args else {}
        self._server = Server(self._settings, "engine", KEY_VARIABLE)
        self._pool = Pool(self._settings.concurrency)
        self._under_way = 0
        self._answers: queue.SimpleQueue[tuple[str, Future[Completion | Refusal]]] = queue.SimpleQueue()
        self._failure: BaseException | None = None
        self._refused_wishes: set[str] = set()
        self._lock = threading.Lock()
        if (reason := self._refusal_of({})) is not None:
            raise InputError(
                f"{self._server} does not answer a chat ({reason}): correct engine.endpoint.url, "
                "or use a server with /v1/chat/completions"
                + (" that takes engine.chat_template_args" if template_args else "")
            )
        self.load_seconds = time.monotonic() - start
        self.restarts = 0

    @property
    def room(self) -> int:
        """As many again stand by as are under way, so that the server need not wait for the next prompt."""
        return max(2 * self._settings.concurrency - self._under_way, 0)

    def submit(self, job: Job) -> None:
        """Hand in a job."""
        self._under_way += 1
        answer = self._pool.submit(partial(self._answer, job))
        answer.add_done_callback(lambda done: self._answers.put((job.id, done)))

    def finished(self) -> list[tuple[str, Completion | Refusal]]:
        """What is finished, at least one; see ``Engine.finished``. An error comes after what preceded it."""
        found: list[tuple[str, Completion | Refusal]] = []
        while self._under_way and self._failure is None and (not found or not self._answers.empty()):
            key, answer = self._answers.get()
            self._failure = answer.exception()
            if self._failure is None:
                self._under_way -= 1
                found.append((key, answer.result()))
        if self._failure is not None and not found:
            raise self._failure
        return found

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pool.close()

    def _answer(self, job: Job) -> Completion | Refusal:
        """A job's completion, or why this job has none.

        Raises:
            AitpError: no job has one.
        """
        while True:
            wishes = self._wishes(job)
            try:
                return self._ask(job.content, job.sampling, wishes)
            except RefusedError as refused:
                if refused.status is None:
                    self._require_sense(refused)
                    return Refusal(REFUSED, str(refused))
                if not self._gives_less(job, wishes):
                    return Refusal("not_servable", str(refused))
            except ForbiddenError as forbidden:
                self._require_sense(forbidden)
                return Refusal(REFUSED, forbidden.reason)
            except ExhaustedError as failure:
                self._require_sense(failure)
                return Refusal(REFUSED, str(failure))

    def _wishes(self, job: Job) -> dict[str, Body]:
        """What a job asks for beyond plain chat, by parameter, without what the server refuses."""
        schema = {"name": "response", "schema": job.schema, "strict": True}
        wishes: dict[str, Body] = {
            "response_format": {"response_format": {"type": "json_schema", "json_schema": schema}}
        }
        sampling = _NEUTRAL | job.sampling
        wishes |= {name: {name: sampling[name]} for name in _EXTRA if name in sampling}
        if job.alternatives:
            most = min(job.alternatives, _MOST_ALTERNATIVES)
            wishes["logprobs"] = {"logprobs": True, "top_logprobs": most}
        return {name: body for name, body in wishes.items() if name not in self._refused_wishes}

    def _gives_less(self, job: Job, wishes: dict[str, Body]) -> bool:
        """Whether the server refuses any of a job's wishes, so that the job is worth another try."""
        with self._lock:
            # Unless another job has just found out.
            if self._wishes(job) == wishes and self._refusal_of(wishes) is not None:
                self._find_refused_wishes(wishes)
            return self._wishes(job) != wishes

    def _find_refused_wishes(self, wishes: dict[str, Body]) -> None:
        """Probe with one wish more each time; leave out, from now on, those that are refused."""
        if (reason := self._refusal_of({})) is not None:
            raise self._senseless(reason)
        granted: dict[str, Body] = {}
        for name, body in wishes.items():
            reason = self._refusal_of(granted | {name: body})
            if reason is None:
                granted[name] = body
                continue
            self._refused_wishes.add(name)
            log.warning(
                "endpoint=%s refuses parameter=%s reason=%r: generating without it",
                self._settings.url, name, str(reason),
            )  # fmt: skip

    def _require_sense(self, failure: Exception) -> None:
        """Blame a job only while the server still answers a probe."""
        try:
            refusal = self._refusal_of({}, retries=0 if isinstance(failure, ExhaustedError) else None)
        except ExhaustedError:
            raise TransientError(str(failure)) from None
        if refusal is not None:
            raise self._senseless(failure)

    def _senseless(self, reason: Exception) -> AitpError:
        return TransientError(f"{self._server} refuses whatever it is sent ({reason}): see its log")

    def _refusal_of(self, wishes: dict[str, Body], retries: int | None = None) -> RefusedError | None:
        """Why a probe is refused; None when it is answered."""
        try:
            self._ask(_PROBE, _PROBE_SAMPLING, wishes, retries)
        except RefusedError as refused:
            return refused
        return None

    def _ask(
        self, content: str, sampling: Body, wishes: dict[str, Body], retries: int | None = None
    ) -> Completion:
        """See ``Server.ask``."""
        body = {name: value for name, value in (_NEUTRAL | sampling).items() if name not in _EXTRA}
        for wish in wishes.values():
            body |= wish
        return self._server.ask(partial(self._send, content, body), self._pool.stopped, retries)

    def _send(self, content: str, body: Body) -> Completion:
        answer = self._server.client.chat.completions.with_raw_response.create(
            model=self._settings.served_model,
            messages=[{"role": "user", "content": content}],
            extra_body=body | self._always,
        )
        return _decode(bytes(answer.http_response.content))


def _decode(body: bytes) -> Completion:
    """The completion of an answer.

    Raises:
        NonsenseError: there is none in it.
    """
    try:
        answer = json.loads(body)
        choice = answer["choices"][0]
        usage = answer.get("usage") or {}
        details = usage.get("prompt_tokens_details") or {}
        return Completion(
            text=_text(choice),
            finish_reason=_string(choice["finish_reason"]),
            prompt_tokens=int(usage.get("prompt_tokens") or 0),
            generated_tokens=int(usage.get("completion_tokens") or 0),
            cached_tokens=int(details.get("cached_tokens") or 0),
            numbers=_numbers(choice.get("logprobs")),
            reasoning=_reasoning(choice),
        )
    except (
        AttributeError, IndexError, KeyError, OverflowError, RecursionError, TypeError, ValueError,
    ) as error:  # fmt: skip
        raise NonsenseError(f"the answer of {len(body)} bytes is no chat completion ({type(error).__name__})")


def _text(choice: Body) -> str:
    content = choice["message"]["content"]
    if content is None and (choice["finish_reason"] == "length" or _reasoning(choice)):
        # A model that thinks first has not come to its answer.
        return ""
    return _string(content)


def _reasoning(choice: Body) -> str:
    """What the server has told apart as thinking; servers have two names for it."""
    message = choice["message"]
    return _string(message.get("reasoning") or message.get("reasoning_content") or "")


def _string(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError("no string")
    # JSON can write half a character, which no Parquet file can hold.
    value.encode()
    return value


def _numbers(logprobs: Any) -> list[NumberToken]:
    """The tokens that are numbers, each with those that could have stood there and their log-probabilities.

    Empty unless the server tells the probability of each.
    """
    found: list[NumberToken] = []
    for token in (logprobs or {}).get("content") or []:
        if token["token"].strip().isdigit():
            pairs = _alternatives(token)
            if not pairs:
                return []
            found.append((token["token"], pairs))
    return found


def _alternatives(token: Body) -> list[tuple[str, float]]:
    """The token itself is one of them, also where the server leaves it out."""
    others = token.get("top_logprobs") or []
    if token["token"] not in (other["token"] for other in others):
        others = [token, *others]
    pairs = ((other["token"], min(float(other["logprob"]), 0.0)) for other in others)
    return [(text, value) for text, value in pairs if text.strip().isdigit() and value > _IMPOSSIBLE]
