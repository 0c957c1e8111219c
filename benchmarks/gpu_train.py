"""The part train of gpu.py: the product's launcher and trainer beside a bare loop, on models of made weights.

bare: transformers' model, float32 weights under bfloat16, torch's fused AdamW, activations
computed twice; no launcher, no DeepSpeed. product: the stage's launcher with one rank under
ZeRO 2, as `aitp finetune` starts it; it wants trl, deepspeed and datasets, and is left out by name where
one is missing. Both take rows of one length, so that no token is padding; the first steps
are not timed. ``teraflops`` counts 6 operations a parameter and token, not those made twice.
"""

import gc
import importlib.util
import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from made_models import Shape, chat_model

_STEPS, _UNTIMED = 8, 3
_WANTED = ("trl", "deepspeed", "datasets", "accelerate")
_RATE = 1e-5
_SCHEMA = pa.schema([("input_ids", pa.list_(pa.int32())), ("labels", pa.list_(pa.int32()))])


@dataclass(frozen=True)
class _Size:
    shape: Shape
    vocabulary: int
    rows: int
    length: int

    @property
    def tokens(self) -> int:
        """Of one step."""
        return self.rows * self.length


_SIZES = {
    "cuda": {
        "0.4b": _Size(Shape(1024, 24, 16, 2816), 32_000, 8, 2048),
        "1.3b": _Size(Shape(2048, 24, 16, 5504), 32_000, 4, 2048),
        "3b": _Size(Shape(2560, 36, 20, 6912), 32_000, 2, 2048),
    },
    "cpu": {"tiny": _Size(Shape(16, 2, 2), 300, 2, 32)},
}


def train(device: str, folder: Path) -> dict[str, Any]:
    """Tokens a second and memory of each size, bare and by the product."""
    missing = [name for name in _WANTED if importlib.util.find_spec(name) is None]
    left_out = f"the product's trainer, for want of {', '.join(missing)}" if missing else None
    figures: dict[str, Any] = {"left_out": left_out}
    for name, size in _SIZES[device].items():
        place = folder / name
        place.mkdir()
        parameters = chat_model(place / "model", size.shape, size.vocabulary, device)
        found: dict[str, Any] = {"parameters": parameters, "tokens_a_step": size.tokens}
        rate, megabytes = _bare(place, size, device)
        found["bare"] = _told(rate, parameters) | {"device_mb": round(megabytes)}
        if not missing:
            found["product"] = _told(_product(place, size, device), parameters)
            found["ratio"] = round(
                found["product"]["tokens_per_second"] / found["bare"]["tokens_per_second"], 3
            )
        print("train", name, json.dumps(found), flush=True)
        figures[name] = found
    return figures


def _told(tokens_per_second: float, parameters: int) -> dict[str, float]:
    return {
        "tokens_per_second": round(tokens_per_second, 1),
        "teraflops": round(6 * parameters * tokens_per_second / 1e12, 4),
    }


def _bare(place: Path, size: _Size, device: str) -> tuple[float, float]:
    """Tokens a second, and the device's memory in MB."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(place / "model", dtype=torch.float32).to(device)
    model.train()
    model.gradient_checkpointing_enable({"use_reentrant": False})
    optimiser = torch.optim.AdamW(model.parameters(), lr=_RATE, fused=True)
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    ids = torch.from_numpy(_rows(size)).to(device)
    start = 0.0
    for step in range(_STEPS):
        if step == _UNTIMED:
            start = _now(device)
        part = ids[step * size.rows : (step + 1) * size.rows]
        with torch.autocast(device, torch.bfloat16):
            loss = model(input_ids=part, labels=part).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        optimiser.zero_grad()
    seconds = _now(device) - start
    megabytes = torch.cuda.max_memory_allocated() / 1e6 if device == "cuda" else 0.0
    # The product's ranks want the memory.
    del model, optimiser, loss
    gc.collect()
    if device == "cuda":
        torch.cuda.empty_cache()
    return (_STEPS - _UNTIMED) * size.tokens / seconds, megabytes


def _product(place: Path, size: _Size, device: str) -> float:
    """Tokens a second by the stage's launcher, from the log that its rank leaves."""
    from aitp_tasks.config import Finetune
    from aitp_tasks.machine import base_model, devices
    from aitp_tasks.training import launcher, template
    from aitp_tasks.training.job import Job

    settings = Finetune(
        model=str(place / "model"),
        batch_size=size.rows,
        gradient_accumulation=1,
        max_length=size.length,
        max_steps=_STEPS,
        learning_rate=_RATE,
        gradient_checkpointing=True,
        save_minutes=None,
    )
    job = Job(
        folder=place / "job",
        finetune=settings,
        gpus=(devices.visible()[0].index,) if device == "cuda" else (),
        templates=template.choose(base_model.load_tokenizer(settings), None),
    )
    job.folder.mkdir()
    ids = pa.array(_rows(size).astype(np.int32).tolist(), _SCHEMA.field("input_ids").type)
    with pa.OSFile(str(job.examples), "wb") as sink, pa.ipc.new_stream(sink, _SCHEMA) as writer:
        writer.write_batch(pa.RecordBatch.from_arrays([ids, ids], schema=_SCHEMA))
    launcher.run(job)
    steps = [entry for entry in json.loads(job.log_history.read_bytes()) if "loss" in entry]
    first, last = steps[_UNTIMED - 1], steps[-1]
    return float((last["num_tokens"] - first["num_tokens"]) / (last["seconds"] - first["seconds"]))


def _rows(size: _Size) -> Any:
    """Token ids int64 (all rows of all steps, length)."""
    shape = (_STEPS * size.rows, size.length)
    return np.random.default_rng(0).integers(3, size.vocabulary, shape)


def _now(device: str) -> float:
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()
