"""The command as a whole: what it prints, what it ends with, and that nothing hides anything."""

import json
from pathlib import Path

import pytest
import yaml

from aitp_tasks.cli import parser
from aitp_tasks.errors import EXIT_CODE, ExitCode, InputError
from aitp_tasks.machine import devices
from aitp_tasks.tools import doctor
from aitp_tasks.tools.doctor import machine, stages, trials
from aitp_tasks.tools.doctor.finding import Finding, Level
from tests.aitp_tasks.conftest import Configure
from tests.aitp_tasks.test_cli import aitp


@pytest.fixture
def config_file(configure: Configure, tmp_path: Path) -> Path:
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(configure().model_dump(mode="json")))
    return path


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither stages nor trials: they have tests of their own."""
    monkeypatch.setattr(stages, "found", lambda _: [Finding("finetune", Level.OK, "fits")])
    monkeypatch.setattr(trials, "run", lambda config: [Finding("try embed", Level.OK, str(config is None))])


@pytest.mark.slow
@pytest.mark.side_by_side
def test_the_command_tells_a_program_all(config_file: Path) -> None:
    """Of this machine, by the real command."""
    told = aitp("doctor", "--no-trials", "--json", "--config", str(config_file), "--set", "engine.model=/no")
    assert told.returncode == ExitCode.BAD_INPUT
    result = json.loads(told.stdout)
    assert result["wrong"] == 1
    findings = {finding["about"]: finding for finding in result["findings"]}
    assert findings["rewrite, score, answer"]["level"] == "wrong"
    assert "model folder /no does not exist" in findings["rewrite, score, answer"]["says"]
    assert findings["finetune"]["level"] == "ok"
    # The table is for people.
    assert not told.stderr.startswith("ok ")


def test_a_configuration_that_cannot_be_read_hides_nothing(
    tmp_path: Path, quick: None, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "broken.yaml"
    path.write_text("root: s3://me:hidden@bucket\nroof: 1\n")
    result = doctor.execute(path, (), True, True)
    assert result[EXIT_CODE] is ExitCode.BAD_INPUT
    found = {finding["about"]: finding for finding in result["findings"]}
    assert found["configuration"]["level"] == "wrong"
    assert {"processors", "memory", "packages", "try embed"} <= found.keys()
    assert "hidden" not in json.dumps(result)
    assert capsys.readouterr().err == ""


def test_a_probe_that_breaks_hides_nothing(
    config_file: Path, quick: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken() -> None:
        raise RuntimeError("no /proc here")

    monkeypatch.setattr(machine, "memory_found", broken)
    result = doctor.execute(config_file)
    assert "findings" not in result
    shown = capsys.readouterr().err
    assert "wrong   memory" in shown
    assert "RuntimeError: no /proc here" in shown
    assert all(f"\nok      {about}" in shown for about in ("packages", "finetune", "try embed"))
    assert result["wrong"] == 1


@pytest.mark.parametrize(
    ("level", "code"),
    [(Level.NOTE, ExitCode.DONE), (Level.PASSING, ExitCode.TRANSIENT), (Level.WRONG, ExitCode.BAD_INPUT)],
)
def test_it_ends_by_the_worst(
    config_file: Path, quick: None, monkeypatch: pytest.MonkeyPatch, level: Level, code: ExitCode
) -> None:
    monkeypatch.setattr(doctor, "_looked_at", lambda _: [Finding("memory", level, "so")])
    assert doctor.execute(config_file)[EXIT_CODE] is code


def test_settings_without_a_configuration_are_refused() -> None:
    with pytest.raises(InputError, match=r"--set root=x is given without --config"):
        doctor.execute(None, ["root=x"])


def test_the_self_test_can_be_left_out() -> None:
    assert parser().parse_args(["doctor"]).trials
    assert not parser().parse_args(["doctor", "--no-trials"]).trials


@pytest.fixture(autouse=True)
def _demanded(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a configuration demands of devices is this test's own affair."""
    monkeypatch.setattr(devices, "_required", devices._required)
