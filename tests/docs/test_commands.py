"""What is shown as a command is one: tests/e2e/test_documented_commands.py runs those that are not marked."""

import re
import subprocess
from pathlib import Path

import pytest

from tests.docs.console import REPOSITORY, Command, fences, pages, shown

PAGES = pytest.mark.parametrize("page", pages(), ids=lambda page: str(page.relative_to(REPOSITORY)))
SHELLS = {"sh", "bash", "shell", "zsh", "shell-session", "shellsession"}
PLACEHOLDER = re.compile(r"…|<\w[\w-]*( \w[\w-]*)*>|s3://your-bucket")
#: The targets that a test may run: they start nothing and change nothing.
HARMLESS_TARGETS = {"help", "lint", "types", "check", "docs"}


def run_by_a_test(page: Path) -> list[Command]:
    return [command for command in shown(page) if command.not_run is None]


@PAGES
def test_every_console_fence_holds_commands(page: Path) -> None:
    shown(page)


@PAGES
def test_commands_are_in_console_fences(page: Path) -> None:
    wrong = [fence.place for fence in fences(page) if fence.language in SHELLS]
    assert wrong == [], "write ```console, and '$ ' before each command"


@PAGES
def test_what_is_not_run_has_a_reason(page: Path) -> None:
    vague = [
        command for command in shown(page) if command.not_run is not None and len(command.not_run.split()) < 3
    ]
    assert vague == [], "say in three words or more why no test can run it"


@PAGES
def test_every_mark_stands_above_a_console_fence(page: Path) -> None:
    marked = [fence for fence in fences(page) if fence.language == "console" and "not run" in fence.above]
    assert len(re.findall("<!-- *not run", page.read_text())) == len(marked)
    assert [fence.place for fence in marked if not re.fullmatch("<!-- not run: .+ -->", fence.above)] == []


@PAGES
def test_commands_that_are_run_are_complete(page: Path) -> None:
    unfinished = [command for command in run_by_a_test(page) if PLACEHOLDER.search(command.text)]
    assert unfinished == [], "use $RUN, $CONFIG and $DOC_ID, or mark the fence as not run"


@PAGES
def test_commands_that_are_run_start_no_services(page: Path) -> None:
    targets = {
        target for command in run_by_a_test(page) for target in re.findall(r"\bmake +([\w-]+)", command.text)
    }
    assert targets <= HARMLESS_TARGETS, "mark the fence as not run"


@PAGES
def test_commands_that_are_run_are_bash(page: Path) -> None:
    for command in run_by_a_test(page):
        done = subprocess.run(["bash", "-n", "-c", command.text], capture_output=True, text=True)
        assert done.returncode == 0, f"{command.place}: {done.stderr}"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("```console\n$ a\n", "page.md:1: the fence is not closed"),
        ("x\n```console\nout\n$ a\n```\n", "page.md:2: 'out' comes before any command"),
        ("```console\n```\n", "no command"),
        ("```console\n$ a \\\n```\n", "does not end"),
    ],
)
def test_a_malformed_fence_is_named(tmp_path: Path, text: str, message: str) -> None:
    page = tmp_path / "page.md"
    page.write_text(text)
    with pytest.raises(ValueError, match=re.escape(message)):
        shown(page)


def test_commands_are_told_from_their_output(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "<!-- not run: needs a server -->\n```console\n$ a \\\n    b\n1 $ 2\n$ c\n```\n"
        "1. In a list:\n\n   ```console\n   $ d\n   out\n   ```\n\n````text\n```console\n$ e\n```\n````\n"
    )
    assert [(command.text, command.not_run) for command in shown(page)] == [
        ("a \\\n    b", "needs a server"),
        ("c", "needs a server"),
        ("d", None),
    ]
