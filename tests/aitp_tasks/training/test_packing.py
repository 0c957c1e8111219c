"""Rows of several examples: each whole and once, none seeing another, and learnt as if it were alone."""

import json
import math
import re
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import torch
import transformers
from datasets import Dataset
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM

from aitp_tasks.config import Finetune
from aitp_tasks.errors import InputError
from aitp_tasks.machine import base_model
from aitp_tasks.training import checks, packing
from aitp_tasks.training.examples import IGNORED
from aitp_tasks.training.order import Order
from tests.aitp_tasks.training import tiny
from tests.aitp_tasks.training.packing_cases import BORDERS, CASES, Border, Case

_VOCABULARY = 512
_PAIRS, _ROW = 12, 256
_SMALL = {"vocab_size": _VOCABULARY, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
_GPT = {
    "vocab_size": _VOCABULARY,
    "n_embd": 32,
    "n_layer": 2,
    "n_head": 2,
    "bos_token_id": 0,
    "eos_token_id": 0,
}
_GROUPED = {**_SMALL, "intermediate_size": 64, "num_key_value_heads": 1}
#: By their families: rotary with grouped heads, a window, learnt positions.
_SOUND: dict[str, Any] = {
    "Llama": _GROUPED,
    "Qwen2": _GROUPED,
    "Mistral": {**_GROUPED, "sliding_window": 4},
    "GPT2": _GPT,
    "GPTNeoX": {**_SMALL, "intermediate_size": 64, "eos_token_id": 0},
    "Olmo": _GROUPED,
}
#: They take positions, and let the next example see the one before.
_LEAKING: dict[str, Any] = {
    "Falcon": _SMALL,
    "OPT": {**_SMALL, "ffn_dim": 64, "word_embed_proj_dim": 32},
}
_UNFIT: dict[str, tuple[Any, str]] = {
    "Bloom": (
        {"vocab_size": _VOCABULARY, "hidden_size": 32, "n_layer": 2, "n_head": 2},
        "takes no positions",
    ),
    "Mamba": ({"vocab_size": _VOCABULARY, "hidden_size": 32, "num_hidden_layers": 2}, "takes no positions"),
    "Qwen3Next": (_GROUPED, "layers whose state goes on"),
}


def _config(family: str, values: Any) -> Any:
    return getattr(transformers, f"{family}Config")(**values)


def _model(family: str, values: Any) -> Any:
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(_config(family, values)).eval()


def _write(path: Path, rows: Sequence[dict[str, list[int]]]) -> Path:
    schema = pa.schema([("input_ids", pa.list_(pa.int32())), ("labels", pa.list_(pa.int32()))])
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_stream(sink, schema) as writer:
        writer.write_batch(pa.RecordBatch.from_pylist(list(rows), schema))
    return path


def _pack(folder: Path, rows: Sequence[dict[str, list[int]]], length: int, seed: int = 0) -> Dataset:
    examples = _write(folder / "examples.arrow", rows)
    count = packing.pack(examples, folder / "packs.arrow", length, seed)
    packs = Dataset.from_file(str(folder / "packs.arrow"))
    assert len(packs) == count
    return packs


def _examples(lengths: Sequence[int], vocabulary: int = _VOCABULARY) -> list[dict[str, list[int]]]:
    drawn = torch.Generator().manual_seed(1)
    texts = [torch.randint(vocabulary, (length,), generator=drawn).tolist() for length in lengths]
    # Learnt from the first token on, which is no other's to foretell.
    return [{"input_ids": text, "labels": text} for text in texts]


def _parts(packs: Dataset, name: str) -> list[tuple[int, ...]]:
    found = []
    for pack in packs:
        ends = torch.tensor([0, *pack["seq_lengths"]]).cumsum(0).tolist()
        found += [tuple(pack[name][start:end]) for start, end in pairwise(ends)]
    return found


@settings(max_examples=30)
@given(
    lengths=st.lists(st.integers(1, 16), min_size=1, max_size=60),
    ranks=st.integers(1, 3),
    batch=st.integers(1, 4),
    seed=st.integers(0, 3),
)
def test_every_example_is_once_in_an_epoch_and_none_is_cut(
    tmp_path_factory: pytest.TempPathFactory, lengths: list[int], ranks: int, batch: int, seed: int
) -> None:
    rows = _examples(lengths)
    packs = _pack(tmp_path_factory.mktemp("packs"), rows, 16, seed)
    for name in ("input_ids", "labels"):
        assert Counter(_parts(packs, name)) == Counter(tuple(row[name]) for row in rows)
    assert all(sum(pack["seq_lengths"]) == len(pack["input_ids"]) <= 16 for pack in packs)
    filled = packing.filled(packs, ranks * batch)
    assert len(filled) % (ranks * batch) == 0
    assert len(filled) - len(packs) < ranks * batch
    order = Order(len(packs), len(filled) - len(packs), seed)
    for epoch in range(2):
        order.set_epoch(epoch)
        taken = list(order)
        assert sorted(taken) == list(range(len(filled)))
        assert Counter(_parts(filled.select(taken), "input_ids")) == Counter(
            tuple(row["input_ids"]) for row in rows
        )


def test_the_same_examples_and_seed_give_the_same_rows(tmp_path: Path) -> None:
    rows = _examples([1 + number * 7 % 11 for number in range(50)])
    folders = [tmp_path / name for name in "abc"]
    for folder in folders:
        folder.mkdir()
    one, same, other = (
        _pack(folder, rows, 24, seed) for folder, seed in zip(folders, (0, 0, 1), strict=True)
    )
    assert one[:] == same[:]
    assert one[:] != other[:]


@pytest.mark.parametrize("family", _SOUND)
def test_logits_of_packed_examples_are_those_of_each_alone(family: str, tmp_path: Path) -> None:
    model, rows = _model(family, _SOUND[family]), _examples([5, 9, 1, 7, 12, 3])
    packs = _pack(tmp_path, rows, 16)
    assert any(len(pack["seq_lengths"]) > 1 for pack in packs)
    batch = packing.collate([*packs])
    assert "attention_mask" not in batch
    packing.require_positions(model, family)
    packing.require_separate(model, _VOCABULARY, torch.device("cpu"), family)
    model.eval()
    with torch.no_grad():
        together = model(
            input_ids=batch["input_ids"], position_ids=batch["position_ids"], use_cache=False
        ).logits
        for row, pack in enumerate(packs):
            start = 0
            for length in pack["seq_lengths"]:
                alone = model(
                    torch.tensor([pack["input_ids"][start : start + length]]), use_cache=False
                ).logits[0]
                assert (together[row, start : start + length] - alone).abs().max() < 1e-4
                start += length


@pytest.mark.parametrize("family", _LEAKING)
def test_a_model_whose_examples_see_each_other_is_found_out(family: str) -> None:
    model = _model(family, _LEAKING[family])
    packing.require_positions(model, family)
    with pytest.raises(InputError, match=f"would see each other in {family}: its logits .*packing=false"):
        packing.require_separate(model, _VOCABULARY, torch.device("cpu"), family)


def test_a_mask_beside_positions_is_found_out() -> None:
    model = _model("Llama", _SOUND["Llama"])
    forward = model.forward
    model.forward = lambda input_ids, **values: forward(
        input_ids, attention_mask=torch.ones_like(input_ids), **values
    )
    with pytest.raises(InputError, match="would see each other"):
        packing.require_separate(model, _VOCABULARY, torch.device("cpu"), "masked")


@pytest.mark.parametrize("family", _UNFIT)
def test_plan_refuses_what_goes_by_no_positions(family: str, tmp_path: Path) -> None:
    values, said = _UNFIT[family]
    _config(family, values).save_pretrained(tmp_path)
    checks.require_packing(Finetune(model=str(tmp_path)))
    with pytest.raises(InputError, match=f"{family}ForCausalLM .*{said}"):
        checks.require_packing(Finetune(model=str(tmp_path), packing=True))


def test_plan_refuses_other_attention(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _config("Llama", _SOUND["Llama"]).save_pretrained(tmp_path)
    made = Finetune(model=str(tmp_path), packing=True)
    checks.require_packing(made)
    shell = base_model.outline(made)
    shell.config._attn_implementation_internal = "flash_attention_2"
    monkeypatch.setattr(base_model, "outline", lambda settings: shell)
    with pytest.raises(InputError, match="computes attention by flash_attention_2"):
        checks.require_packing(made)


def test_a_batch_of_rows() -> None:
    packs = [
        {"input_ids": [1, 2, 3, 4, 5], "labels": [1, 2, IGNORED, 4, 5], "seq_lengths": [2, 3]},
        {"input_ids": [6, 7], "labels": [6, 7], "seq_lengths": [2]},
        {"input_ids": [], "labels": [], "seq_lengths": []},
    ]
    made = {name: tensor.tolist() for name, tensor in packing.collate(packs).items()}
    none = [IGNORED] * 5
    assert made == {
        "input_ids": [[1, 2, 3, 4, 5], [6, 7, 0, 0, 0], [0] * 5],
        # What is first of an example is not foretold by the one before.
        "labels": [[IGNORED, 2, IGNORED, 4, 5], [IGNORED, 7, *none[2:]], none],
        "position_ids": [[0, 1, 0, 1, 2], [0, 1, 0, 1, 2], [0, 1, 2, 3, 4]],
        "padding": 8,
    }
    assert packing.collate(packs[2:])["input_ids"].shape == (1, 1)


@pytest.mark.parametrize(
    # What is too long, or empty, is dealt with before; see long_examples.py.
    "case",
    [case for case in CASES if case["answer"] == "packed" and case["lengths"]],
    ids=lambda case: case["name"],
)
def test_cases_of_somebody_who_had_not_read_the_code(case: Case, tmp_path: Path) -> None:
    rows = _examples(case["lengths"])
    packs = _pack(tmp_path, rows, case["max_length"])
    for name in ("input_ids", "labels"):
        assert Counter(_parts(packs, name)) == Counter(tuple(row[name]) for row in rows)
    assert sorted(map(len, packs["input_ids"]), reverse=True) == case["bfd_fill"]
    assert case["least_bins"] is not None
    assert len(packs) >= case["least_bins"]


@pytest.mark.parametrize("case", BORDERS, ids=lambda case: case["name"])
def test_no_example_is_taught_to_foretell_the_next(case: Border) -> None:
    labels = [label for one in case["labels"] for label in one]
    made = packing.collate([{"input_ids": labels, "labels": labels, "seq_lengths": case["bin_lengths"]}])
    assert made["labels"].tolist() == [case["packed_labels"]]
    assert made["position_ids"].tolist() == [case["positions"]]
    assert (made["labels"] != IGNORED).sum() == case["learnt_tokens"]


@pytest.fixture(scope="module")
def trained(smollm2: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """All examples in each step, packed and not, by one rank and by two."""
    folder = tmp_path_factory.mktemp("packed")
    model = tiny.make_model(folder / "tiny", smollm2, dtype="float32")
    examples = tiny.pairs(_PAIRS)
    jobs = {}
    for processes in (1, 2):
        common = {"processes": processes, "epochs": 3, "max_length": _ROW, "zero_stage": 2}
        kinds: list[dict[str, Any]] = [
            {"batch_size": 3, "gradient_accumulation": 4 // processes},
            {"packing": True, "batch_size": 1, "gradient_accumulation": 4},
        ]
        for kind in kinds:
            packed = kind.get("packing", False)
            name = folder / f"{processes}-{packed}"
            jobs[processes, packed] = tiny.make_job(
                name, model, examples, **common, **kind, learning_rate=3e-3
            )
        tiny.train([jobs[processes, packed] for packed in (False, True)])
    return jobs


@pytest.mark.slow
@pytest.mark.parametrize("processes", [1, 2])
def test_the_loss_is_that_of_the_same_examples_alone(trained: dict[Any, Any], processes: int) -> None:
    alone, packed = trained[processes, False], trained[processes, True]
    curves = tiny.losses(alone), tiny.losses(packed)
    assert [len(curve) for curve in curves] == [3, 3]
    assert curves[0][-1] < curves[0][0] - 0.05
    assert max(abs(one - other) for one, other in zip(*curves, strict=True)) <= 1e-3


@pytest.mark.slow
@pytest.mark.parametrize("processes", [1, 2])
def test_tokens_and_padding_are_counted(trained: dict[Any, Any], processes: int) -> None:
    tokens = sum(len(ids) for ids in Dataset.from_file(str(trained[processes, False].examples))["input_ids"])
    padding = {}
    for packed in (False, True):
        history = json.loads(trained[processes, packed].log_history.read_bytes())
        assert [entry["num_tokens"] for entry in history] == [tokens * epoch for epoch in (1, 2, 3)]
        padding[packed] = history[0]["padding"]
    assert padding[False] > 0.02
    # Each row is a batch of its own, and one of the two ranks lacks a row.
    assert padding[True] == pytest.approx((processes - 1) / tokens, rel=0.01)
    # As few as can be, and an odd number of them.
    assert len(Dataset.from_file(str(trained[processes, True].packs))) == math.ceil(tokens / _ROW) == 3


@pytest.mark.slow
def test_a_rank_says_so_where_examples_would_see_each_other(smollm2: Path, tmp_path: Path) -> None:
    model = tiny.make_model(tmp_path / "llama", smollm2, dtype="float32")
    config = transformers.FalconConfig(
        **{**_SMALL, "vocab_size": 49152, "bos_token_id": 0, "eos_token_id": 0}
    )
    AutoModelForCausalLM.from_config(config).save_pretrained(model)
    job = tiny.make_job(tmp_path / "job", model, tiny.pairs(4), packing=True)
    (process,) = tiny.start([job])
    printed = process.communicate(timeout=300)[0]
    assert process.returncode == 1
    assert re.search(r"InputError: examples of one row would see each other in .*packing=false", printed)
