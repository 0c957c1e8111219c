"""An SFT example as every form is read: turns in order, and the tools that they may call."""

from dataclasses import dataclass, field
from typing import Any

#: ``role`` (one of ``ROLES``) and ``content`` (a text); where the input has them also ``reasoning_content``,
#: ``name``, ``tool_call_id`` (texts), ``weight`` (0 or 1) and ``tool_calls``, OpenAI's objects with
#: ``arguments`` as an object.
Turn = dict[str, Any]
ROLES = ("system", "developer", "user", "assistant", "tool")


@dataclass(frozen=True)
class Example:
    """One example of an SFT set.

    Attributes:
        messages: its turns, in order.
        tools: definitions of the tools that they may call, as the set gives them.
        form: the form that it came in.
        not_kept: names of columns and of turns' keys that held something else.
    """

    messages: list[Turn]
    tools: list[dict[str, Any]] = field(default_factory=list)
    form: str = field(default="", compare=False)
    not_kept: tuple[str, ...] = field(default=(), compare=False)


@dataclass(frozen=True)
class Rejection:
    """Why a sound row gives nothing to learn from or to compare: it is counted, and costs no budget."""

    reason: str
    message: str
