"""What five kills cost a training: steps made twice, and how far its losses are from the unbroken one's.

A part of train.py. A Llama of some hundred thousand parameters with dropout, two ranks under ZeRO 2, as the
stage has it: ``aitp finetune`` on a storage in a folder. The whole tree of its processes is killed behind
steps that a seed has drawn, and a drawn share of a step later. What steps there were is told by what
stands in trackio's place: the log tells it too seldom.
"""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pyarrow as pa
import pyarrow.parquet as pq

from aitp_tasks.config import RunConfig
from aitp_tasks.machine import models, processes
from aitp_tasks.records import conversations
from aitp_tasks.records.manifest import Ledger, Manifest
from aitp_tasks.records.plan import Plan
from aitp_tasks.records.run import Run
from aitp_tasks.storage import open_storage
from aitp_tasks.training import kept

REPOSITORY = Path(__file__).resolve().parents[1]
KILLS, _STEPS, _INTERVAL, _SEED = 5, 240, 20, 0
_EXAMPLES = 48
_TOLD = "told.txt"
_TRACKIO = f"""
import os
from contextvars import ContextVar
__version__ = "0.43.0"
config = {{}}
class context_vars:
    current_space_id = ContextVar("space", default=None)
def init(**values): pass
def log(values):
    if "train/loss" in values:
        with open(os.environ["{_TOLD}"], "a") as told:
            told.write(f"{{values['train/global_step']}}\\n")
def finish(): pass
"""


def resume(folder: Path) -> dict[str, Any]:
    """The largest relative difference of a loss, and the most steps that a kill has cost, in intervals."""
    model = _model(folder / "tiny")
    (folder / "client").mkdir()
    (folder / "client/trackio.py").write_text(_TRACKIO)
    whole, broken = (_run(folder / name, model) for name in ("whole", "broken"))
    seconds = _finish(folder, whole) / _STEPS
    drawn = random.Random(_SEED)
    lost, starts = [], []
    for target in sorted(drawn.sample(range(2, _STEPS), KILLS)):
        made, start = _kill(folder, broken, target, seconds * drawn.random())
        state = kept.newest(broken)
        lost.append(made - (state.step if state else 0))
        starts.append(start)
        print(f"resume killed_behind={made} state={state and state.step} lost={lost[-1]}", flush=True)
    _finish(folder, broken)
    curves = [_losses(run) for run in (whole, broken)]
    assert [len(curve) for curve in curves] == [_STEPS, _STEPS]
    gaps = [abs(a - b) / a for a, b in zip(*curves, strict=True)]
    return {
        "resume_kills": len(lost),
        "resume_steps": _STEPS,
        "resume_interval": _INTERVAL,
        "resume_loss_gap": round(max(gaps), 8),
        "lost_steps": lost,
        "lost_steps_max": round(max(lost) / _INTERVAL, 3),
        # Else it would not have been killed, or not gone on.
        "resume_went_on_behind": starts,
    }


def _model(folder: Path) -> Path:
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    sizes = {"vocab_size": 49152, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 1, "tie_word_embeddings": True}
    LlamaForCausalLM(LlamaConfig(**sizes, **heads, attention_dropout=0.1)).save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        shutil.copyfile(REPOSITORY / ".aitp/models/SmolLM2-135M-Instruct" / name, folder / name)
    return folder


def _run(folder: Path, model: Path) -> Run:
    """A run as assemble leaves it, on Alpaca's examples of the demo."""
    sections: dict[str, Any] = {name: {"model": "/none"} for name in ("encoder", "engine")}
    finetune = {
        **{"model": str(model), "processes": 2, "batch_size": 2, "gradient_accumulation": 1},
        **{"max_length": 128, "max_steps": _STEPS, "learning_rate": 1e-3, "neftune_noise": 5.0},
        **{"save_steps": _INTERVAL, "report_to": ["trackio"]},
    }
    config = RunConfig.model_validate(
        {
            **{"root": f"file://{folder}", "dump": "web", "sft": "alpaca", "prompts": {"folder": "/none"}},
            **{**sections, "finetune": finetune},
        }
    )
    identity = models.identity(config.finetune)
    plan = Plan(
        config=config,
        encoder_identity="e",
        engine_identity="e",
        finetune_identity=identity,
        prompts={},
        groups=(),
    )
    run = Run.create(open_storage(config.root), plan)
    rows = pq.read_table(REPOSITORY / ".aitp/data/sft/alpaca").slice(0, _EXAMPLES).to_pylist()
    turns = [
        [
            {"role": "user", "content": row["instruction"]},
            {"role": "assistant", "content": row["output"] or "-"},
        ]
        for row in rows
    ]
    schema = pa.schema(conversations.columns(()))
    pq.write_table(conversations.table([{"messages": one} for one in turns], schema), folder / "data.parquet")
    run.storage.upload("datasets/aitp/v1/data.parquet", folder / "data.parquet")
    run.commit(
        Manifest(
            stage="assemble",
            label="aitp v1",
            ledger=Ledger(rows_in=len(rows), rows_out=len(rows)),
            outputs={"parquet": "datasets/aitp/v1/data.parquet"},
            figures={"version": "v1"},
        )
    )
    return run


def _start(folder: Path, run: Run) -> "subprocess.Popen[str]":
    (folder / _TOLD).write_text("")
    return subprocess.Popen(
        [Path(sys.executable).with_name("aitp"), "finetune", "--run", run.uri],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(folder / "client"), _TOLD: str(folder / _TOLD)},
    )


def _finish(folder: Path, run: Run) -> float:
    """Let it end; the seconds that its steps took."""
    stage = _start(folder, run)
    _, errors = stage.communicate()
    if stage.returncode:
        sys.exit(errors[-3000:])
    history = json.loads(run.storage.read(run.require_manifest("finetune").output("log_history")))
    return float(history[-1]["seconds"])


def _kill(folder: Path, run: Run, target: int, later: float) -> tuple[int, int]:
    """Kill all of its processes behind a step; the last step that was made, and the first one."""
    stage = _start(folder, run)
    with subprocess.Popen(["cat"], stdin=stage.stderr, stdout=subprocess.DEVNULL):
        while not (steps := _steps(folder)) or steps[-1] < target:
            assert stage.poll() is None, "the stage has ended before it was killed"
            time.sleep(0.005)
        time.sleep(later)
        tree = [psutil.Process(stage.pid), *processes.below(stage.pid)]
        for one in tree:
            with suppress(psutil.NoSuchProcess):
                one.send_signal(signal.SIGKILL)
        psutil.wait_procs(tree)
    stage.wait()
    steps = _steps(folder)
    return steps[-1], steps[0]


def _steps(folder: Path) -> list[int]:
    lines = (folder / _TOLD).read_text().splitlines(keepends=True)
    return [int(line) for line in lines if line.endswith("\n")]


def _losses(run: Run) -> list[float]:
    history = json.loads(run.storage.read(run.require_manifest("finetune").output("log_history")))
    return [entry["loss"] for entry in history if "loss" in entry]
