"""``make compose-env``: what it writes, once, for its owner's eyes."""

from __future__ import annotations

import base64
import re
import stat
import subprocess
from pathlib import Path

import pytest
from dotenv import dotenv_values

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


@pytest.mark.parametrize(
    ("line", "counts"),
    [
        ("AITP_REDIS_PASSWORD=mine", True),
        ("AITP_REDIS_PASSWORD=mine # hers", True),
        ("AITP_REDIS_PASSWORD='mine'\r", True),
        ("\ufeffAITP_REDIS_PASSWORD=mine", True),
        ("AITP_REDIS_PASSWORD: mine", True),
        # The last one counts.
        ("AITP_REDIS_PASSWORD=\nAITP_REDIS_PASSWORD=mine", True),
        ("AITP_REDIS_PASSWORD=", False),
        ("AITP_REDIS_PASSWORD=''", False),
        ("AITP_REDIS_PASSWORD=mine\nAITP_REDIS_PASSWORD=", False),
        ("#AITP_REDIS_PASSWORD=mine", False),
    ],
)
def test_a_value_counts_that_compose_takes_for_one(tmp_path: Path, line: str, counts: bool) -> None:
    path = tmp_path / ".env"
    path.write_text(line, encoding="utf-8", newline="")
    assert ("AITP_REDIS_PASSWORD" not in complete(path)) == counts
    assert path.read_text(encoding="utf-8").replace("\r\n", "\n").startswith(line.replace("\r", ""))
    # By another reader; of a byte order mark and of colons, compose's own knows more.
    if "\ufeff" not in line and ": " not in line:
        read = dotenv_values(path)["AITP_REDIS_PASSWORD"] or ""
        assert read == "mine" if counts else len(read) > 20
    assert complete(path) == []


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("AITP_POSTGRES_PASSWORD=p@ss", "AITP_POSTGRES_PASSWORD stands in an address"),
        ("AITP_POSTGRES_PASSWORD='p%ss'", "AITP_POSTGRES_PASSWORD stands in an address"),
        ("AITP_POSTGRES_PASSWORD='$p'", "AITP_POSTGRES_PASSWORD stands in an address"),
        ('AITP_REDIS_PASSWORD="two words"', "AITP_REDIS_PASSWORD stands in an address"),
        ("AITP_ADMIN_PASSWORD=pa$word", "AITP_ADMIN_PASSWORD holds a .*single quotes"),
        ("AITP_ADMIN_PASSWORD='pa$word # \" ü'", None),
        ("AITP_ADMIN_PASSWORD=p@ss/w%d", None),
        ("MINE=$HOME", None),
    ],
)
def test_a_value_that_would_not_arrive_is_refused(tmp_path: Path, line: str, message: str | None) -> None:
    path = tmp_path / ".env"
    path.write_text(line + "\n", encoding="utf-8")
    if message is None:
        assert complete(path)
        return
    with pytest.raises(ValueError, match=message) as refused:
        complete(path)
    assert line.partition("=")[2].strip("'\"") not in str(refused.value)
    assert path.read_text(encoding="utf-8") == line + "\n"


def run(path: Path) -> subprocess.CompletedProcess[str]:
    """``docker/env.py`` as make starts it."""
    command = ["python3", REPOSITORY / "docker/env.py", path]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


def test_what_cannot_be_such_a_file_is_named_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "text").write_bytes(b"\xff")
    (tmp_path / "wrong").write_text("AITP_REDIS_PASSWORD=a b\n")
    said = {"text": "is no text in UTF-8", "wrong": "stands in an address", ".": "Is a directory"}
    for name, message in said.items():
        done = run(tmp_path / name)
        assert (done.returncode, done.stdout) == (1, "")
        assert message in done.stderr
        assert done.stderr.count("\n") == 1


def test_the_images_of_an_older_release_are_told_of(tmp_path: Path) -> None:
    path = tmp_path / ".env"
    assert "keeps" not in run(path).stdout
    path.write_text(path.read_text().replace(VALUES["AITP_VERSION"], "0.0.9"))
    release = VALUES["AITP_VERSION"]
    told = f"all there; it keeps AITP_VERSION=0.0.9, and this checkout is {release}: see Upgrade in "
    assert run(path).stdout.endswith(f"{told}docs/how-to/compose.md\n")
    assert "\n## Upgrade\n" in (REPOSITORY / "docs/how-to/compose.md").read_text()


def test_the_file_is_not_git_s_and_nothing_secret_is_printed(tmp_path: Path) -> None:
    ignored = subprocess.run(["git", "check-ignore", "-q", ".env"], cwd=REPOSITORY)
    assert ignored.returncode == 0
    done = run(tmp_path / "env")
    assert "AITP_JWT_SECRET" in done.stdout
    assert not [value for name, value in values(tmp_path / "env").items() if value in done.stdout]
