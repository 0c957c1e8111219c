"""The text of an example: what the corpus is compared with."""

from collections.abc import Sequence

from aitp_tasks.config import SftText
from aitp_tasks.inputs.examples import Example, Rejection, Turn
from aitp_tasks.inputs.forms.values import blank
from aitp_tasks.inputs.paths import decode
from aitp_tasks.inputs.rows import Refusal


def text(example: Example, rule: SftText) -> str | Rejection | Refusal:
    """The text of an example, by the configured rule."""
    match rule:
        case SftText.FIRST_TURNS:
            found = first_turns(example.messages)
        case SftText.ALL_TURNS:
            found = _joined(example.messages, ("user", "assistant"))
        case SftText.USER_TURNS:
            found = _joined(example.messages, ("user",))
    if isinstance(found, Rejection):
        return found
    checked = decode(found.encode())
    if isinstance(checked, Refusal) and checked.error_class == "empty":
        return Rejection("no_text", f"the example's text has {checked.message}")
    return checked


def first_turns(messages: Sequence[Turn]) -> str | Rejection:
    """The paper's text of an example: the first user turn, newline, the first assistant turn after it.

    Of either the first that has text: a call of a tool is none, and where the answer is nothing but calls,
    the text is the question.
    """
    filled = iter([turn for turn in messages if not blank(turn["content"])])
    question: str | None = next((turn["content"] for turn in filled if turn["role"] == "user"), None)
    if question is None:
        return Rejection("no_user_turn", "the example has no user turn with text")
    answer = next((turn["content"] for turn in filled if turn["role"] == "assistant"), None)
    if answer is not None:
        return f"{question}\n{answer}"
    if any(turn.get("tool_calls") for turn in messages):
        return question
    return Rejection("no_answer", "the example has no assistant turn with text after the first user turn")


def of_pair(messages: Sequence[Turn], rule: SftText) -> str | Refusal:
    """The text of a pair, which has a question and an answer."""
    found = text(Example(list(messages)), rule)
    return Refusal(found.reason, found.message) if isinstance(found, Rejection) else found


def _joined(messages: Sequence[Turn], roles: tuple[str, ...]) -> str | Rejection:
    """All turns of these roles that have text, in order, joined by newlines."""
    texts = [turn["content"] for turn in messages if turn["role"] in roles and not blank(turn["content"])]
    return "\n".join(texts) or Rejection(
        "no_user_turn", f"the example has no {' or '.join(roles)} turn with text"
    )
