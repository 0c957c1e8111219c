"""A reasoning model's thinking, told apart from its response by one of vLLM's parsers.

Which tokens are thinking is the model's own form, so the parser is named in the
configuration. The engine lets the model think without the schema and enforces it
behind; here the same parser divides what came. Only the engine's process imports this.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Divided:
    """A generated text.

    Attributes:
        reasoning: the thinking; all of the text where it does not end.
        text: the response proper.
        tokens: of the response, at the end of those that were generated.
    """

    reasoning: str
    text: str
    tokens: int


class Reasoning:
    """Divides generated texts."""

    def __init__(self, name: str, tokenizer: Any, template_args: Mapping[str, Any]) -> None:
        """
        Args:
            name: of the parser.
            tokenizer: the model's.
            template_args: of the chat template; with some, a model does not think.

        Raises:
            ValueError: there is no such parser, or it is not for this model.
        """
        from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionRequest
        from vllm.reasoning import ReasoningParserManager

        try:
            kind = ReasoningParserManager.get_reasoning_parser(name)
            self._parser: Any = kind(tokenizer, chat_template_kwargs=dict(template_args))
        except (KeyError, RuntimeError, ValueError) as error:
            raise ValueError(f"engine.reasoning_parser={name} cannot be used: {error}") from None
        # Some look into the request that a server would have had.
        self._request = ChatCompletionRequest(messages=[])

    def divided(self, prompt: list[int], text: str, token_ids: list[int]) -> Divided:
        """What was generated behind a prompt, which may have ended the thinking itself.

        Args:
            prompt: its tokens.
            text: what was generated, special tokens included: the marks may be such.
            token_ids: the same as tokens.
        """
        if self._parser.is_reasoning_end(prompt):
            return Divided("", text, len(token_ids))
        reasoning, content = self._parser.extract_reasoning(text, self._request)
        tokens = len(self._parser.extract_content_ids(token_ids)) if content else 0
        return Divided(reasoning or "", content or "", tokens)


def require(name: str) -> None:
    """Make sure that vLLM has a parser.

    Raises:
        ValueError: it has none of this name.
    """
    from vllm.reasoning import ReasoningParserManager

    known = ReasoningParserManager.list_registered()
    if name not in known:
        raise ValueError(f"engine.reasoning_parser={name} is none of vLLM's: {', '.join(known)}")
