"""Vectors from a server: a real vLLM, and every way in which a server can fail."""

import base64
import email.utils
import json
import logging
import socket
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from aitp_tasks import config
from aitp_tasks.encoder.batches import Answer, Batch
from aitp_tasks.encoder.endpoint import KEY_VARIABLE, EndpointBackend
from aitp_tasks.errors import InputError, TransientError
from tests.aitp_tasks.conftest import MODELS
from tests.aitp_tasks.servers import HTML, KEY, PASSING, Reply, Served, serving, vllm_server

pytestmark = pytest.mark.slow

MODEL = str(MODELS / "all-MiniLM-L6-v2")
POISON = 666


def settings(url: str, **values: Any) -> config.Encoder:
    endpoint = {"url": url, "served_model": "minilm", "timeout_seconds": 60.0, "retries": 3} | values
    return config.Encoder(model=MODEL, endpoint=config.Endpoint.model_validate(endpoint))


def batch(*sequences: list[int]) -> Batch:
    return Batch(range(len(sequences)), [np.array(sequence, dtype=np.int32) for sequence in sequences])


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KEY_VARIABLE, KEY)


# A real server


@pytest.fixture(scope="module")
def vllm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """vLLM with the model; its URL."""
    options = ["--model", MODEL, "--served-model-name", "minilm", "--runner", "pooling", "--dtype", "float32"]
    with vllm_server(tmp_path_factory.mktemp("vllm"), options) as url:
        yield url


@pytest.mark.timeout(600)
def test_vllm_gives_the_vectors_of_the_plain_encoder_and_refuses_one_by_one(vllm: str) -> None:
    from sentence_transformers import SentenceTransformer

    plain = SentenceTransformer(MODEL, device="cpu", local_files_only=True)
    texts = ["Rivers carry grain " * length + "to the ports." for length in (30, 20, 8, 3, 1)]
    sequences = [plain.tokenizer(text)["input_ids"] for text in texts]
    backend = EndpointBackend(settings(vllm))
    assert (backend.dimension, backend.batch_tokens) == (384, 16_384)
    too_long = [sequences[0] * 10, *sequences]
    answers = {len(answer.vectors): answer for answer in backend.run([batch(*sequences), batch(*too_long)])}
    expected = plain.encode(texts)
    cosines = (answers[5].vectors * expected).sum(axis=1)
    assert cosines.min() > 0.999
    assert not answers[5].refused
    assert [*answers[6].refused] == [0]
    assert answers[6].refused[0].error_class == "refused_by_endpoint"
    assert "400 This model's maximum context length is 256 tokens" in answers[6].refused[0].message
    assert np.isnan(answers[6].vectors[0]).all()
    assert np.abs(answers[6].vectors[1:] - answers[5].vectors).max() < 1e-3


def test_vllm_refuses_a_wrong_key_and_an_unknown_model(vllm: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match=rf"{vllm} answers 404 for the model 'other'.*served_model"):
        EndpointBackend(settings(vllm, served_model="other"))
    monkeypatch.delenv(KEY_VARIABLE)
    with pytest.raises(InputError, match=rf"{vllm} refuses the key \(401\): set {KEY_VARIABLE}"):
        EndpointBackend(settings(vllm))


# The ways to fail

Sequences = list[list[int]]


def vector(sequence: list[int]) -> list[float]:
    return [float(len(sequence)), float(sum(sequence)), float(sequence[0]), float(sequence[-1])]


def vectors(sequences: Sequences, change: Callable[[list[Any]], Any] = lambda data: data) -> bytes:
    data = [{"index": place, "embedding": vector(sequence)} for place, sequence in enumerate(sequences)]
    return json.dumps({"data": change(data)}).encode()


def in_base64(sequences: Sequences) -> bytes:
    def change(data: list[Any]) -> list[Any]:
        packed = [base64.b64encode(np.array(item["embedding"], "<f4").tobytes()).decode() for item in data]
        entries = [{"index": place, "embedding": text} for place, text in enumerate(packed)]
        return entries[::-1]

    return vectors(sequences, change)


@pytest.fixture
def server() -> Iterator[Served]:
    """Its vectors tell their sequence: its length, sum, first and last id."""
    with serving(vectors, lambda body: body["input"]) as server:
        yield server


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("aitp_tasks.machine.client._FIRST_PAUSE", 0.01)


def answer_of(backend: EndpointBackend, *sequences: list[int]) -> Answer:
    (answer,) = backend.run([batch(*sequences)])
    return answer


def assert_whole(answer: Answer) -> None:
    assert not answer.refused
    assert answer.vectors.dtype == np.float32
    assert answer.vectors.tolist() == [vector(sequence.tolist()) for sequence in answer.batch.sequences]


Nonsense = Callable[[Sequences], Reply]


def wrong(change: Callable[[list[Any]], Any]) -> Nonsense:
    return lambda sequences: (200, {}, vectors(sequences, change))


NONSENSE: dict[str, Nonsense] = {
    "html": lambda _: HTML,
    "empty": lambda _: (200, {}, b""),
    "half a json": lambda sequences: (200, {}, vectors(sequences)[:-20]),
    "another json": lambda _: (200, {}, b"[1, 2]"),
    "one vector too few": wrong(lambda data: data[:-1]),
    "one vector too many": wrong(lambda data: [*data, {"index": 9, "embedding": [1.0] * 4}]),
    "wrong dimension": wrong(lambda data: [item | {"embedding": [1.0] * 5} for item in data]),
    "no vectors": wrong(lambda data: [item | {"embedding": []} for item in data]),
    "null vector": wrong(lambda data: [item | {"embedding": None} for item in data]),
    "null numbers": wrong(lambda data: [item | {"embedding": [None] * 4} for item in data]),
    "broken base64": wrong(lambda data: [item | {"embedding": "AAA"} for item in data]),
}
#: Nonsense only where two vectors come together.
NONSENSE_TOGETHER = {
    "an index twice": wrong(lambda data: [item | {"index": 0} for item in data]),
    "mixed dimensions": wrong(
        lambda data: [item | {"embedding": [1.0] * (4 + item["index"])} for item in data]
    ),
}


@pytest.mark.parametrize("format", [vectors, in_base64])
def test_vectors_come_as_numbers_or_base64(server: Served, format: Callable[[Sequences], bytes]) -> None:
    server.instead = lambda sequences: (200, {}, format(sequences))
    backend = EndpointBackend(settings(server.url))
    assert backend.dimension == 4
    assert_whole(answer_of(backend, [1, 2, 3], [7, 8]))
    assert server.requests[-1][2]["authorization"] == f"Bearer {KEY}"


@pytest.mark.parametrize("failure", [pytest.param(value, id=name) for name, value in PASSING.items()])
def test_a_passing_fault_is_retried(server: Served, failure: Reply) -> None:
    backend = EndpointBackend(settings(server.url))
    server.next_answers(failure, failure)
    assert_whole(answer_of(backend, [1, 2, 3], [7, 8]))
    assert len(server.requests) == 4


def in_a_second() -> str:
    return email.utils.formatdate(time.time() + 2, usegmt=True)


@pytest.mark.parametrize("value", [lambda: "0.8", in_a_second], ids=["seconds", "date"])
def test_retry_after_is_honoured(server: Served, value: Callable[[], str]) -> None:
    backend = EndpointBackend(settings(server.url))
    server.next_answers((429, {"Retry-After": value()}, b""))
    assert_whole(answer_of(backend, [1, 2, 3]))
    assert server.requests[-1][0] - server.requests[-2][0] >= 0.8


def test_a_server_that_stays_down_is_a_passing_fault_of_the_task(server: Served) -> None:
    backend = EndpointBackend(settings(server.url))
    server.instead = lambda _: (503, {}, b"loading")
    with pytest.raises(TransientError, match=rf"{server.url} failed 4 times \(503.*\): check that it is up"):
        answer_of(backend, [1, 2, 3])
    assert len(server.requests) == 5


def test_a_server_that_is_not_there_is_named() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}/v1"
        with pytest.raises(TransientError, match=rf"{url} failed 2 times \(ConnectError"):
            EndpointBackend(settings(url, retries=1))


def test_an_answer_that_never_comes_is_asked_for_again(server: Served) -> None:
    backend = EndpointBackend(settings(server.url, timeout_seconds=0.3))
    times = iter([1.0])

    def hang(_: Sequences) -> None:
        time.sleep(next(times, 0.0))

    server.instead = hang
    start = time.monotonic()
    assert_whole(answer_of(backend, [1, 2, 3]))
    assert 0.3 <= time.monotonic() - start < 1.0


@pytest.mark.parametrize("kind", [*NONSENSE, *NONSENSE_TOGETHER])
def test_nonsense_is_asked_for_again(server: Served, kind: str) -> None:
    backend = EndpointBackend(settings(server.url))
    server.next_answers((NONSENSE | NONSENSE_TOGETHER)[kind]([[1, 2, 3], [7, 8]]))
    assert_whole(answer_of(backend, [1, 2, 3], [7, 8]))
    assert len(server.requests) == 3


@pytest.mark.parametrize("kind", NONSENSE)
def test_nonsense_costs_the_sequence_that_always_gets_it(server: Served, kind: str) -> None:
    backend = EndpointBackend(settings(server.url, retries=1))
    server.instead = lambda found: NONSENSE[kind](found) if any(POISON in ids for ids in found) else None
    answer = answer_of(backend, [1, 2, 3], [POISON, 5], [7])
    assert [*answer.refused] == [1]
    assert answer.refused[1].error_class == "refused_by_endpoint"
    assert answer.vectors[[0, 2]].tolist() == [vector([1, 2, 3]), vector([7])]


def test_a_server_that_answers_nothing_but_nonsense_any_more_costs_no_row(server: Served) -> None:
    backend = EndpointBackend(settings(server.url, retries=1))
    server.instead = lambda _: HTML
    with pytest.raises(TransientError, match=rf"{server.url} refuses whatever it is sent \(the answer of 26"):
        answer_of(backend, [1, 2, 3], [7, 8])


@pytest.mark.parametrize("status", [400, 413, 422])
def test_one_sequence_that_is_refused_costs_itself_only(server: Served, status: int) -> None:
    backend = EndpointBackend(settings(server.url))
    message = json.dumps({"error": {"message": f"token {POISON} is not wanted, {KEY}" + "!" * 1000}}).encode()
    server.instead = lambda found: (status, {}, message) if any(POISON in ids for ids in found) else None
    sequences = [[number, number + 1] for number in range(10)]
    sequences[6] = [POISON, 1]
    answer = answer_of(backend, *sequences)
    assert [*answer.refused] == [6]
    assert answer.refused[6].message.startswith(f"{status} token {POISON} is not wanted, ***!!")
    assert len(answer.refused[6].message) == 200
    assert np.isnan(answer.vectors[6]).all()
    kept = [place for place in range(10) if place != 6]
    assert answer.vectors[kept].tolist() == [vector(sequences[place]) for place in kept]


WRONG = {
    "401": (401, {}, "refuses the key (401): set AITP_EMBEDDINGS_API_KEY"),
    "403": (403, {}, "refuses the key (403): set AITP_EMBEDDINGS_API_KEY"),
    "404": (404, {}, "answers 404 for the model 'minilm': correct"),
    "400": (400, {}, "does not embed token ids (400): correct encoder.endpoint.url"),
    "redirect": (307, {"Location": "/v2/embeddings"}, "redirects (307): set encoder.endpoint.url"),
}


@pytest.mark.parametrize(("status", "headers", "message"), WRONG.values(), ids=WRONG)
def test_a_wrong_setting_is_named_at_once(
    server: Served, status: int, headers: dict[str, str], message: str
) -> None:
    server.instead = lambda _: (status, headers, b"")
    with pytest.raises(InputError) as caught:
        EndpointBackend(settings(server.url))
    assert message in str(caught.value)
    assert server.url in str(caught.value)
    assert len(server.requests) == 1


def test_requests_run_at_the_same_time_up_to_the_bound_and_answers_keep_to_their_batch(
    server: Served,
) -> None:
    backend = EndpointBackend(settings(server.url, concurrency=3))
    # The first of each three takes longest, so that answers overtake each other.
    server.instead = lambda found: time.sleep(0.05 * (3 - found[0][0] % 3))
    taken = 0

    def batches() -> Iterator[Batch]:
        nonlocal taken
        for number in range(12):
            taken += 1
            yield Batch([number], [np.array([number, 5], dtype=np.int32)])

    order = []
    for answer in backend.run(batches()):
        assert_whole(answer)
        order.append(answer.batch.positions[0])
        assert taken <= len(order) + 6
    assert sorted(order) == list(range(12)) != order
    assert server.most_under_way == 3


def test_a_run_that_is_left_stops_asking(server: Served) -> None:
    backend = EndpointBackend(settings(server.url, concurrency=1))
    answers = backend.run(batch([number]) for number in range(1, 100))
    next(answers)
    answers.close()
    time.sleep(0.1)
    asked = len(server.requests)
    time.sleep(0.1)
    assert len(server.requests) == asked < 10


def test_the_key_and_other_accounts_stay_out_of_logs_and_headers(
    server: Served, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_ORG_ID", "org-of-someone")
    monkeypatch.setenv("OPENAI_PROJECT_ID", "project-of-someone")
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:1/v1")
    backend = EndpointBackend(settings(server.url))
    server.next_answers(*[(503, {}, KEY.encode())] * 3)
    with caplog.at_level(logging.INFO):
        assert_whole(answer_of(backend, [1, 2, 3]))
    retries = [record.getMessage() for record in caplog.records if "retry=" in record.getMessage()]
    assert len(retries) == 1
    assert f"endpoint={server.url} retry=1 of=3" in retries[0]
    assert KEY not in caplog.text
    assert "someone" not in str(server.requests)
