"""What the doctor finds: one line about one thing, how bad it is, and what to do."""

import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from enum import IntEnum
from typing import Any

from aitp_tasks.config.file import masked
from aitp_tasks.errors import ExitCode
from aitp_tasks.tools.terminal import printable

#: Names of variables whose values nothing repeats; shorter ones could be part of any word.
_SECRET = re.compile("KEY|SECRET|TOKEN|PASSWORD|CREDENTIAL", re.IGNORECASE)
_SECRET_CHARACTERS = 6
_CHARACTERS = 600


class Level(IntEnum):
    """How bad it is, the least first."""

    OK = 0
    #: Works, but slower, or not for all that one might want.
    NOTE = 1
    #: May be gone the next time.
    PASSING = 2
    #: Stays until somebody does something.
    WRONG = 3


_CODES = {Level.PASSING: ExitCode.TRANSIENT, Level.WRONG: ExitCode.BAD_INPUT}


@dataclass(frozen=True)
class Finding:
    """One line of the doctor's.

    Attributes:
        about: what it is about, in a word or two.
        says: what was found.
        remedy: what to do; empty where nothing is to be done.
        seconds: that it took to find out.
    """

    about: str
    level: Level
    says: str
    remedy: str = ""
    seconds: float = 0.0

    def timed(self, seconds: float) -> "Finding":
        """The same, with the time that it took."""
        return replace(self, seconds=round(seconds, 2))

    def told(self) -> dict[str, Any]:
        """As JSON, without secrets."""
        return {
            **asdict(self),
            "level": self.level.name.lower(),
            "says": _safe(self.says),
            "remedy": _safe(self.remedy),
        }


def exit_code(findings: Iterable[Finding]) -> ExitCode:
    """By the worst finding."""
    worst = max((finding.level for finding in findings), default=Level.OK)
    return _CODES.get(worst, ExitCode.DONE)


def table(findings: Sequence[Finding]) -> str:
    """All findings as a person reads them."""
    width = max((len(finding.about) for finding in findings), default=0)
    lines = []
    for finding in findings:
        told = finding.told()
        took = f" ({finding.seconds:.1f} s)" if finding.seconds >= 0.1 else ""
        lines.append(f"{told['level']:<8}{finding.about:<{width}}  {told['says']}{took}")
        if told["remedy"]:
            lines.append(f"{'':<{8 + width}}  → {told['remedy']}")
    return "\n".join(lines) + "\n"


def _safe(text: str) -> str:
    """A text in one line, without what URLs say of a user, and without what variables hold of secrets."""
    text = masked(" ".join(text.split()))
    for name, value in os.environ.items():
        if _SECRET.search(name) and len(value) >= _SECRET_CHARACTERS:
            text = text.replace(value, "…")
    return printable(text, _CHARACTERS)
