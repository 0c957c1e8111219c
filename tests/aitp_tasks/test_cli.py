"""The contract, as another process sees it: standard output, standard error, exit code."""

import json
import logging
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from aitp_tasks import cli
from aitp_tasks.cli import STAGES
from tests.aitp_tasks.conftest import Configure


def aitp(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    program = Path(sys.executable).with_name("aitp")
    return subprocess.run(
        [program, *arguments], capture_output=True, text=True, timeout=300, env=os.environ | environment
    )


@pytest.fixture
def config_file(configure: Configure, tmp_path: Path) -> str:
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(configure().model_dump(mode="json")))
    return str(path)


def test_help_explains_the_stages_in_order() -> None:
    text = aitp("--help").stdout
    places = [text.index(f"  {stage.name} ") for stage in STAGES]
    assert places == sorted(places)
    assert [stage.name for stage in STAGES] == [
        "plan", "embed", "merge", "density", "index", "difference", "allocate", "rewrite", "score", "answer",
        "assemble", "finetune", "evaluate", "promote", "report",
    ]  # fmt: skip
    assert "75 transient" in text


def test_a_stage_prints_one_small_json_line(config_file: str) -> None:
    done = aitp("plan", "--config", config_file)
    assert done.returncode == 0
    result = json.loads(done.stdout)
    assert done.stdout.count("\n") == 1
    assert len(done.stdout) < 1000
    embedded = aitp("embed", "--run", result["run"], "--unit", "0")
    assert json.loads(embedded.stdout)["rows_out"] == 12
    assert "shards_done=2" in embedded.stderr


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("dump=olds", "error: file:///.*/corpus/olds/ holds no objects"),
        ("difference.tau=0", "error: .*difference.tau=0"),
        ("encoder.model=/no/model", "error: model folder /no/model does not exist"),
    ],
)
def test_wrong_input_exits_2_with_one_line(config_file: str, override: str, message: str) -> None:
    done = aitp("plan", "--config", config_file, "--set", override)
    assert (done.returncode, done.stdout) == (2, "")
    assert re.search(message, done.stderr.splitlines()[-1])
    assert "Traceback" not in done.stderr


def test_a_wrong_command_line_exits_2() -> None:
    assert aitp("embed", "--unit", "0").returncode == 2
    assert aitp("dance").returncode == 2


def test_an_unreachable_store_exits_75_and_hides_the_secret(config_file: str) -> None:
    done = aitp(
        "plan", "--config", config_file, "--set", "root=s3://bucket",
        AWS_ENDPOINT_URL="http://127.0.0.1:9", AWS_ACCESS_KEY_ID="key", AWS_SECRET_ACCESS_KEY="hidden-secret",
        AWS_DEFAULT_REGION="us-east-1",
    )  # fmt: skip
    assert done.returncode == 75
    assert "127.0.0.1:9" in done.stderr
    assert "hidden-secret" not in done.stderr + done.stdout


def test_work_that_needs_a_gpu_fails_at_once_without_one_and_goes_on_when_it_does_not(
    config_file: str,
) -> None:
    hidden = {"CUDA_VISIBLE_DEVICES": ""}
    needs = json.loads(aitp("plan", "--config", config_file, "--set", "devices.require=gpu", **hidden).stdout)
    done = aitp("embed", "--run", needs["run"], "--unit", "0", **hidden)
    assert (done.returncode, done.stdout) == (2, "")
    assert re.search("error: .* to work on a GPU .* sees none: .* set devices.require to cpu", done.stderr)
    again = json.loads(aitp("plan", "--config", config_file, "--set", "devices.require=cpu").stdout)
    assert again["run"] == needs["run"]
    assert aitp("embed", "--run", again["run"], "--unit", "0", **hidden).returncode == 0


def test_a_unit_that_does_not_exist_is_named(config_file: str) -> None:
    run = json.loads(aitp("plan", "--config", config_file).stdout)["run"]
    done = aitp("embed", "--run", run, "--unit", "7")
    assert done.returncode == 2
    assert "unit 7 does not exist: the plan has units 0 to 1" in done.stderr


def test_a_silent_stage_says_that_it_is_at_work(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(cli, "_SILENT_SECONDS", 0.3)
    with caplog.at_level(logging.INFO):
        cli._say_so_when_nothing_is_said()
        deadline = time.monotonic() + 10
        while "at work seconds=" not in caplog.text and time.monotonic() < deadline:
            time.sleep(0.05)
    assert "at work seconds=" in caplog.text
    assert "peak_memory_mb=" in caplog.text
