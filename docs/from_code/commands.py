"""The reference of all commands, from the command line's own parser."""

import argparse
import inspect
import re
from collections.abc import Iterable, Iterator

from aitp_tasks import cli
from aitp_tasks.errors import ExitCode
from aitp_tasks.stages import STAGES

_TOP = """\
<!-- Written by `make docs`: change aitp_tasks/cli.py, stages/__init__.py, tools/__init__.py or errors.py. -->

# Commands
"""
_HIDDEN = (argparse._HelpAction, argparse._SubParsersAction)


def page() -> str:
    """One section for each command, in the order of the story, and the exit codes."""
    parser = cli.parser()
    commands = _commands(parser)
    stages = {stage.name for stage in STAGES}
    lines = [
        _TOP,
        _docstring(cli),
        *_arguments(parser),
        "## The stages, in order\n",
        *_described(command for name, command in commands.items() if name in stages),
        "## Beside the stages\n",
        *_described(command for name, command in commands.items() if name not in stages),
        "## Exit codes\n",
        _docstring(ExitCode),
        "| code | meaning |",
        "|---|---|",
        *(f"| {code.value} | {meaning} |" for code, meaning in _exit_codes()),
        "\nAfter any other code (a crash, a signal) a retry may help.\n",
    ]
    return "\n".join(lines)


def _commands(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    (action,) = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    commands: dict[str, argparse.ArgumentParser] = action.choices
    return commands


def _docstring(thing: object) -> str:
    return (inspect.getdoc(thing) or "").replace("``", "`") + "\n"


def _described(commands: Iterable[argparse.ArgumentParser]) -> Iterator[str]:
    for command in commands:
        name = command.prog.partition(" ")[2]
        if any(isinstance(action, argparse._SubParsersAction) for action in command._actions):
            yield f"### {name}\n\n{_sentence(command.description)}\n"
            yield from _described(_commands(command).values())
            continue
        # Not argparse's own: that depends on the terminal's width and Python's version.
        usage = " ".join([command.prog, *(_usage(action) for action in _shown(command))])
        yield f"### {name}\n\n{_sentence(command.description)}\n\n```text\n{usage}\n```\n"
        yield from _arguments(command)


def _arguments(parser: argparse.ArgumentParser) -> Iterator[str]:
    actions = _shown(parser)
    if not actions:
        return
    yield from ("| argument | given | meaning |", "|---|---|---|")
    for action in actions:
        given = "always" if action.required else "any number of times" if _repeats(action) else "if wanted"
        meaning = _sentence((action.help or "") % {**vars(action), "prog": parser.prog})
        yield f"| `{_signature(action, ', ')}` | {given} | {meaning} |"
    yield ""


def _shown(parser: argparse.ArgumentParser) -> list[argparse.Action]:
    return [action for action in parser._actions if not isinstance(action, _HIDDEN)]


def _usage(action: argparse.Action) -> str:
    signature = _signature(action, " | ") + (" ..." if _repeats(action) else "")
    return signature if action.required else f"[{signature}]"


def _signature(action: argparse.Action, separator: str) -> str:
    """An argument with what follows it: ``--run URI``, ``{check,show,try}``."""
    choices = "{" + ",".join(map(str, action.choices)) + "}" if action.choices else ""
    if not action.option_strings:
        return choices or str(action.metavar or action.dest)
    value = "" if action.nargs == 0 else f" {action.metavar or choices or action.dest.upper()}"
    return separator.join(action.option_strings) + value


def _repeats(action: argparse.Action) -> bool:
    return isinstance(action, argparse._AppendAction)


def _exit_codes() -> Iterator[tuple[ExitCode, str]]:
    """Each code with the ``#:`` comment above it, or else its name."""
    source = inspect.getsource(ExitCode)
    for code in ExitCode:
        comment = re.search(rf"((?: *#: .*\n)*) *{code.name} = ", source)
        words = " ".join(re.findall("#: (.*)", comment[1])) if comment else ""
        yield code, words or _sentence(code.name.lower())


def _sentence(words: str | None) -> str:
    return f"{words[0].upper()}{words[1:].rstrip('.')}." if words else ""
