"""The page of failure messages, against messages that were really raised and against the sources as text."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from aitp_tasks.config import RunConfig
from aitp_tasks.errors import AitpError
from aitp_tasks.records.run import Run
from aitp_tasks.storage import open_storage
from aitp_tasks.tools.init import choice, written
from docs.from_code import messages
from tests.docs.console import REPOSITORY

PACKAGE = REPOSITORY / "aitp_tasks"
MESSAGES = messages.messages(PACKAGE)
#: Of damaged indexes, which whoever opens one follows up with what to delete; and what is tried again.
FOLLOWED_UP = ("vector_index/", "tools/indexes.py", "encoder/pipeline.py")
WITHOUT = {
    "key <key> leaves the storage root",
    "--keep <keep> and --older-than <days> must not be negative",
}


@pytest.mark.parametrize(
    "fails",
    [
        lambda: open_storage("ftp://somewhere"),
        lambda: Run.open("file:///x"),
        lambda: Run.open("file:///tmp/runs/news/0"),
        lambda: RunConfig.load(Path("/no/configuration.yaml")),
        lambda: choice.named("/no/model"),
        lambda: written.require_new(Path("/")),
        lambda: open_storage("file:///tmp").read("no/such/object"),
    ],
)
def test_what_is_raised_is_on_the_page(fails: Callable[[], object]) -> None:
    with pytest.raises(AitpError) as raised:
        fails()
    said = " ".join(str(raised.value).split())
    fitting = [message for message in MESSAGES if _pattern(message.text).fullmatch(said)]
    assert {message.code for message in fitting} == {raised.value.exit_code}
    assert any(len(re.sub("<[^<>]*>", "", message.text)) > 20 for message in fitting)


def _pattern(text: str) -> re.Pattern[str]:
    """What a message may look like once its names are filled in."""
    return re.compile(".*".join(map(re.escape, re.split("<[^<>]*>", text))), re.DOTALL)


def test_each_message_in_the_sources_is_there() -> None:
    """By the sources as text: whatever is raised with words of its own right behind the parenthesis."""
    raised = re.compile(r'raise (?:Input|Transient|BudgetExceeded)Error\(\s*f?"([^"{]{12,})')
    shown: dict[str, str] = {}
    for message in MESSAGES:
        shown[message.module] = shown.get(message.module, "") + message.text + "\n"
    missing = [
        (path.name, words)
        for path in PACKAGE.rglob("*.py")
        for words in raised.findall(path.read_text(encoding="utf-8"))
        if " ".join(words.split()) not in shown.get(path.relative_to(PACKAGE).as_posix(), "")
    ]
    assert missing == []
    assert len(MESSAGES) > 300


def test_every_message_has_a_remedy() -> None:
    """It stands behind a colon, a semicolon or a comma, as in all the others."""
    lacking = [
        f"{message.module}:{message.line}: {message.text}"
        for message in MESSAGES
        if not re.search("[:;,]", re.sub("<[^<>]*>", "", message.text))
        and not message.module.startswith(FOLLOWED_UP)
        and message.text not in WITHOUT
        and not message.text.endswith("changed while it was read")
    ]
    assert lacking == [], "say what to do about it"


def test_errors_are_known_by_what_they_derive_from(tmp_path: Path) -> None:
    (tmp_path / "errors.py").write_text(
        "class InputError(Exception): ...\nclass TransientError(Exception): ...\n"
        "class BudgetExceededError(Exception): ...\n"
    )
    (tmp_path / "config").mkdir()
    (tmp_path / "config/run.py").write_text("raise ValueError('dump is named twice: take one out')\n")
    (tmp_path / "room.py").write_text(
        "from aitp_tasks.errors import InputError, TransientError as Passing\n"
        "WHAT = 'the thing'\n"
        "class ChangedError(Passing): ...\n"
        "class UnreadableError(ValueError): ...\n"
        "def unfit(x):\n"
        "    return InputError(f'{WHAT} {x.y[0]:.1f} is ' + ('no use' if x else 'none') + ' | `go` on')\n"
        "raise ChangedError('changed: retry')\n"
        "raise ChangedError('changed: retry')\n"
        "raise UnreadableError('no failure of ours')\n"
        "raise ValueError('nor this')\n"
        "raise InputError(str(unfit))\n"
    )
    found = [(message.module, message.code, message.text) for message in messages.messages(tmp_path)]
    assert found == [
        ("config/run.py", 2, "dump is named twice: take one out"),
        ("room.py", 2, "the thing <y> is no use / none | `go` on"),
        ("room.py", 75, "changed: retry"),
    ]
    assert messages._code(found[1][2]) == "``the thing <y> is no use / none \\| `go` on``"


def test_a_placeholder_is_a_name_and_no_code() -> None:
    shown = [name for message in MESSAGES for name in re.findall("<([^<>]*)>", message.text)]
    assert [name for name in shown if re.search(r"[{}'\"()]", name)] == []
