"""The file is there as a whole or not at all, and reads back as what was written."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from aitp_tasks.config import RunConfig
from aitp_tasks.errors import InputError
from aitp_tasks.tools.init import written
from tests.aitp_tasks.conftest import Configure


def test_every_value_reads_back_as_it_is(configure: Configure, tmp_path: Path) -> None:
    config = configure(
        text_columns=["a: b", "#c", "conversations[0].value"],
        prompts={"folder": "/with ' and \" and #", "sampling": {"max_tokens": 256}},
        finetune={"model": "/m", "lora": {}, "max_length": 4096, "report_to": []},
        assemble={"dataset": "no", "max_rewritten_share": 1.0},
    )
    values = config.model_dump(mode="json")
    text = written.text(values, ["one", "two"], {"engine.model": "Because."})
    assert text.startswith("# one\n# two\nroot: ")
    assert "  # Because.\n  model: " in text
    path = tmp_path / "mine.yaml"
    written.write(path, text)
    assert RunConfig.load(path) == config


def test_the_file_is_utf_8_wherever_it_is_written(configure: Configure, tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    script = (
        "import pathlib, sys; from aitp_tasks.tools.init import written\n"
        "written.write(pathlib.Path(sys.argv[1]), sys.stdin.buffer.read().decode())"
    )
    text = written.text(configure().model_dump(mode="json"), ["8 × cärds"], {})
    environment = {**os.environ, "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "LC_ALL": "C"}
    subprocess.run([sys.executable, "-c", script, path], input=text.encode(), check=True, env=environment)
    assert path.read_bytes() == text.encode()


def test_what_is_no_configuration_is_not_left(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    with pytest.raises(InputError, match="root is missing"):
        written.write(path, "dump: news\n")
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_comes_in_between_stays(configure: Configure, tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    written.require_new(path)
    path.write_text("another's")
    with pytest.raises(InputError, match="is there"):
        written.write(path, written.text(configure().model_dump(mode="json"), [], {}))
    assert path.read_text() == "another's"
    assert list(tmp_path.glob("*unfinished*")) + list(tmp_path.glob(".*")) == []


def test_a_folder_that_cannot_be_written_is_named() -> None:
    # Not even root may make a file there.
    with pytest.raises(InputError, match="/proc/self.*cannot be written"):
        written.write(Path("/proc/self/mine.yaml"), "")
