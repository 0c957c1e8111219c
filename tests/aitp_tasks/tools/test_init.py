"""What init writes is a configuration that plan takes on this machine; and what it refuses to do."""

import json
import logging
import os
import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml

from aitp_tasks.config import RunConfig
from aitp_tasks.errors import InputError
from aitp_tasks.forecast import toys
from aitp_tasks.machine import devices
from aitp_tasks.machine.gpus import Gpu
from aitp_tasks.stages import plan
from aitp_tasks.tools import init
from tests.aitp_tasks.conftest import MODELS, REPOSITORY, alpaca, write_shard
from tests.aitp_tasks.test_cli import aitp

DATA = REPOSITORY / ".aitp" / "data"


@pytest.fixture
def no_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("aitp_tasks.machine.gpus._installed", list)


@pytest.fixture
def output(tmp_path: Path) -> Path:
    return tmp_path / "mine.yaml"


@pytest.mark.slow
@pytest.mark.side_by_side
def test_what_it_writes_of_the_demos_data_is_planned_as_it_is(tmp_path: Path, output: Path) -> None:
    """The real command, and plan on what it has written."""
    for kind in ("corpus", "sft"):
        (tmp_path / "storage").mkdir(exist_ok=True)
        (tmp_path / "storage" / kind).symlink_to(DATA / kind)
    root = f"file://{tmp_path}/storage"
    done = aitp("init", "--root", root, "--output", str(output), "--dump", "wikipedia")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert (told["dump"], told["sft"], told["text_columns"]) == ("wikipedia", "alpaca", ["text"])
    config = RunConfig.load(output)
    assert config.engine.max_model_len == 4096
    result = plan.execute(config, check=True)
    assert result["documents"] > 0
    assert result["toy_settings"] == []


def test_the_file_says_what_its_settings_are_and_what_it_is_for(
    root: Path, output: Path, no_gpus: None
) -> None:
    init.execute(f"file://{root}", output)
    text = output.read_text()
    assert "  # Storage root\n" in text
    assert "  # Longest example\n" in text
    assert "without GPUs" in text
    assert "not for a dataset to train on" in text
    assert RunConfig.load(output).devices.require == "cpu"
    assert output.stat().st_mode & 0o777 == 0o666 & ~_umask()
    assert [path.name for path in output.parent.iterdir() if "unfinished" in path.name] == []


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def test_models_that_are_given_are_taken_as_they_are(root: Path, output: Path, no_gpus: None) -> None:
    small = MODELS / "SmolLM2-135M-Instruct"
    init.execute(
        *(f"file://{root}", output),
        dataset="nightly",
        encoder="s3://models/encoder",
        engine="org/rewriter@v2",
        finetune=os.path.relpath(small),
    )
    config = RunConfig.load(output)
    assert config.encoder.model == "s3://models/encoder"
    assert (config.engine.model, config.engine.revision) == ("org/rewriter", "v2")
    assert config.finetune.model == str(small.resolve())
    assert config.assemble.dataset == "nightly"
    # Settings for tiny models are of no use to one that somebody has chosen.
    assert config.prompts.sampling == {}
    assert config.gates.min_quality == 6
    # One that is empty is none.
    init.execute(f"file://{root}", output.with_name("other.yaml"), encoder="", engine="", finetune="")
    assert RunConfig.load(output.with_name("other.yaml")).engine.label.startswith("SmolLM2")


def test_on_gpus_its_configuration_holds_no_toy(
    root: Path, output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cards = [Gpu(f"GPU-{number}", number, "H100\n80GB: #1", 80 * 10**9) for number in range(8)]
    monkeypatch.setattr("aitp_tasks.machine.gpus._installed", lambda: cards)
    init.execute(f"file://{root}", output)
    config = RunConfig.load(output)
    assert config.devices.require == "gpu"
    assert (config.engine.model, config.engine.revision) == ("Qwen/Qwen2.5-32B-Instruct", "main")
    scale = toys.Scale(10**7, 10**12, 10**6, 32 * 10**9, 7 * 10**9, 8192)
    assert toys.found(config, scale) == []
    # A name with a line's end in it makes no line of its own.
    assert "8 × H100" in output.read_text().splitlines()[0]


@pytest.mark.parametrize(
    "name", ["two words.yaml", "ünï.yaml", "it's.yaml", "a\nsft: evil.yaml", "\udcff.yaml"]
)
def test_the_file_may_have_any_name(tmp_path: Path, root: Path, no_gpus: None, name: str) -> None:
    """Nothing of it becomes a setting, and the command that the file tells is one that a shell takes."""
    output = tmp_path / name
    init.execute(f"file://{root}", output)
    assert RunConfig.load(output).root == f"file://{root}"
    (line,) = [line for line in output.read_text().splitlines() if line.startswith("# Plan a run")]
    if name.isprintable():
        assert shlex.split(line)[-1] == name


@pytest.mark.parametrize("made", ["file", "folder", "link"])
def test_nothing_is_overwritten(root: Path, output: Path, no_gpus: None, made: str) -> None:
    {"file": output.touch, "folder": output.mkdir, "link": lambda: output.symlink_to("/nowhere")}[made]()
    before = output.lstat()
    with pytest.raises(InputError, match=r"mine.yaml is there, and init overwrites nothing"):
        init.execute(f"file://{root}", output)
    assert output.lstat() == before


def test_twice_is_once(root: Path, output: Path, no_gpus: None) -> None:
    init.execute(f"file://{root}", output)
    first = output.read_bytes()
    with pytest.raises(InputError, match="is there"):
        init.execute(f"file://{root}", output)
    assert output.read_bytes() == first
    assert yaml.safe_load(first)["dump"] == "news"


def test_a_file_needs_a_folder(root: Path, output: Path, no_gpus: None) -> None:
    with pytest.raises(InputError, match=r"is in no folder that exists: make .*/deep"):
        init.execute(f"file://{root}", output.parent / "deep" / "mine.yaml")


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ({"root": "s3://me:hidden@bucket"}, "root"),
        ({"encoder": "s3://me:hidden@bucket/model"}, "encoder"),
        ({"engine": "https://hidden@hub/model"}, "engine"),
    ],
)
def test_credentials_are_refused_and_not_repeated(
    root: Path, output: Path, no_gpus: None, given: dict[str, str], name: str
) -> None:
    arguments: dict[str, Any] = {"root": f"file://{root}"} | given
    with pytest.raises(InputError, match=f"--{name} holds credentials") as raised:
        init.execute(output=output, **arguments)
    assert "hidden" not in str(raised.value)
    assert not output.exists()


def test_a_name_that_no_configuration_takes_is_refused(root: Path, output: Path, no_gpus: None) -> None:
    with pytest.raises(InputError, match=r"assemble.dataset='two words': .*; correct it"):
        init.execute(f"file://{root}", output, dataset="two words")
    with pytest.raises(InputError, match="names one dump twice"):
        init.execute(f"file://{root}", output, dump="news+news")
    assert not output.exists()


def test_a_torch_that_cannot_use_the_gpus_is_named(
    root: Path, output: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("aitp_tasks.machine.gpus._installed", lambda: [Gpu("GPU-0", 0, "H100", 80 * 10**9)])
    monkeypatch.setattr(devices, "built_for_gpus", lambda: False)
    with caplog.at_level(logging.WARNING):
        init.execute(f"file://{root}", output)
    assert "torch is built for processors" in caplog.text


def test_a_column_with_texts_is_found(root: Path, output: Path, no_gpus: None) -> None:
    for shard in range(2):
        write_shard(root / f"corpus/news/news-{shard:05d}.parquet", [{"id": 1, "content": "Ports."}])
    assert init.execute(f"file://{root}", output)["text_columns"] == ["content"]
    write_shard(root / "sft/more/more.parquet", alpaca(2))
    with pytest.raises(InputError, match="holds 2 SFT sets, more, sums: name one by --sft"):
        init.execute(f"file://{root}", output.with_name("other.yaml"))
