"""What computes vectors in this process: any layout, any device, and what is done when memory ends."""

import logging
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Pooling

from aitp_tasks import config
from aitp_tasks.config import Require
from aitp_tasks.encoder import opened as encoder
from aitp_tasks.encoder import openvino_backend, prepared, torch_backend
from aitp_tasks.encoder.batches import Backend, Batch, form
from aitp_tasks.encoder.opened import Encoder, open_encoder
from aitp_tasks.encoder.openvino_backend import OpenVinoBackend
from aitp_tasks.encoder.prepared import prepare
from aitp_tasks.encoder.tokens import Tokenised
from aitp_tasks.encoder.torch_backend import TorchBackend
from aitp_tasks.errors import InputError, TransientError
from aitp_tasks.machine import devices, models
from tests.aitp_tasks.conftest import MODELS
from tests.aitp_tasks.encoder.test_attention import Counted

pytestmark = pytest.mark.slow

SETTINGS = config.Encoder(model=str(MODELS / "all-MiniLM-L6-v2"), max_tokens=128)
TEXTS = [f"Document {number} tells of rivers. " * (1 + number % 9) for number in range(40)]


def vectors(made: Encoder, texts: list[str]) -> NDArray[np.float32]:
    found = np.zeros((len(texts), made.backend.dimension), np.float32)
    windows = [tokens.windows[0] for tokens in made.tokeniser(texts) if isinstance(tokens, Tokenised)]
    for answer in made.backend.run(form(range(len(windows)), windows, made.backend.batch_tokens)):
        found[list(answer.batch.positions)] = answer.vectors
    return found


def least_cosine(left: NDArray[np.float32], right: NDArray[np.float32]) -> float:
    norms = np.linalg.norm(left, axis=1) * np.linalg.norm(right, axis=1)
    return float(((left * right).sum(axis=1) / norms).min())


def on(backend: type[Any], device: str = "") -> Encoder:
    found = prepare(SETTINGS, models.identity(SETTINGS))
    made: Backend
    if backend is TorchBackend:
        made = TorchBackend(SETTINGS, found.facts, device)
    else:
        assert found.graph is not None
        made = OpenVinoBackend(found.graph, found.facts, None)
    tokeniser = encoder.Tokeniser(found.tokenizer_json, found.facts, SETTINGS)
    return Encoder(found.facts, tokeniser, made)


@pytest.fixture(scope="module")
def expected() -> NDArray[np.float32]:
    model = SentenceTransformer(SETTINGS.model, local_files_only=True, device="cpu")
    model.max_seq_length = SETTINGS.max_tokens
    found: NDArray[np.float32] = model.encode(TEXTS, show_progress_bar=False)
    return found


@pytest.mark.parametrize(
    ("backend", "device"),
    [
        pytest.param(OpenVinoBackend, "", id="openvino"),
        pytest.param(TorchBackend, "cpu", id="torch on the cpu"),
        pytest.param(
            TorchBackend,
            "cuda",
            id="torch on a gpu",
            marks=[pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")],
        ),
    ],
)
def test_vectors_are_those_of_the_library(
    backend: type[Any], device: str, expected: NDArray[np.float32]
) -> None:
    assert least_cosine(vectors(on(backend, device), TEXTS), expected) > 0.999


def test_another_layout_is_read_from_the_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """First token instead of the mean, a prompt, and no normalisation."""
    monkeypatch.setenv("AITP_CACHE", str(tmp_path / "cache"))
    plain = SentenceTransformer(SETTINGS.model, local_files_only=True, device="cpu")
    pooling = Pooling(plain.get_embedding_dimension(), pooling_mode="cls")
    made = SentenceTransformer(
        modules=[plain[0], pooling],
        prompts={"passage": "passage: "},
        default_prompt_name="passage",
        device="cpu",
    )
    made.save_pretrained(str(tmp_path / "model"))
    settings = config.Encoder(model=str(tmp_path / "model"))
    opened = open_encoder(settings, models.identity(settings))
    assert opened.facts.prompt == "passage: "
    assert not opened.facts.normalised
    found = vectors(opened, TEXTS[:8])
    wanted = made.encode(TEXTS[:8], show_progress_bar=False)
    assert least_cosine(found, wanted) > 0.999
    assert np.linalg.norm(found, axis=1) == pytest.approx(np.linalg.norm(wanted, axis=1), rel=0.02)


@pytest.fixture(scope="module")
def by_torch() -> Encoder:
    return on(TorchBackend, "cpu")


@pytest.mark.parametrize("lengths", [(7, 7, 7), (30, 29, 5), (1,)], ids=["even", "padded", "one"])
def test_no_forward_pass_asks_the_device_for_a_value(by_torch: Encoder, lengths: tuple[int, ...]) -> None:
    assert isinstance(by_torch.backend, TorchBackend)
    sequences = [np.arange(1000, 1000 + length, dtype=np.int32) for length in lengths]
    batch = Batch(range(len(lengths)), sequences)
    with Counted() as counted:
        found = by_torch.backend._forward(batch)
    assert counted.looks.total() == 0
    with torch.inference_mode():
        for row, sequence in enumerate(sequences):
            ids = torch.from_numpy(sequence.astype(np.int64))[None]
            features = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
            wanted = by_torch.backend._model(features)["sentence_embedding"]
            assert torch.cosine_similarity(found[row].float(), wanted[0].float(), dim=0) > 0.999


def test_vectors_are_fetched_one_batch_behind_and_waited_for(
    by_torch: Encoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A device that computes beside the host: a batch's vectors lie in its memory once it was waited for."""
    told: list[str] = []

    class Later:
        def __init__(self, host: torch.Tensor, exact: torch.Tensor, number: int) -> None:
            self._host, self._exact, self._number = host, exact, number

        def synchronize(self) -> None:
            told.append(f"waited for {self._number}")
            self._host.copy_(self._exact)

    def fetched(found: torch.Tensor) -> tuple[torch.Tensor, Later]:
        number = sum(line.startswith("started") for line in told)
        told.append(f"started {number}")
        host = torch.full(found.shape, torch.nan)
        return host, Later(host, found.float(), number)

    sequences = [np.full(5, number, np.int32) for number in range(4)]
    batches = [Batch([number], [sequence]) for number, sequence in enumerate(sequences)]
    wanted = [answer.vectors for answer in by_torch.backend.run(batches)]
    monkeypatch.setattr(torch_backend, "_fetched", fetched)
    found = list(by_torch.backend.run(batches))
    assert [answer.batch for answer in found] == batches
    assert np.array_equal([answer.vectors for answer in found], wanted)
    assert told == [
        "started 0", "started 1", "waited for 0", "started 2", "waited for 1", "started 3",
        "waited for 2", "waited for 3",
    ]  # fmt: skip


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_nothing_waits_for_the_gpu_until_vectors_are_wanted() -> None:
    made = on(TorchBackend, "cuda")
    assert isinstance(made.backend, TorchBackend)
    batches = [
        Batch(range(2), [np.full(9, 1000, np.int32), np.full(length, 1000, np.int32)]) for length in (9, 8)
    ]
    list(made.backend.run(batches))
    torch.cuda.set_sync_debug_mode("error")
    try:
        started = [one for batch in batches for one in made.backend._start(batch)]
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert all(np.isfinite(one.answer().vectors).all() for one in started)


def test_a_full_device_gets_smaller_batches(
    monkeypatch: pytest.MonkeyPatch, expected: NDArray[np.float32], caplog: pytest.LogCaptureFixture
) -> None:
    made = on(TorchBackend, "cpu")
    assert isinstance(made.backend, TorchBackend)
    plain = made.backend._forward

    def forward(batch: Any) -> Any:
        if batch.padded_tokens > 200:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return plain(batch)

    monkeypatch.setattr(made.backend, "_forward", forward)
    with caplog.at_level(logging.WARNING):
        assert least_cosine(vectors(made, TEXTS), expected) > 0.999
    assert made.backend.batch_tokens <= 200
    assert "device out of memory: batch_tokens=" in caplog.text


def test_a_text_that_never_fits_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    made = on(TorchBackend, "cpu")

    def forward(_: Any) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(made.backend, "_forward", forward)
    with pytest.raises(TransientError, match=r"one text of \d+ tokens does not fit"):
        vectors(made, TEXTS)


def test_a_prepared_encoder_is_not_prepared_again(monkeypatch: pytest.MonkeyPatch) -> None:
    prepare(SETTINGS, models.identity(SETTINGS))
    monkeypatch.setattr(prepared.subprocess, "run", None)
    assert prepare(SETTINGS, models.identity(SETTINGS)).facts.dimension == 384


def test_a_model_that_compiles_to_something_else_is_left_to_torch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    model = torch_backend.load(SETTINGS, "cpu")
    facts = prepare(SETTINGS, models.identity(SETTINGS)).facts
    monkeypatch.setattr(openvino_backend, "least_cosine", lambda *_: 0.98)
    assert prepared._compile(model, facts, tmp_path / "model.xml") is None
    assert list(tmp_path.iterdir()) == []

    def refuses(*_: Any) -> Any:
        raise RuntimeError("no such operator")

    monkeypatch.setattr(torch_backend, "trace", refuses)
    with caplog.at_level(logging.WARNING):
        assert prepared._compile(model, facts, tmp_path / "model.xml") is None
    assert "no such operator" in caplog.text


def test_without_a_compiled_model_torch_runs_on_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    class Uncompiled(prepared.Prepared):
        graph = None

    found = prepare(SETTINGS, models.identity(SETTINGS))
    monkeypatch.setattr(encoder, "prepare", lambda *_: Uncompiled(found._folder))
    made = open_encoder(SETTINGS, models.identity(SETTINGS))
    assert made.backend.name.startswith("cpu-torch")


def test_another_model_than_the_planned_one_makes_no_vectors(tmp_path: Path) -> None:
    planned = models.identity(SETTINGS)
    other = tmp_path / "model"
    shutil.copytree(SETTINGS.model, other)
    (other / "config_sentence_transformers.json").write_text('{"prompts": {"query": "other: "}}')
    settings = SETTINGS.model_copy(update={"model": str(other)})
    with pytest.raises(
        InputError, match=r"encoder model .*/model, or a file that belongs to it, was changed after"
    ):
        open_encoder(settings, planned)


def test_a_gpu_that_is_missing_is_told_before_the_model_is_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "_required", Require.GPU)
    monkeypatch.setattr("aitp_tasks.machine.gpus._installed", list)
    with pytest.raises(InputError, match="encoder.model is to work on a GPU"):
        open_encoder(SETTINGS.model_copy(update={"model": "/not/fetched"}), "planned")
