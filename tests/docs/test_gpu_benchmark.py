"""benchmarks/gpu.py: every part runs for real on processors, and what cannot run is told."""

import importlib
import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]

pytestmark = [pytest.mark.slow, pytest.mark.side_by_side]


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(REPOSITORY / "benchmarks"))
    return importlib.import_module("gpu")


def without(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    """As where some packages are not installed."""
    plain = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if name in names else plain(name, *rest)
    )


def last_line(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(capsys.readouterr().out.splitlines()[-1])
    return found


def test_what_a_lent_machine_lacks_is_named_and_the_rest_is_measured(
    gpu: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    without(monkeypatch, "faiss", "trl", "deepspeed")
    gpu.main(["--device", "cpu"])
    told = last_line(capsys)
    assert told.keys() == {"embed", "kmeans", "knn", "train", "card", "torch", "processor"}
    small = told["embed"]["small"]
    assert small["cosine_least"] > 0.999
    assert small["rows_per_second"].keys() == small["busy"].keys()
    assert all(rate > 0 for rate in small["rows_per_second"].values())
    assert 0 < small["padding"] < 0.05
    assert (told["kmeans"]["peer"], told["knn"]["peer"]) == ("numpy", "numpy")
    assert told["kmeans"]["cosine"] == pytest.approx(told["kmeans"]["peer_cosine"], abs=2e-4)
    assert told["knn"]["same_neighbours"] == 1.0
    assert told["train"]["left_out"] == "the product's trainer, for want of trl, deepspeed"
    assert told["train"]["tiny"].keys() == {"parameters", "tokens_a_step", "bare"}
    assert told["train"]["tiny"]["bare"]["tokens_per_second"] > 0


def test_beside_faiss_centroids_and_neighbours_are_as_near(
    gpu: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    gpu.main(["knn", "kmeans", "--device", "cpu"])
    told = last_line(capsys)
    assert told["kmeans"]["peer"] == "faiss on processors"
    assert told["kmeans"]["cosine"] == pytest.approx(told["kmeans"]["peer_cosine"], abs=0.01)
    assert told["knn"]["same_neighbours"] > 0.99


def test_the_product_s_own_trainer_is_measured(gpu: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    gpu.main(["train", "--device", "cpu"])
    told = last_line(capsys)["train"]
    assert told["left_out"] is None
    assert told["tiny"]["product"]["tokens_per_second"] > 0


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["embeds"], "no part is called 'embeds': there are embed, kmeans, knn, train"),
        (["--device", "tpu"], "invalid choice: 'tpu'"),
        ([], "torch sees no GPU here: start it where there is one, or with --device cpu"),
    ],
)
def test_what_is_asked_for_wrongly_is_told(
    gpu: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    told: str,
) -> None:
    monkeypatch.setattr(gpu.torch.cuda, "is_available", lambda: False)
    with pytest.raises(SystemExit) as ended:
        gpu.main(arguments)
    assert ended.value.code == 2
    assert told in capsys.readouterr().err


def test_the_shapes_have_as_many_parameters_as_they_are_called(gpu: ModuleType) -> None:
    from transformers import AutoModelForCausalLM

    torch, train, made = gpu.torch, sys.modules["gpu_train"], sys.modules["made_models"]
    for name, size in train._SIZES["cuda"].items():
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(made.llama(size.shape, size.vocabulary))
        billions = sum(tensor.numel() for tensor in model.parameters()) / 1e9
        assert billions == pytest.approx(float(name.removesuffix("b")), rel=0.08), name
