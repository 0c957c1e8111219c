"""Evaluation sets: files of questions and answers, in the layouts of common benchmarks or by given paths.

Every row gives one ``Item``, or the ``Refusal`` that says why not. Of several choices the
right one is the answer, where the row says which that is; else all of them are.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from aitp_tasks.config import EvaluationSet
from aitp_tasks.errors import InputError
from aitp_tasks.inputs import formats, listing
from aitp_tasks.inputs.files import File
from aitp_tasks.inputs.forms.values import listed
from aitp_tasks.inputs.paths import TextPath
from aitp_tasks.inputs.rows import Refusal
from aitp_tasks.storage import ObjectInfo, Storage

#: Rows whose keys tell the layout.
_HEAD = 20
_SETTING = "contamination.sets"


@dataclass(frozen=True)
class Item:
    """One item of an evaluation set.

    Attributes:
        question: may be empty, if there is an answer.
        answer: may be empty.
        place: file and row, for people.
    """

    question: str
    answer: str = ""
    place: str = ""


@dataclass(frozen=True)
class Layout:
    """How rows hold questions and answers.

    Attributes:
        name: of the benchmark that has made it known, or ``given``.
        question: path of the question; a list of texts is several turns.
        answer: path of the answer, or of the number, letter or label of the right choice.
        choices: path of the choices, or several; empty where there are none.
        needs: keys that tell the layout, beside the paths' own.
        labels: path of the choices' labels.
        first: number of the first choice, where the answer is a number.
    """

    name: str
    question: str
    answer: str = ""
    choices: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()
    labels: str = ""
    first: int = 0

    @property
    def keys(self) -> set[str]:
        """The keys that a row of this layout has, in lower case."""
        paths = (self.question, self.answer, *self.choices)
        return {_plain(TextPath(path, _SETTING).column) for path in paths if path} | set(
            map(_plain, self.needs)
        )


#: The first of which a row has all keys: those that need more come first.
LAYOUTS = (
    Layout("TruthfulQA", "question", "best_answer"),
    Layout("TruthfulQA", "question", "mc1_targets.labels", ("mc1_targets.choices",)),
    Layout("MMLU-Pro", "question", "answer", ("options",)),
    Layout("ARC", "question.stem", "answerKey", ("question.choices",), labels="question.choices"),
    Layout("ARC", "question", "answerKey", ("choices.text",), labels="choices.label"),
    Layout("OpenBookQA", "question_stem", "answerKey", ("choices.text",), labels="choices.label"),
    Layout("MMLU", "question", "answer", ("choices",)),
    Layout("MMLU", "question", "answer", ("A", "B", "C", "D")),
    Layout("HellaSwag", "ctx", "label", ("endings",)),
    Layout("HumanEval", "prompt", "canonical_solution"),
    Layout("MBPP", "text", "code", needs=("test_list",)),
    Layout("MBPP", "prompt", "code", needs=("test_list",)),
    Layout("WinoGrande", "sentence", "answer", ("option1", "option2"), first=1),
    Layout("PIQA", "goal", "label", ("sol1", "sol2")),
    Layout("IFEval", "prompt", needs=("instruction_id_list",)),
    Layout("MT-bench", "turns", "reference"),
    Layout("MT-bench", "turns"),
    Layout("BBH", "input", "target"),
    Layout("GPQA", "question", "correct answer"),
    Layout("AlpacaEval", "instruction", "output"),
    Layout("MATH", "problem", "solution"),
    Layout("SQuAD", "question", "answers.text"),
    Layout("GSM8K", "question", "answer"),
)


def detect(rows: Sequence[Mapping[str, Any]]) -> Layout | None:
    """The layout of some rows; None where none is known."""
    if not rows:
        return None
    there = set.intersection(*({_plain(key) for key in row} for row in rows))
    return next((layout for layout in LAYOUTS if layout.keys <= there and _leads(layout, rows)), None)


def item(row: Any, layout: Layout, place: str = "") -> Item | Refusal:
    """The item of one row."""
    if not isinstance(row, Mapping):
        return row if isinstance(row, Refusal) else Refusal("not_an_object", "the row is not an object")
    question, answer = _text(_at(row, layout.question)), _answer(row, layout)
    if not (question or answer):
        return Refusal("no_text", f"neither {layout.question} nor {layout.answer or 'an answer'} has a text")
    return Item(question, answer, place)


def find(storage: Storage, named: EvaluationSet) -> list[ObjectInfo]:
    """The files of a set, in the order of their keys.

    Raises:
        InputError: there are none.
    """
    info = storage.find(named.path) if formats.of(named.path) is not None else None
    if info is not None:
        return [info]
    found = listing.of(storage, f"{named.path.rstrip('/')}/")
    if not found.shards:
        raise InputError(
            f"{_SETTING}: {storage.uri(named.path)} is no file that is read ({formats.READ}), and none is "
            f"below it ({found.named() or 'nothing is there'}): upload the set, or correct its path"
        )
    return found.shards


def layout_of(storage: Storage, info: ObjectInfo, named: EvaluationSet) -> Layout:
    """How a file holds its items.

    Raises:
        InputError: it is empty, unreadable or of an unknown layout, or has no such fields.
    """
    where = storage.uri(info.key)
    head = [row for row in islice(_rows(storage, info), _HEAD) if isinstance(row, Mapping)]
    if not head:
        raise InputError(f"{where} has no row that is an object: give an evaluation set with items")
    keys = list(dict.fromkeys(key for row in head for key in row))
    if named.question is None and named.answer is None:
        found = detect(head)
        if found is None:
            raise InputError(
                f"{where} is of no layout that is known: it has {listed(keys)}: name the fields in "
                f"{_SETTING}, e.g. {{path: {named.path}, question: {keys[0]}}}"
            )
        return found
    given = Layout("given", named.question or "", named.answer or "")
    for path in filter(None, (named.question, named.answer)):
        if all(_at(row, path) is None for row in head):
            raise InputError(f"{where} has nothing at {path!r} (it has {listed(keys)}): correct {_SETTING}")
    return given


def items(storage: Storage, info: ObjectInfo, layout: Layout) -> Iterator[Item | Refusal]:
    """One item per row.

    Raises:
        UnreadableError: the file is damaged, or not what its ending says.
        ObjectChangedError: it was replaced since ``info``.
    """
    name = info.key.rpartition("/")[2]
    for number, row in enumerate(_rows(storage, info)):
        yield item(row, layout, f"{name}:{number}")


def _rows(storage: Storage, info: ObjectInfo) -> Iterator[Any]:
    """The rows as JSON has them; BIG-bench's files are one object with a list of examples."""
    file = File(storage, info)
    if file.kind.is_table:
        with file.readable():
            for _, batch in file.batches(list(file.schema.names)):
                yield from batch.to_pylist()
        return
    for row in file.values():
        if isinstance(row, dict) and isinstance(row.get("examples"), list):
            yield from row["examples"]
        else:
            yield row


def _leads(layout: Layout, rows: Sequence[Mapping[str, Any]]) -> bool:
    """Whether the paths lead anywhere in any of some rows."""
    paths = [layout.question, *layout.choices, *([layout.answer] if "." in layout.answer else [])]
    return all(any(_at(row, path) is not None for row in rows) for path in paths)


def _at(row: Mapping[str, Any], path: str) -> Any:
    """The value at a path; None where there is none."""
    value: Any = row
    for step in TextPath(path, _SETTING).steps if path else ():
        if isinstance(step, str) and isinstance(value, Mapping):
            value = value.get(step, next((value[key] for key in value if _plain(key) == _plain(step)), None))
        elif isinstance(step, int) and isinstance(value, list) and step < len(value):
            value = value[step]
        else:
            return None
    return value if path else None


def _answer(row: Mapping[str, Any], layout: Layout) -> str:
    answer = _at(row, layout.answer)
    if not layout.choices:
        return _text(answer)
    found = [_at(row, path) for path in layout.choices]
    choices = found[0] if len(found) == 1 else found
    if not isinstance(choices, list):
        return _text(choices)
    right = _right(answer, len(choices), _labels(_at(row, layout.labels)), layout.first)
    return _text(_said(choices) if right is None else _said(choices)[right])


def _labels(labels: Any) -> Any:
    """Labels of choices; of choices that are objects, their own."""
    if isinstance(labels, list):
        return [one.get("label") if isinstance(one, Mapping) else one for one in labels]
    return labels


def _said(choices: list[Any]) -> list[Any]:
    """Choices as texts; of those that are objects, their own."""
    return [one.get("text") if isinstance(one, Mapping) else one for one in choices]


def _right(answer: Any, choices: int, labels: Any, first: int) -> int | None:
    """The place of the right choice; None where the row does not say it.

    ``answer`` is one of the labels, a letter, a number from ``first`` on, or a list with a 1 for the right
    one.
    """
    if isinstance(answer, list):
        return answer.index(1) if 1 in answer else None
    if isinstance(labels, list) and answer in labels:
        place: int | None = labels.index(answer)
    elif isinstance(answer, str) and len(answer) == 1 and answer.isalpha():
        place = ord(answer.upper()) - ord("A")
    else:
        try:
            place = int(answer) - first
        except (TypeError, ValueError):
            return None
    return place if place is not None and 0 <= place < choices else None


def _text(value: Any) -> str:
    """A value as a text: of a list, its items by lines; of nothing, nothing."""
    if isinstance(value, list):
        return "\n".join(filter(None, map(_text, value)))
    if isinstance(value, Mapping) or value is None:
        return ""
    return str(value).strip()


def _plain(key: str) -> str:
    return key.lower().replace("_", " ").strip()
