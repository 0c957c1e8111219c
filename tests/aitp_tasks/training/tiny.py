"""A model of some hundred thousand parameters with a real tokenizer, and ranks that train it."""

import importlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from aitp_tasks.config import Finetune
from aitp_tasks.training import operators, packing, template
from aitp_tasks.training.examples import ExampleMaker
from aitp_tasks.training.job import Job

Messages = list[dict[str, str]]
REPOSITORY = Path(__file__).parents[3]
_SCHEMA = pa.schema([("input_ids", pa.list_(pa.int32())), ("labels", pa.list_(pa.int32()))])
#: Trains one job after the other, among ranks that have met once: libraries load slowly.
_RANKS = """
import sys
from pathlib import Path
from accelerate.state import AcceleratorState, GradientState, PartialState
from aitp_tasks.training import train
from aitp_tasks.training.job import Job
meet, done, trainer = train._meet, [], train._trainer
def told(job):
    made = trainer(job)
    (job.folder / "arguments.json").write_text(made.args.to_json_string())
    group = torch.distributed.distributed_c10d._get_default_group()
    seconds = group._get_backend(torch.device("cpu")).options._timeout.total_seconds()
    (job.folder / "patience.json").write_text(str(seconds))
    return made
train._trainer = told
train._meet = lambda job: done or done.append(meet(job) or True)
import torch
torch.distributed.destroy_process_group, destroy = lambda: None, torch.distributed.destroy_process_group
for path in sys.argv[1:]:
    job = Job.read(Path(path))
    for state in (AcceleratorState, GradientState, PartialState):
        state._reset_state()
    train.train(job)
destroy()
"""
#: Takes trackio's place, which the lock has no room for: it writes down what it is told.
_TRACKIO = """
import json, os
from contextvars import ContextVar
__version__ = "0.43.0"
config = {}
class context_vars:
    current_space_id = ContextVar("space", default=None)
def _tell(entry):
    with open(os.environ["TOLD"], "a") as told:
        told.write(json.dumps(entry) + chr(10))
def init(**values): _tell({"init": [values["project"], values["name"]]})
def log(values): _tell({"log": values})
def finish(): _tell({"finish": True})
"""


def tracker(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], list[dict[str, Any]]]:
    """Put the stand-in for trackio where it is imported from, here and in ranks; gives what it was told."""
    (folder / "trackio.py").write_text(_TRACKIO)
    monkeypatch.setenv("TOLD", str(folder / "told.jsonl"))
    monkeypatch.setenv("PYTHONPATH", str(folder))
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.delitem(sys.modules, "trackio", raising=False)
    monkeypatch.setitem(sys.modules, "trackio", importlib.import_module("trackio"))

    def told() -> list[dict[str, Any]]:
        path = folder / "told.jsonl"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    return told


def make_model(folder: Path, tokenizer: Path, dtype: str = "bfloat16", **changes: Any) -> Path:
    """A Llama of 16 dimensions, as a team would find it: with tied weights in one file, unless changed."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    settings = {
        "vocab_size": 49152,
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "tie_word_embeddings": True,
        "bos_token_id": 0,
        "eos_token_id": 0,
        "initializer_range": 0.3,
        **changes,
    }
    shards = settings.pop("max_shard_size", "5GB")
    model = LlamaForCausalLM(LlamaConfig(**settings)).to(getattr(torch, dtype))
    model.save_pretrained(folder, max_shard_size=shards)
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        shutil.copyfile(tokenizer / name, folder / name)
    return folder


def pairs(count: int) -> list[Messages]:
    """Conversations of different lengths."""
    return [
        [
            {"role": "user", "content": f"What is {number} and {number}?"},
            {"role": "assistant", "content": f"It is {2 * number}." + " Yes." * (number % 5)},
        ]
        for number in range(count)
    ]


def make_job(
    folder: Path,
    model: Path,
    conversations: Iterable[Messages],
    validated: Iterable[Messages] = (),
    **settings: Any,
) -> Job:
    """A job with its examples, and those that it is validated on, as the stage leaves it."""
    from transformers import AutoTokenizer

    folder.mkdir(parents=True)
    finetune = Finetune.model_validate(
        {
            "model": str(model),
            "batch_size": 2,
            "gradient_accumulation": 1,
            "max_length": 64,
            "learning_rate": 1e-2,
            **settings,
        }
    )
    tokenizer = AutoTokenizer.from_pretrained(model)
    templates = template.choose(tokenizer, finetune.chat_template)
    maker = ExampleMaker(tokenizer, templates.training, finetune.max_length)
    job = Job(folder=folder, finetune=finetune, templates=templates)
    for path, given in ((job.examples, conversations), (job.validation, validated)):
        made: list[Any] = [maker.make(messages) for messages in given]
        rows = [{"input_ids": example.input_ids, "labels": example.labels} for example in made]
        with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_stream(sink, _SCHEMA) as writer:
            writer.write_batch(pa.RecordBatch.from_pylist(rows, _SCHEMA))
    if finetune.packing:
        packing.pack(job.examples, job.packs, finetune.max_length, finetune.seed)
    job.write()
    return job


def start(jobs: Sequence[Job], **variables: str) -> list["subprocess.Popen[str]"]:
    """Start the ranks on these jobs, which have as many each."""
    ranks = jobs[0].finetune.processes
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(REPOSITORY), os.environ.get("PYTHONPATH", "")]),
        **{"WORLD_SIZE": str(ranks), "OMP_NUM_THREADS": "1"},
        **{"GLOO_SOCKET_IFNAME": "lo", "TOKENIZERS_PARALLELISM": "false"},
        **operators.environment(jobs[0].operators),
        **{"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1", **variables},
    }
    jobs[0].rendezvous.unlink(missing_ok=True)
    if not jobs[0].operators.exists():
        operators.provide(jobs[0].operators)
    return [
        subprocess.Popen(
            [sys.executable, "-c", _RANKS, *(str(job.file) for job in jobs)],
            env={**environment, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(ranks)
    ]


def finish(processes: Sequence["subprocess.Popen[str]"]) -> str:
    """Wait for ranks that should succeed; what they have printed."""
    printed = [process.communicate(timeout=300)[0] for process in processes]
    assert [process.returncode for process in processes] == [0] * len(processes), "\n".join(printed)
    return "\n".join(printed)


def train(jobs: Sequence[Job]) -> None:
    """Train them all."""
    finish(start(jobs))


def losses(job: Job) -> list[float]:
    """The loss of each step."""
    return [entry["loss"] for entry in json.loads(job.log_history.read_bytes()) if "loss" in entry]
