"""The stage with real ranks: DeepSpeed, ZeRO 2, two processes on the processor."""

import base64
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from aitp_tasks.config import Finetune
from aitp_tasks.errors import BudgetExceededError, InputError
from aitp_tasks.machine.base_model import load_model
from aitp_tasks.records import published, tables
from aitp_tasks.stages import finetune
from aitp_tasks.training import launcher
from aitp_tasks.training.job import Job, Outcome
from aitp_tasks.training.template import ChatTemplates
from tests.aitp_tasks import tries
from tests.aitp_tasks.starters import STAGE, left_of

pytestmark = pytest.mark.slow

Messages = list[dict[str, str]]
_NO_TEMPLATES = ChatTemplates("", "", None, 0)
_REPOSITORY = Path(__file__).parents[3]


def _pairs(count: int) -> list[Messages]:
    return [
        [
            {"role": "user", "content": f"What is {i}+{i}?"},
            {"role": "assistant", "content": f"It is {2 * i}."},
        ]
        for i in range(count)
    ]


@contextmanager
def _listening(found: set[str]) -> Iterator[None]:
    """Collects the addresses that processes started meanwhile listen on."""
    stop = threading.Event()

    def look() -> None:
        while not stop.wait(0.5):
            for child in psutil.Process().children(recursive=True):
                try:
                    connections = child.net_connections(kind="inet")
                except psutil.Error:
                    continue
                found.update(c.laddr.ip for c in connections if c.status == psutil.CONN_LISTEN)

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def test_trains_commits_and_does_it_once(
    make_run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    empty = [{"role": "user", "content": "a"}, {"role": "assistant", "content": ""}]
    run = make_run([*_pairs(8), empty])
    addresses: set[str] = set()
    with _listening(addresses):
        result = finetune.execute(run, None)

    assert addresses <= {"127.0.0.1", "::1"}
    assert result["checkpoint"] == f"{run.storage.root}/models/aitp/v1"
    assert json.loads(json.dumps(result)) == result
    assert "step=2 of=2 loss=" in capfd.readouterr().err

    manifest = run.require_manifest("finetune")
    assert manifest.ledger.rows_in == 9
    assert manifest.ledger.rejected == {"empty_answer": 1}
    assert manifest.figures["steps"] == 2
    assert manifest.figures["examples"] == 8
    assert manifest.peak_memory_mb > 300
    history = json.loads(run.storage.read(manifest.output("log_history")))
    assert [entry["step"] for entry in history] == [1, 2]
    assert manifest.figures["train_loss_first"] == pytest.approx(history[0]["loss"], abs=1e-4)
    checkpoint = manifest.output("checkpoint")
    assert json.loads(run.storage.read(f"{checkpoint}/log_history.json")) == history
    card = run.storage.read(f"{checkpoint}/README.md").decode()
    identity = run.plan.finetune_identity
    assert f"- base model: `{Path(run.config.finetune.model).name}`, identity `{identity}`" in card
    assert "version `v1` of the dataset `aitp`" in card
    assert "- trained on 8 examples" in card
    assert "| `learning_rate` | 0.0001 |" in card
    assert str(Path(run.config.finetune.model).parent) not in card

    _check_checkpoint(run, manifest.output("checkpoint"), tmp_path / "checkpoint")
    assert _files(run, manifest.output("checkpoint")) == _files(run, manifest.output(published.ATTEMPT))

    monkeypatch.setattr(launcher, "run", pytest.fail)
    before = {info.key: info.etag for info in run.storage.list("")}
    assert finetune.execute(run, None) == result
    assert {info.key: info.etag for info in run.storage.list("")} == before


def _check_checkpoint(run: Any, key: str, folder: Path) -> None:
    folder.mkdir()
    for info in run.storage.list(f"{key}/"):
        assert not info.key.endswith((".bin", ".pt", ".pkl"))
        run.storage.download(info.key, folder / info.key.rpartition("/")[2])
    tokenizer = AutoTokenizer.from_pretrained(folder)
    base = AutoTokenizer.from_pretrained(run.config.finetune.model)
    assert tokenizer.chat_template == base.chat_template
    model = AutoModelForCausalLM.from_pretrained(folder)
    prompt = tokenizer.apply_chat_template(
        [{"role": "user", "content": "What is 3+3?"}],
        add_generation_prompt=True,
        return_dict=True,
        return_tensors="pt",
    )
    generated = model.generate(**prompt, max_new_tokens=8, do_sample=False)
    assert generated.shape[1] > prompt["input_ids"].shape[1]
    untrained = AutoModelForCausalLM.from_pretrained(run.config.finetune.model)
    name = "model.layers.0.self_attn.q_proj.weight"
    assert not model.get_parameter(name).equal(untrained.get_parameter(name))


def _files(run: Any, prefix: str) -> dict[str, bytes]:
    found = run.storage.list(f"{prefix}/")
    return {info.key.removeprefix(prefix): run.storage.read(info.key) for info in found}


#: Trains at once; each try's weights, and how many files they are in, are its own.
_TRAINED = """
from aitp_tasks.stages import finetune as stage
from aitp_tasks.training import launcher
from aitp_tasks.training.job import Outcome
def train(job):
    job.checkpoint.mkdir()
    for file in ["config.json", "tokenizer.json", f"model-{name}.safetensors"]:
        (job.checkpoint / file).write_text(name * 1000)
    job.log_history.write_text("[]")
    return Outcome(steps=1, train_loss_first=1.0, train_loss_last=1.0)
launcher.run = train
"""


def _names(run: Any) -> set[str]:
    return {name for name in _files(run, "models/aitp/v1") if name}


def test_of_two_tries_one_is_the_checkpoint_whichever_dies_where(
    make_run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_run(_pairs(2))
    with tries.racing(run.uri, tmp_path / "tries", _TRAINED) as (left, right):
        left.reach("commit")
        right.reach("commit")
        assert _names(run) == set()
        left.leave("commit", "committed")
        left.reach("copied")
        # A checkpoint that is half there is none to any library.
        assert "/config.json" not in _names(run)
        left.kill()
        right.leave("commit")
        right.reach("committed")
    manifest = run.require_manifest("finetune")
    committed = _files(run, manifest.output(published.ATTEMPT))
    monkeypatch.setattr(launcher, "run", pytest.fail)
    result = finetune.execute(run, None)
    assert result["checkpoint"] == f"{run.storage.root}/models/aitp/v1"
    made = {"/config.json", "/tokenizer.json", "/model-left.safetensors"}
    beside = {"/README.md", "/log_history.json", "/runs/events.out.tfevents.training"}
    assert set(committed) == made | beside
    assert {committed[name] for name in made} == {b"left" * 1000}
    assert _files(run, "models/aitp/v1") == committed


def test_it_trains_on_what_was_committed(
    make_run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_run(_pairs(2))
    done = run.require_manifest("assemble")
    attempt = published.attempt(run, "assemble")
    run.storage.copy(done.output("parquet"), f"{attempt}/data.parquet")
    # The fixed name is not there yet.
    Path(f"{run.storage.root}/{done.output('parquet')}".removeprefix("file://")).unlink()
    outputs = done.outputs | {published.ATTEMPT: attempt}
    run.storage.write(
        run.manifest_key("assemble"), done.model_copy(update={"outputs": outputs}).model_dump_json().encode()
    )
    asked: list[int] = []

    def train(job: Job) -> Outcome:
        asked.append(job.examples.stat().st_size)
        job.checkpoint.mkdir()
        job.log_history.write_text("[]")
        (job.checkpoint / "config.json").write_text("{}")
        return Outcome(steps=1, train_loss_first=1.0, train_loss_last=1.0)

    monkeypatch.setattr(launcher, "run", train)
    finetune.execute(run, None)
    assert asked


def test_ranks_end_with_a_killed_stage(make_run: Any, tmp_path: Path) -> None:
    run = make_run(_pairs(8), max_steps=100_000)
    code = (
        "import sys; from aitp_tasks.stages import finetune; from aitp_tasks.records.run import Run; "
        "finetune.execute(Run.open(sys.argv[1]), None)"
    )
    environment = {**os.environ, "PYTHONPATH": str(_REPOSITORY), "TMPDIR": str(tmp_path)}
    stage = subprocess.Popen(
        [sys.executable, "-c", code, run.uri], env=environment, stderr=subprocess.PIPE, text=True
    )
    assert stage.stderr is not None
    for line in stage.stderr:
        if line.startswith("step=1 "):
            break
    tree = psutil.Process(stage.pid).children(recursive=True)
    groups = {os.getpgid(child.pid) for child in tree}
    assert len(tree) >= 3
    assert groups == {os.getpgid(0)}
    stage.send_signal(signal.SIGKILL)
    stage.wait()
    _, alive = psutil.wait_procs(tree, timeout=15)
    assert not alive
    stage.stderr.close()
    assert run.find_manifest("finetune") is None


def test_ranks_end_with_who_started_their_stage(make_run: Any, tmp_path: Path) -> None:
    run = make_run(_pairs(8), max_steps=100_000)
    code = STAGE + (
        "import sys; from aitp_tasks.stages import finetune; from aitp_tasks.records.run import Run; "
        "finetune.execute(Run.open(sys.argv[1]), None)"
    )
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    # The stage, the launcher, and two ranks.
    assert left_of(code, run.uri, ready="step=1 ", at_least=4, scratch=scratch) == ""
    assert list(scratch.iterdir()) == []
    assert run.find_manifest("finetune") is None


def test_sigterm_leaves_nothing_behind(smollm2: Path, tmp_path: Path) -> None:
    code = (
        "import sys, pathlib, tempfile\n"
        "from aitp_tasks.config import Finetune\n"
        "from aitp_tasks.training import launcher\n"
        "from aitp_tasks.training.job import Job\n"
        "from aitp_tasks.training.template import ChatTemplates\n"
        "with tempfile.TemporaryDirectory() as folder:\n"
        "    job = Job(folder=folder, finetune=Finetune(model=sys.argv[1]),\n"
        "              templates=ChatTemplates('', '', None, 0))\n"
        "    print(flush=True)\n"
        "    launcher.run(job)\n"
    )
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    environment = {**os.environ, "PYTHONPATH": str(_REPOSITORY), "TMPDIR": str(scratch)}
    stage = subprocess.Popen(
        [sys.executable, "-c", code, str(smollm2)], env=environment, stdout=subprocess.PIPE
    )
    assert stage.stdout is not None
    stage.stdout.readline()
    deadline = time.monotonic() + 20
    while not (tree := psutil.Process(stage.pid).children(recursive=True)):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    stage.terminate()
    assert stage.wait(30) == 75
    stage.stdout.close()
    _, alive = psutil.wait_procs(tree, timeout=5)
    assert not alive
    assert not list(scratch.iterdir())


def test_a_missing_model_is_bad_input(make_run: Any, tmp_path: Path) -> None:
    run = make_run(_pairs(1), model=str(tmp_path / "nowhere"))
    with pytest.raises(InputError, match=r"nowhere does not exist: run the setup"):
        finetune.execute(run, None)


def test_a_folder_that_is_no_model_is_bad_input(make_run: Any, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    run = make_run(_pairs(1), model=str(tmp_path / "empty"))
    with pytest.raises(InputError, match="cannot be loaded"):
        finetune.execute(run, None)


def test_broken_weights_are_bad_input(smollm2: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    broken.mkdir()
    for path in smollm2.iterdir():
        if path.suffix != ".safetensors":
            (broken / path.name).write_bytes(path.read_bytes())
    (broken / "model.safetensors").write_bytes(b"no weights")
    with pytest.raises(InputError, match="broken cannot be loaded"):
        load_model(Finetune(model=str(broken)), torch.float32)


def test_losses_are_means_over_a_quarter_of_the_steps() -> None:
    outcome = Outcome.of([4.0, 3.0, 9.0, 9.0, 9.0, 9.0, 2.0, 1.0])
    assert (outcome.steps, outcome.train_loss_first, outcome.train_loss_last) == (8, 3.5, 1.5)
    assert Outcome.of([2.0]) == Outcome(steps=1, train_loss_first=2.0, train_loss_last=2.0)


def test_what_a_rank_says_reaches_the_stage(smollm2: Path, tmp_path: Path) -> None:
    job = Job(folder=tmp_path, finetune=Finetune(model=str(smollm2)), templates=_NO_TEMPLATES)
    assert job.failure() is None
    job.leave_failure(InputError("the loss is nan"))
    failure = job.failure()
    assert isinstance(failure, InputError)
    assert str(failure) == "the loss is nan"


def test_nothing_to_train_on_is_bad_input(make_run: Any) -> None:
    run = make_run([[{"role": "user", "content": "a"}]])
    with pytest.raises(InputError, match="none of the 1 rows"):
        finetune.execute(run, None)


def test_a_set_of_tool_calls_and_a_template_without_names_the_template(make_run: Any) -> None:
    call = {"type": "function", "function": {"name": "f", "arguments": {}}}
    turns = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "", "tool_calls": [call]}]
    with pytest.raises(
        InputError, match="'tools_not_in_chat_template': 1.*: set finetune.chat_template to one"
    ):
        finetune.execute(make_run([turns]), None)


def test_refused_rows_are_quarantined_and_budgeted(make_run: Any, tmp_path: Path) -> None:
    path = tmp_path / "t.jinja"
    path.write_text(
        "{% if messages | length == 1 %}{{ raise_exception('too short') }}{% endif %}{% for m in messages %}"
        "{{ m['role'] }}{% generation %}{{ m['content'] + '<|im_end|>' }}{% endgeneration %}{% endfor %}"
    )
    run = make_run([[{"role": "assistant", "content": "a"}], *_pairs(1)], chat_template=str(path))
    with pytest.raises(BudgetExceededError, match="1 of 2 rows quarantined"):
        finetune.execute(run, None)
    (key,) = (info.key for info in run.storage.list(run.key("finetune", "quarantine")))
    assert tables.read(run.storage, key).to_pylist() == [
        {"id": "row 0", "error_class": "refused_by_chat_template", "message": "TemplateError: too short"}
    ]


@pytest.mark.parametrize(
    ("gpus", "devices", "order"),
    [
        pytest.param((), [0, 1], None, id="processor"),
        pytest.param((3, 5), [3, 5], "PCI_BUS_ID", id="leased GPUs"),
        pytest.param(("MIG-30e5a",), ["MIG-30e5a"], "PCI_BUS_ID", id="a leased slice"),
    ],
)
def test_the_ranks_get_the_leased_gpus(
    gpus: tuple[int | str, ...], devices: list[int | str], order: str | None, smollm2: Path, tmp_path: Path
) -> None:
    job = Job(
        folder=tmp_path,
        finetune=Finetune(model=str(smollm2), processes=2),
        gpus=gpus,
        templates=_NO_TEMPLATES,
    )
    assert json.loads(base64.urlsafe_b64decode(launcher._machines(job))) == {"machine-0": devices}
    assert launcher._environment(job).get("CUDA_DEVICE_ORDER") == order
