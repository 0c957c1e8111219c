"""What models answer to held-out questions, to be read side by side: always the likeliest token.

Questions are rendered as training renders them, up to where an answer begins, so that all
models read the same tokens: the base too, whether or not it has a chat template. An answer
ends with the turn, with what the model itself ends by, or after so many tokens.
"""

import json
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from aitp_tasks.errors import TransientError
from aitp_tasks.records import conversations
from aitp_tasks.records.held_out import PAIRS, SFT
from aitp_tasks.training.examples import ExampleMaker, LeftOut, answered_turn

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

#: How an answer has ended.
STOP, LENGTH = "stop", "length"
#: Questions that are answered at once.
_BATCH = 8


@dataclass(frozen=True)
class Question:
    """One held-out question.

    Attributes:
        set: which of the held-out sets it is of.
        id: within that.
        text: the turns before the answer.
        reference: the answer that is held out.
        prompt: token ids up to where an answer begins; empty where it is not asked.
        left: the reason why it is not asked; empty where it is.
    """

    set: str
    id: str
    text: str
    reference: str
    prompt: tuple[int, ...] = ()
    left: str = ""


@dataclass(frozen=True)
class Answer:
    """What a model says: how it has ended, and after how many tokens, the end not counted."""

    text: str
    finish: str
    tokens: int


def choose(
    sets: Mapping[str, Iterable[Mapping[str, Any]]], maker: ExampleMaker, count: int, most: int
) -> list[Question]:
    """So many questions, half of them of SFT examples and half of pairs, or all that there are.

    Args:
        sets: rows with ``id``, ``messages`` and perhaps ``tools``, by the names of ``records.held_out``, in
            the order of their hashes: so they are the same ones every time.
        maker: of the training's examples.
        count: of both sets together.
        most: tokens that a question may have.
    """
    shares = {SFT: count - count // 2, PAIRS: count // 2}
    return [
        _question(name, row, maker, most) for name, share in shares.items() for row in [*sets[name]][:share]
    ]


def left(questions: Iterable[Question]) -> dict[str, int]:
    """Why questions are not asked, and how many."""
    return dict(sorted(Counter(question.left for question in questions if question.left).items()))


def room(config: "PretrainedConfig", max_length: int, tokens: int) -> int:
    """Tokens that a question may have: no more than training takes, nor than leave an answer its places.

    Args:
        config: of the model.
        max_length: of the training.
        tokens: of an answer.
    """
    places = getattr(config.get_text_config(), "max_position_embeddings", None)
    return max_length - 1 if places is None else min(max_length - 1, places - tokens)


def of_model(
    model: "PreTrainedModel",
    tokenizer: "PreTrainedTokenizerBase",
    questions: Sequence[Question],
    turn_end: int,
    tokens: int,
) -> list[Answer | None]:
    """The answer to each question; None to those that are not asked.

    Args:
        tokenizer: of the base, by which the prompts were made.
        turn_end: by which an answer ends, beside what the model's own configuration says.
        tokens: of an answer at most.

    Raises:
        TransientError: the questions do not fit the device's memory.
    """
    import torch

    answers: list[Answer | None] = [None] * len(questions)
    # Of like lengths together: then little is padded.
    asked = [place for place, question in enumerate(questions) if not question.left]
    asked.sort(key=lambda place: len(questions[place].prompt))
    ends = _ends(model, turn_end)
    model.eval()
    try:
        with torch.inference_mode(), _nothing_configured(model):
            for start in range(0, len(asked), _BATCH):
                batch = asked[start : start + _BATCH]
                said = _generate(model, [questions[place].prompt for place in batch], ends, turn_end, tokens)
                for place, generated in zip(batch, said, strict=True):
                    answers[place] = _answer(tokenizer, generated, ends)
    except torch.OutOfMemoryError:
        longest = max(len(question.prompt) for question in questions)
        raise TransientError(
            f"out of device memory on {_BATCH} questions of up to {longest} tokens at once: "
            "lower finetune.max_length, or set evaluate.generations to 0"
        ) from None
    return answers


def _question(name: str, row: Mapping[str, Any], maker: ExampleMaker, most: int) -> Question:
    turns, tools = conversations.read(row["messages"], row.get(conversations.TOOLS))
    place = answered_turn(turns)
    # Without an answer that could be learnt, all is the question; the maker says why it is not asked.
    before = turns if place is None else turns[:place]
    text = "\n\n".join(_shown(turn, named=len(before) > 1) for turn in before)
    reference = "" if place is None else _shown(turns[place])
    made = maker.question(turns, tools, most)
    if isinstance(made, LeftOut):
        return Question(name, row["id"], text, reference, left=made.reason)
    return Question(name, row["id"], text, reference, prompt=tuple(made))


def _shown(turn: Mapping[str, Any], named: bool = False) -> str:
    said = turn.get("content") or json.dumps(turn.get("tool_calls") or "", ensure_ascii=False)
    return f"{turn.get('role')}: {said}" if named else str(said)


def _ends(model: "PreTrainedModel", turn_end: int) -> set[int]:
    own = model.generation_config.eos_token_id if model.generation_config is not None else None
    return {turn_end, *(own if isinstance(own, list) else [] if own is None else [own])}


@contextmanager
def _nothing_configured(model: "PreTrainedModel") -> Iterator[None]:
    """Without what a model's own configuration adds, such as a penalty for repetitions."""
    from transformers import GenerationConfig

    before = model.generation_config
    model.generation_config = GenerationConfig()
    try:
        yield
    finally:
        model.generation_config = before


def _generate(
    model: "PreTrainedModel",
    prompts: Sequence[Sequence[int]],
    ends: Collection[int],
    padding: int,
    tokens: int,
) -> list[list[int]]:
    """What follows each prompt."""
    import torch
    from transformers import GenerationConfig

    longest = max(map(len, prompts))
    # On the left, so that what is generated follows the prompt at once.
    read = torch.tensor([[padding] * (longest - len(prompt)) + [*prompt] for prompt in prompts])
    mask = torch.tensor([[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt in prompts])
    settings = GenerationConfig(
        do_sample=False,
        max_new_tokens=tokens,
        eos_token_id=sorted(ends),
        pad_token_id=padding,
        use_cache=True,
    )
    said: Any = model.generate(
        input_ids=read.to(model.device), attention_mask=mask.to(model.device), generation_config=settings
    )
    found: list[list[int]] = said[:, longest:].tolist()
    return found


def _answer(tokenizer: "PreTrainedTokenizerBase", generated: Sequence[int], ends: Collection[int]) -> Answer:
    count = next((place for place, token in enumerate(generated) if token in ends), len(generated))
    # A model that writes marks of its own is shown to do so.
    text = str(tokenizer.decode(generated[:count], skip_special_tokens=False))
    return Answer(text, STOP if count < len(generated) else LENGTH, count)
