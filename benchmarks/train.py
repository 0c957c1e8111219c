"""Training as it is shipped, packed, beside TRL's trainer as it comes, on the same examples and model.

    make bench-train                    # everything
    make bench-train PARTS="resume"     # some of: speed losses resume

resume: what five kills cost; see resume.py.

speed: SmolLM2-135M-Instruct on Alpaca's examples of the demo, tokenised once. Every step takes all
of them, so that both trainers learn the same at each and their losses can be compared: TRL's
defaults but for that, for the number of steps and the learning rate; this trainer with rows of as
many tokens as TRL takes at most, and once more with the same batches as TRL. One process each, in
turn; the first step is not timed. ``speedup_vs_trl_default`` is of tokens without padding a second,
``cpu_ratio`` the same of processor time, which other work on the machine changes less,
``loss_gap_as_computed`` the largest difference of the two losses at a step: in bfloat16 the two learn
differently, since TRL's trainer updates the model's bfloat16 weights, and DeepSpeed float32 ones that
it rounds.

losses: TRL's defaults and this trainer packed once more in float32, where both update the same
weights; ``loss_gap`` is the largest difference of their losses at a step. The last line of output is
one JSON object.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from measure import run_parts
from resume import resume

from aitp_tasks.machine import processors

REPOSITORY = Path(__file__).resolve().parents[1]
_EXAMPLES, _STEPS = 16, 3
#: As TRL has them.
_BATCH, _LENGTH = 8, 1024
_RATE = 2e-5
#: Before the name of a trainer that a process of its own runs.
_ONE, _FLOAT32 = "--one", "--float32"


def speed(folder: Path) -> dict[str, Any]:
    """Train with each in turn; the figures."""
    tokens = _prepare(folder)
    found = {kind: _run(kind, folder) for kind in ("trl", "alone", "packed")}
    trl, alone, packed = (found[kind] for kind in ("trl", "alone", "packed"))
    rates = {kind: tokens * (_STEPS - 1) / one["seconds"] for kind, one in found.items()}
    return {
        "examples": _EXAMPLES,
        "tokens": tokens,
        "tokens_per_second": {kind: round(value, 1) for kind, value in rates.items()},
        "speedup_vs_trl_default": round(rates["packed"] / rates["trl"], 3),
        "speedup_unpacked": round(rates["alone"] / rates["trl"], 3),
        "cpu_ratio": round(trl["processor_seconds"] / packed["processor_seconds"], 3),
        "cpu_ratio_unpacked": round(trl["processor_seconds"] / alone["processor_seconds"], 3),
        "loss_gap_as_computed": _gap(packed, trl),
        "loss_gap_unpacked_as_computed": _gap(alone, trl),
        "padding": packed["padding"],
        "padding_unpacked": alone["padding"],
    }


def losses(folder: Path) -> dict[str, Any]:
    """Train in float32; the difference of the losses."""
    _prepare(folder)
    trl, packed = (_run(kind, folder, _FLOAT32) for kind in ("trl", "packed"))
    return {"loss_gap": _gap(packed, trl), "losses": {"trl": trl["losses"], "packed": packed["losses"]}}


def _gap(one: Mapping[str, Any], other: Mapping[str, Any]) -> float:
    """The largest difference of two trainers' losses at a step."""
    return round(max(abs(a - b) for a, b in zip(one["losses"], other["losses"], strict=True)), 7)


def _prepare(folder: Path) -> int:
    """Leave one job for each of this trainer's runs, with the same examples; their tokens."""
    from aitp_tasks.config import Finetune
    from aitp_tasks.machine import base_model
    from aitp_tasks.training import examples, making, operators, packing, template
    from aitp_tasks.training.job import Job

    shared: dict[str, Any] = {
        "model": str(REPOSITORY / ".aitp/models/SmolLM2-135M-Instruct"),
        "max_length": _LENGTH,
        "epochs": _STEPS,
        "learning_rate": _RATE,
        "warmup_share": 0.0,
    }
    settings = Finetune.model_validate(shared)
    templates = template.choose(base_model.load_tokenizer(settings), None)
    data = folder / "data.parquet"
    pq.write_table(pa.Table.from_pylist([{"messages": turns} for turns in _conversations()]), data)
    tally = examples.write(data, making.parts_again(settings, templates.training), folder / "examples.arrow")
    assert tally.examples == _EXAMPLES
    kinds = {
        "alone": {"batch_size": _BATCH, "gradient_accumulation": _EXAMPLES // _BATCH},
        # As many rows as there may be, so that all of them are one step.
        "packed": {"batch_size": 1, "gradient_accumulation": _EXAMPLES, "packing": True},
    }
    for kind, changes in kinds.items():
        job = Job(folder=folder / kind, finetune=Finetune(**shared, **changes), templates=templates)
        job.folder.mkdir()
        job.examples.symlink_to(folder / "examples.arrow")
        if job.finetune.packing:
            packing.pack(job.examples, job.packs, _LENGTH, job.finetune.seed)
        operators.provide(job.operators)
        job.write()
    return tally.tokens


def _conversations() -> list[list[dict[str, str]]]:
    rows = pq.read_table(REPOSITORY / ".aitp/data/sft/alpaca").to_pylist()
    return [
        [
            {"role": "user", "content": f"{row['instruction']}\n\n{row['input']}".strip()},
            {"role": "assistant", "content": row["output"]},
        ]
        for row in islice((row for row in rows if row["output"].strip()), _EXAMPLES)
    ]


def _run(kind: str, folder: Path, *float32: str) -> dict[str, Any]:
    """Train in a process of its own; what its clock says."""
    done = subprocess.run(
        [sys.executable, __file__, _ONE, kind, str(folder), *float32],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY), "TOKENIZERS_PARALLELISM": "false"},
    )
    if done.returncode:
        sys.exit(done.stdout[-3000:])
    found: dict[str, Any] = json.loads((folder / f"{kind}.json").read_bytes())
    print(kind, *float32, json.dumps(found), flush=True)
    return found


def _one(kind: str, folder: Path, *float32: str) -> None:
    """One training, in this process."""
    if float32:
        # As on a processor that does not compute in bfloat16.
        processors.compute_bfloat16 = lambda: False
    trainer, told = (_theirs if kind == "trl" else partial(_ours, kind))(folder)
    clock = _clock()
    trainer.add_callback(clock)
    told(trainer)
    steps = [entry for entry in trainer.state.log_history if "loss" in entry]
    assert len(steps) == _STEPS, trainer.state.log_history
    times = clock.times
    figures = {
        "losses": [entry["loss"] for entry in steps],
        "seconds": round(times[-1][0] - times[0][0], 3),
        "processor_seconds": round(times[-1][1] - times[0][1], 3),
        "padding": round(steps[0].get("padding", 0.0), 4),
    }
    (folder / f"{kind}.json").write_text(json.dumps(figures))


def _theirs(folder: Path) -> Any:
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer

    model = REPOSITORY / ".aitp/models/SmolLM2-135M-Instruct"
    arguments = SFTConfig(
        output_dir=str(folder / "trl"),
        gradient_accumulation_steps=_EXAMPLES // _BATCH,
        num_train_epochs=_STEPS,
        learning_rate=_RATE,
        logging_steps=1,
        report_to="none",
        save_strategy="no",
        use_cpu=True,
        bf16=processors.compute_bfloat16(),
        model_init_kwargs=None if processors.compute_bfloat16() else {"dtype": "float32"},
    )
    assert (arguments.per_device_train_batch_size, arguments.max_length) == (_BATCH, _LENGTH)
    made = SFTTrainer(
        model=str(model), args=arguments, train_dataset=Dataset.from_file(str(folder / "examples.arrow"))
    )
    return made, lambda trainer: trainer.train()


def _ours(kind: str, folder: Path) -> Any:
    from aitp_tasks.training import operators, train
    from aitp_tasks.training.job import Job

    job = Job.read(folder / kind / "job.json")
    ranks = {
        "RANK": "0",
        "LOCAL_RANK": "0",
        "WORLD_SIZE": "1",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": "1",
    }
    os.environ.update(ranks | operators.environment(job.operators))
    train._meet(job)
    return train._trainer(job), lambda trainer: trainer.train_on()


def _clock() -> Any:
    from transformers import TrainerCallback

    class Clock(TrainerCallback):  # type: ignore[misc]
        """The seconds, and the processor's, at the end of each step."""

        def __init__(self) -> None:
            self.times: list[tuple[float, float]] = []

        def on_step_end(self, *_: Any, **values: Any) -> None:
            self.times.append((time.perf_counter(), time.process_time()))

    return Clock()


if __name__ == "__main__":
    if sys.argv[1:2] == [_ONE]:
        _one(sys.argv[2], Path(sys.argv[3]), *sys.argv[4:])
    else:
        run_parts({"speed": speed, "losses": losses, "resume": resume}, sys.argv[1:])
