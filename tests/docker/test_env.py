"""``make compose-env``: what it writes, once, for its owner's eyes."""

from __future__ import annotations

import base64
import re
import stat
import subprocess
from pathlib import Path

from demo.services import REPOSITORY
from tests.docker.values import ENV, VALUES

complete = ENV["complete"]


def values(path: Path) -> dict[str, str]:
    """The variables of a file."""
    return dict(line.split("=", 1) for line in path.read_text().splitlines() if "=" in line)


def test_each_value_is_another_one_and_needs_no_quotes() -> None:
    again = {name: make() for name, make in ENV["VALUES"].items()}
    secret = [name for name in VALUES if name != "AITP_VERSION"]
    assert len({VALUES[name] for name in secret} | {again[name] for name in secret}) == 2 * len(secret)
    assert all(re.fullmatch(r"[\w.=-]{16,}", VALUES[name]) for name in secret)
    assert len(base64.urlsafe_b64decode(VALUES["AITP_FERNET_KEY"])) == 32
    assert f'version = "{VALUES["AITP_VERSION"]}"' in (REPOSITORY / "pyproject.toml").read_text()


def test_what_is_there_stays_and_what_lacks_is_added(tmp_path: Path) -> None:
    path = tmp_path / ".env"
    assert set(complete(path)) == VALUES.keys()
    first = values(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert complete(path) == []
    assert values(path) == first
    lines = [line for line in path.read_text().splitlines() if not line.startswith("AITP_JWT_SECRET")]
    # As an earlier release has written it, and by hand: no end of the last line, open to others.
    path.write_text("\n".join([*lines, "# mine", "export AITP_PORT=8081", "  AITP_CONFIG = mine.yaml"]))
    path.chmod(0o644)
    assert complete(path) == ["AITP_JWT_SECRET"]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    kept = {name: value for name, value in first.items() if name != "AITP_JWT_SECRET"}
    assert {name: values(path)[name] for name in kept} == kept
    assert path.read_text().splitlines()[-1].startswith("AITP_JWT_SECRET=")


def test_the_file_is_not_git_s_and_nothing_secret_is_printed(tmp_path: Path) -> None:
    ignored = subprocess.run(["git", "check-ignore", "-q", ".env"], cwd=REPOSITORY)
    assert ignored.returncode == 0
    script = REPOSITORY / "docker/env.py"
    done = subprocess.run(
        ["python3", script, tmp_path / "env"], capture_output=True, text=True, check=True, timeout=60
    )
    assert "AITP_JWT_SECRET" in done.stdout
    assert not [value for name, value in values(tmp_path / "env").items() if value in done.stdout]
