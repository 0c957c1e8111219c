"""From conversations to token ids, with the loss on what the assistant says and nothing else.

Every conversation becomes an example or a reason why it is none. Tools, tool calls and
reasoning are given to the chat template as it takes them; a conversation whose template
takes no tools is left out. A turn of weight 0 is read and not learnt. Contents are
cut before they are tokenised, so that one enormous text costs little. They are
learnt as they are: special tokens in them are read as text, and only what would
divide turns in the very template (``<|im_end|>``) is made plain, and counted.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from aitp_tasks.machine import missing_bytes
from aitp_tasks.machine.control_tokens import Neutraliser, reading_marks_only, special_tokens, turn_marks
from aitp_tasks.records import conversations, data_files
from aitp_tasks.records.manifest import Ledger
from aitp_tasks.training import spread, taken
from aitp_tasks.training.taken import Turns

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

#: Label of a token that the loss leaves out; PyTorch's default.
IGNORED = -100
#: The reasons that are faults of a row; such rows are quarantined, others rejected.
REFUSED_BY_TEMPLATE, UNKNOWN_ROLE = "refused_by_chat_template", "unknown_role"
#: The reason that is the chat template's: the row is sound.
NO_TOOLS = "tools_not_in_chat_template"
#: The reason that is the example's length.
CUT_BEFORE_ANSWER = "cut_before_answer"
#: The reason that is a question's length.
QUESTION_TOO_LONG = "question_too_long"
#: A template writes a role as it is, so that another one could hold whole turns.
ROLES = ("system", "developer", "user", "assistant", "tool")

#: In the place of an answer that is to be generated.
_ANY_ANSWER = {"role": "assistant", "content": "."}
_ROWS_PER_BATCH = 512
#: From so many rows on, further processes are worth their start.
_MANY_ROWS = 20_000
#: Of a role, in a message.
_ROLE_SHOWN = 40
_EXAMPLE_SCHEMA = pa.schema([("input_ids", pa.list_(pa.int32())), ("labels", pa.list_(pa.int32()))])


@dataclass(frozen=True)
class Example:
    """One conversation: ``labels`` are ``input_ids`` where the loss is taken, else ``IGNORED``.

    ``neutralised`` says how often each turn mark stood in its contents, ``unused`` what
    of the conversation the template does not take.
    """

    input_ids: list[int]
    labels: list[int]
    neutralised: Mapping[str, int] = field(default_factory=dict)
    unused: frozenset[str] = frozenset()
    #: Whether it ends before the conversation does.
    cut: bool = False


@dataclass(frozen=True)
class LeftOut:
    """Why a conversation is no example."""

    reason: str
    message: str


#: Makes the examples of a conversation with its tools: one or, where it is split, several, or why it is none.
MakeParts = Callable[[Sequence[Mapping[str, Any]], Sequence[Any]], Sequence[Example | LeftOut]]


class ExampleMaker:
    """Makes examples with one tokenizer and one training template."""

    def __init__(self, tokenizer: "PreTrainedTokenizerBase", template: str, max_length: int) -> None:
        """
        Args:
            template: with generation marks; see ``template.choose``.
            max_length: in tokens; longer examples are cut at their end.
        """
        self._tokenizer = tokenizer
        self._template = template
        self._max_length = max_length
        self._taken = taken.by(lambda turns, tools: self._render(turns, tools)[0])
        marks = turn_marks(tokenizer, self._divided, answers=False) | self._marks_of_calls()
        self._neutralise = Neutraliser(tokenizer, marks)
        self._reading = reading_marks_only(tokenizer, marks, template)
        backend = getattr(self._reading, "backend_tokenizer", None)
        self._missing = missing_bytes.of(backend) if backend is not None else b""
        # No token is longer, so what is cut off could not have been among the first max_length tokens.
        self._max_characters = max_length * max(len(token) for token in tokenizer.get_vocab())

    def make(self, messages: Sequence[Mapping[str, Any]], tools: Sequence[Any] = ()) -> Example | LeftOut:
        """The example for one conversation, as ``conversations.read`` gives it."""
        turns = _whole(messages)
        if unfit := self._unfit(turns, tools):
            return unfit
        neutralised: Counter[str] = Counter()
        plain = self._plain_turns(turns, neutralised)
        return self._encode(plain, self._plain(list(tools), neutralised), neutralised)

    def question(
        self, messages: Sequence[Mapping[str, Any]], tools: Sequence[Any], most: int
    ) -> list[int] | LeftOut:
        """The token ids before the first answer that is learnt, as a model reads them that is to answer.

        Args:
            messages: as ``make`` takes them; what follows the question decides nothing.
            tools: of the conversation.
            most: tokens that there may be; below the maker's ``max_length``.
        """
        turns = _whole(messages)
        if unfit := self._unfit(turns, tools):
            return unfit
        uncounted: Counter[str] = Counter()
        asked = [*self._plain_turns(turns[: answered_turn(turns)], uncounted), _ANY_ANSWER]
        rendered = self._rendered(asked, self._plain(list(tools), uncounted))
        if isinstance(rendered, LeftOut):
            return rendered
        text, spans = rendered
        if not spans:
            return LeftOut(REFUSED_BY_TEMPLATE, "the chat template marks no place as the assistant's")
        tokens: list[int] = self._reading(text[: spans[-1][0]], add_special_tokens=False)["input_ids"]
        if len(tokens) > most:
            return LeftOut(QUESTION_TOO_LONG, f"the question has more than {most} tokens")
        return tokens

    def _unfit(self, turns: Turns, tools: Sequence[Any]) -> LeftOut | None:
        """Why a conversation is none to learn from, as far as that is seen before it is rendered."""
        if unknown := {turn["role"] for turn in turns}.difference(ROLES):
            return LeftOut(
                UNKNOWN_ROLE, f"role {min(unknown)[:_ROLE_SHOWN]!r} is none of {', '.join(ROLES)}: rename it"
            )
        answers = [turn for turn in turns if turn["role"] == "assistant"]
        if not answers:
            return LeftOut("no_answer", f"none of its {len(turns)} turns is the assistant's")
        learnt = [turn for turn in answers if _is_learnt(turn)]
        if not learnt:
            return LeftOut("no_weight", f"all of the assistant's {len(answers)} turns have weight 0")
        if not all(turn["content"].strip() or turn.get("tool_calls") for turn in learnt):
            return LeftOut("empty_answer", "a turn of the assistant is empty")
        if missing := taken.passed_over(self._taken, turns, tools) & taken.INDISPENSABLE:
            return LeftOut(
                NO_TOOLS,
                f"the chat template passes over {', '.join(sorted(missing))}: set finetune.chat_template to "
                "one that takes them",
            )
        return None

    def _plain_turns(self, turns: Turns, neutralised: Counter[str]) -> list[dict[str, Any]]:
        """The turns with the texts that ``_plain`` makes of theirs."""
        return [
            {
                name: value if name == "role" else self._plain(value, neutralised)
                for name, value in turn.items()
            }
            for turn in turns
        ]

    def _plain(self, value: Any, neutralised: Counter[str]) -> Any:
        """A value whose texts are cut and do not divide turns; how often they held a mark is added."""
        if isinstance(value, str):
            text, found = self._neutralise(value[: self._max_characters])
            neutralised += found
            return text
        if isinstance(value, list):
            return [self._plain(item, neutralised) for item in value]
        if isinstance(value, dict):
            return {
                self._plain(name, neutralised): self._plain(item, neutralised) for name, item in value.items()
            }
        return value

    def _encode(
        self, turns: Turns, tools: Sequence[Any], neutralised: Mapping[str, int]
    ) -> Example | LeftOut:
        rendered = self._rendered(turns, tools)
        if isinstance(rendered, LeftOut):
            return rendered
        text, spans = rendered
        answers = [turn for turn in turns if turn["role"] == "assistant"]
        if not all(map(_is_learnt, answers)):
            if len(spans) != len(answers):
                return LeftOut(
                    "weights_not_placed",
                    f"the chat template marks {len(spans)} places as the assistant's for {len(answers)} "
                    "turns, so that it is not known which have weight 0",
                )
            spans = [span for span, turn in zip(spans, answers, strict=True) if _is_learnt(turn)]
        encoded = self._reading(text, add_special_tokens=False, return_offsets_mapping=True)
        input_ids: list[int] = encoded["input_ids"][: self._max_length]
        offsets = self._offsets(text, encoded)
        labels = [
            token if _within(offset, spans) else IGNORED
            for token, offset in zip(input_ids, offsets, strict=True)
        ]
        if all(label == IGNORED for label in labels):
            return LeftOut(
                CUT_BEFORE_ANSWER, f"the answer starts behind max_length={self._max_length} tokens"
            )
        unused = taken.passed_over(self._taken, turns, tools)
        cut = len(encoded["input_ids"]) > self._max_length
        return Example(input_ids, labels, neutralised, frozenset(unused), cut)

    def _offsets(self, text: str, encoded: Mapping[str, Any]) -> list[tuple[int, int]]:
        """From which character to which each token stands, as far as an example goes."""
        told: list[tuple[int, int]] = encoded["offset_mapping"][: self._max_length]
        if not missing_bytes.holds(text, self._missing):
            return told
        ids = encoded["input_ids"][: self._max_length]
        return missing_bytes.spans(self._reading.backend_tokenizer, text, ids, self._missing) or told

    def _marks_of_calls(self) -> set[str]:
        """Special tokens around tools, calls and results; other marks of calls may stand in an answer."""
        if taken.INDISPENSABLE - self._taken:
            return set()
        text, _ = self._render(taken.CALLING, taken.TOOLS)
        return {token for token in special_tokens(self._tokenizer) if token in text}

    def _divided(self, messages: Turns, _: bool) -> str:
        """A conversation without what is generated before an answer's text.

        Such as empty reasoning, which an answer may hold itself.
        """
        text, spans = self._render(messages)
        answers = [turn["content"] for turn in messages if turn["role"] == "assistant"]
        for (start, end), answer in reversed([*zip(spans, answers, strict=True)]):
            text = text[:start] + text[text.index(answer, start, end) :]
        return text

    def _rendered(self, turns: Turns, tools: Sequence[Any]) -> tuple[str, list[tuple[int, int]]] | LeftOut:
        """What ``_render`` gives, or why the template refuses it."""
        from jinja2.exceptions import TemplateError

        try:
            return self._render(turns, tools)
        except (TemplateError, TypeError, ValueError) as error:
            return LeftOut(REFUSED_BY_TEMPLATE, f"{type(error).__name__}: {error}")

    def _render(self, turns: Turns, tools: Sequence[Any] = ()) -> tuple[str, list[tuple[int, int]]]:
        """The conversation's text, and the character spans inside generation marks."""
        from transformers.utils import chat_template_utils

        # Annotated upstream as returning one string; it is a list of texts, and of spans for each.
        render: Any = chat_template_utils.render_jinja_template
        texts, spans = render(
            [turns],
            # Some templates announce tools where there is an empty list of them.
            tools=list(tools) or None,
            chat_template=self._template,
            return_assistant_tokens_mask=True,
            **self._tokenizer.special_tokens_map,
        )
        return texts[0], spans[0]


def answered_turn(messages: Sequence[Mapping[str, Any]]) -> int | None:
    """The place of the first answer that is learnt; None where there is none."""
    learnt = (place for place, turn in enumerate(messages) if turn.get("role") == "assistant")
    return next((place for place in learnt if _is_learnt(messages[place])), None)


def _whole(messages: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Turns that have a role and a content, if empty ones."""
    return [
        {**turn, "role": turn.get("role") or "", "content": turn.get("content") or ""} for turn in messages
    ]


def _is_learnt(turn: Mapping[str, Any]) -> bool:
    return turn.get("weight") != 0


def _within(offset: tuple[int, int], spans: list[tuple[int, int]]) -> bool:
    """Whether a token touches a span.

    transformers' own mask asks for the token of a span's first character, and
    finds none when a tokenizer trims blanks from its offsets; touching does not.
    """
    start, end = offset
    return any(start < span_end and max(end, start + 1) > span_start for span_start, span_end in spans)


@dataclass
class Tally:
    """What became of a dataset's rows."""

    examples: int = 0
    #: Among the examples, those that were cut, and those that are not their conversation's first.
    cut: int = 0
    further: int = 0
    #: Parts of conversations that are no example, where another part is one.
    parts_left: int = 0
    #: Tokens of all examples, and those among them that the loss is taken over.
    tokens: int = 0
    trained_tokens: int = 0
    rejected: Counter[str] = field(default_factory=Counter)
    #: How often each turn mark was made plain in the contents of examples.
    neutralised: Counter[str] = field(default_factory=Counter)
    #: How many examples have what the template does not take, by its name.
    unused: Counter[str] = field(default_factory=Counter)
    #: Rows that the chat template refused, or whose roles nobody knows; see ``tables.QUARANTINE``.
    quarantined: list[dict[str, str]] = field(default_factory=list)

    def add(self, row: int, parts: Sequence[Example | LeftOut]) -> None:
        """Count one row, of which there may be several parts."""
        examples = [made for made in parts if isinstance(made, Example)]
        left = [made for made in parts if isinstance(made, LeftOut)]
        for example in examples:
            self.examples += 1
            self.cut += example.cut
            self.tokens += len(example.input_ids)
            self.trained_tokens += sum(label != IGNORED for label in example.labels)
            self.neutralised.update(example.neutralised)
        if examples:
            self.unused.update(frozenset().union(*(example.unused for example in examples)))
            self.further += len(examples) - 1
            self.parts_left += len(left)
        else:
            self._add_left_out(row, left[0])

    def _add_left_out(self, row: int, made: LeftOut) -> None:
        if made.reason in (REFUSED_BY_TEMPLATE, UNKNOWN_ROLE):
            self.quarantined.append({"id": f"row {row}", "error_class": made.reason, "message": made.message})
        else:
            self.rejected[made.reason] += 1

    def left_out(self) -> dict[str, int]:
        """Why rows are no examples, and how many."""
        return dict(sorted((self.rejected + Counter(row["error_class"] for row in self.quarantined)).items()))

    def merge(self, other: "Tally") -> None:
        """Add what became of the rows that follow."""
        for one in fields(self):
            setattr(self, one.name, getattr(self, one.name) + getattr(other, one.name))

    def ledger(self) -> Ledger:
        """The rows as a ledger."""
        return Ledger(
            rows_in=self.examples - self.further + len(self.quarantined) + self.rejected.total(),
            rows_out=self.examples - self.further,
            quarantined=dict(Counter(row["error_class"] for row in self.quarantined)),
            rejected=dict(sorted(self.rejected.items())),
        )


def write(data: Path, make: MakeParts, target: Path, again: Callable[[], MakeParts] | None = None) -> Tally:
    """Turn a dataset's Parquet into an Arrow stream of ``input_ids`` and ``labels``.

    Args:
        data: a file, or a folder of shards.
        make: makes the examples of one conversation; see ``long_examples``.
        target: is written.
        again: gives ``make`` in another process, so that many rows are shared out among all processors;
            what is written is the same.

    Raises:
        TransientError: one of the processes was killed.
    """
    tally = Tally()
    files = data_files.paths(data)
    rows = sum(pq.read_metadata(path).num_rows for path in files)
    with (
        pa.OSFile(str(target), "wb") as sink,
        pa.ipc.new_stream(sink, _EXAMPLE_SCHEMA) as writer,
    ):
        processes = spread.processors()
        if again is None or rows < _MANY_ROWS or processes == 1:
            made: Iterator[tuple[bytes, Tally]] = (_make_batch(make, batch) for batch in _read(files))
        else:
            made = spread.spread(partial(_making, again), _read(files), processes)
        for batch, counted in made:
            writer.write_batch(_from_bytes(batch))
            tally.merge(counted)
    return tally


def _read(files: Sequence[Path]) -> Iterator[tuple[int, bytes]]:
    """Rows as Arrow's bytes, with the number of the first one."""
    row = 0
    for path in files:
        with pq.ParquetFile(path) as file:
            columns = [name for name in ("messages", conversations.TOOLS) if name in file.schema_arrow.names]
            for batch in file.iter_batches(_ROWS_PER_BATCH, columns=columns):
                yield row, _to_bytes(batch)
                row += batch.num_rows


def _making(again: Callable[[], MakeParts]) -> Callable[[tuple[int, bytes]], tuple[bytes, Tally]]:
    return partial(_make_batch, again())


def _make_batch(make: MakeParts, rows: tuple[int, bytes]) -> tuple[bytes, Tally]:
    """The examples of some rows, and what became of these."""
    first, stored = rows
    tally, examples = Tally(), []
    for row, values in enumerate(_from_bytes(stored).to_pylist(), first):
        parts = make(*conversations.read(values["messages"], values.get(conversations.TOOLS)))
        tally.add(row, parts)
        examples += [
            {"input_ids": made.input_ids, "labels": made.labels}
            for made in parts
            if isinstance(made, Example)
        ]
    return _to_bytes(pa.RecordBatch.from_pylist(examples, _EXAMPLE_SCHEMA)), tally


def _to_bytes(batch: pa.RecordBatch) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema) as writer:
        writer.write_batch(batch)
    found: bytes = sink.getvalue().to_pybytes()
    return found


def _from_bytes(stored: bytes) -> pa.RecordBatch:
    with pa.ipc.open_stream(stored) as reader:
        return reader.read_next_batch()
