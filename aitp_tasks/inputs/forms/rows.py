"""A row, as JSON gives it, becomes an example: or what is damaged about it, or why it is none."""

from collections.abc import Mapping
from typing import Any

from aitp_tasks.config import Examples
from aitp_tasks.inputs.examples import Example, Rejection, Turn
from aitp_tasks.inputs.forms import table, turns
from aitp_tasks.inputs.forms.table import Form, Mapped
from aitp_tasks.inputs.forms.turns import Names
from aitp_tasks.inputs.forms.values import (
    RefusedError,
    RejectedError,
    blank,
    boolean,
    held,
    holds,
    holds_file,
    kind,
    listed,
    printable,
    text,
)
from aitp_tasks.inputs.rows import Refusal

NOT_PREFERRED = "not_preferred"
_REMEDY = "examples.preference: chosen takes the preferred answers"
_NAME_CHARACTERS = 80


class Rows:
    """Reads rows as the settings say."""

    def __init__(self, settings: Examples) -> None:
        self.settings = settings
        self.mapped = Mapped(settings.mapping) if settings.mapping is not None else None
        self._names = Names.of(settings.mapping.tags) if settings.mapping is not None else Names()

    def example(self, row: Any) -> Example | Rejection | Refusal:
        """The example that a row holds.

        Args:
            row: what JSON gave, or the same from Arrow with texts as bytes.
        """
        if isinstance(row, Refusal):
            return row
        if not isinstance(row, dict):
            return Refusal("not_an_example", f"the row is {kind(row)}, not an object")
        try:
            return _Row(row, self.mapped, self._names, self.settings.preference is not None).read()
        except (RefusedError, RejectedError) as error:
            return error.outcome

    def form(self, row: Any) -> str:
        """Name of the form of a row; empty where it has none."""
        if not isinstance(row, dict):
            return ""
        form = self.mapped.form if self.mapped else table.form_of(row)
        return form.name if form else ""


class _Row:
    """One row while it is read."""

    def __init__(self, row: dict[str, Any], mapped: Mapped | None, names: Names, preferred: bool) -> None:
        self._row = row
        self._form = mapped and mapped.form
        self._columns: Mapping[str, str] = mapped.columns if mapped else {}
        self._names = names
        self._preferred = preferred
        #: By the names of the table.
        self._values = {name: row.get(column) for name, column in mapped.columns.items()} if mapped else row
        self._taken: set[str] = set()
        self._left: dict[str, None] = {}

    def read(self) -> Example | Rejection:
        self._refuse_media()
        form = self._form or table.form_of(self._values)
        if answers := self._answers(form):
            name, messages = "preference", self._chosen(*answers)
        else:
            if form is None:
                raise self._no_form()
            self._refuse_bad_answer()
            name, messages = form.name, self._messages(form)
        messages = self._with_system(messages)
        _require_pair(messages)
        found = self._tools()
        for key, value in self._row.items():
            if key not in self._taken and holds(value):
                self._left[printable(key[:_NAME_CHARACTERS])] = None
        return Example(messages, found, form=name, not_kept=tuple(self._left))

    def _take(self, name: str) -> Any:
        self._taken.add(self._columns.get(name, name))
        return self._values.get(name)

    def _refuse_media(self) -> None:
        for name in (*table.MEDIA, *table.MEDIA_FILES):
            if name in self._values and holds_file(self._take(name)):
                raise RejectedError("multimodal", f"the row holds {self._column(name)}")
        # Of a tar, such files are columns without a value.
        for name in self._row if table.KEY in self._row else ():
            if name.rpartition(".")[2] in table.MEDIA_FILES:
                raise RejectedError("multimodal", f"the row has a file {name}")

    def _column(self, name: str) -> str:
        return self._columns.get(name, name)

    def _no_form(self) -> RefusedError:
        keys = [key for key, value in self._row.items() if holds(value)]
        if holds(self._values.get(table.TEXT)):
            return RefusedError(
                "rendered_text",
                "the row holds a text, in which turns can only be guessed: give a list of turns, or name its "
                f"columns in examples.mapping (it has {listed(keys)})",
            )
        return RefusedError(
            "not_an_example",
            f"the row is of no form that is known ({table.described()}): rename its columns, or name them in "
            f"examples.mapping (it has {listed(keys) or 'nothing'})",
        )

    def _refuse_bad_answer(self) -> None:
        """Of a KTO set's row, which says whether its answer is a good one."""
        for name in table.LABELS:
            good = self._tag(name)
            if good is None:
                continue
            column = self._column(name)
            if not self._preferred:
                raise RefusedError(
                    "preference",
                    f"the row is of a preference set ({column} says whether its answer is good): {_REMEDY}",
                )
            self._take(name)
            if not good:
                raise RejectedError(NOT_PREFERRED, f"{column} is false")

    def _tag(self, name: str) -> bool | None:
        """What a column says of the answer; None where it says nothing.

        A label of other values than booleans is one only where a preference set is expected; as a text, which
        is how CSV has it, also beside TRL's names for such a set.
        """
        column = self._column(name)
        if name not in self._values or (column not in self._row and column == name):
            return None
        value = self._values[name]
        if name == table.LABEL and not self._preferred:
            is_kto = isinstance(value, bytes | str) and self._values.keys() >= {"prompt", "completion"}
            named = is_kto and text(value, column).strip().lower() in ("true", "false")
            return boolean(value) if named or isinstance(value, bool) else None
        tag = boolean(value)
        if tag is None and (name == table.KTO_TAG or not holds(value) or value != value):
            given = text(value, column) if isinstance(value, bytes | str) else value
            shown = "null" if given is None else repr(str(given)[:_NAME_CHARACTERS])
            raise RefusedError(
                "not_an_example",
                f"{column} is {shown}, not true or false: it has to say whether the answer is good",
            )
        return tag

    def _answers(self, form: Form | None) -> tuple[str, str] | None:
        """The names of the preferred answer and of the other one, if the row is of a preference set."""
        for chosen, rejected in table.ANSWERS:
            alone = form is None and self._preferred
            if holds(self._values.get(chosen)) and (rejected in self._values or alone):
                return chosen, rejected
        return None

    def _chosen(self, chosen: str, rejected: str) -> list[Turn]:
        """The conversation with its preferred answer."""
        if not self._preferred:
            names = f"{self._column(chosen)} and {self._column(rejected)}"
            raise RefusedError("preference", f"the row is of a preference set (it has {names}): {_REMEDY}")
        self._take(rejected)
        answer = self._said(chosen, "assistant")
        if answer and answer[0]["role"] != "assistant":
            # All of the conversation; what stands beside it is a copy of its beginning.
            for form in table.FORMS:
                if holds(self._values.get(form.needs[0])):
                    self._take(form.needs[0])
            return answer
        for form in table.FORMS:
            if holds(self._values.get(form.needs[0])) and (self._form is None or form == self._form):
                asked = self._turns(form) if form.is_list else self._asked(form)
                while form.is_list and asked and asked[-1]["role"] == "assistant":
                    asked.pop()
                return asked + answer
        if isinstance(self._values.get(chosen), bytes | str):
            raise RefusedError(
                "rendered_text",
                f"{self._column(chosen)} is a text without a question beside it: give lists of turns "
                f"(the row has {listed(list(self._row))})",
            )
        return answer

    def _messages(self, form: Form) -> list[Turn]:
        if form.is_list:
            return self._turns(form)
        return self._asked(form) + self._said(form.needs[1], "assistant")

    def _turns(self, form: Form) -> list[Turn]:
        name = form.needs[0]
        return turns.read(self._take(name), self._column(name), self._names, self._leave(name))

    def _asked(self, form: Form) -> list[Turn]:
        """History and question, of a form that is no list of turns."""
        asked = self._said(form.needs[0], "user")
        more = [
            text(self._take(name), self._column(name)) for name in form.more if holds(self._values.get(name))
        ]
        if more and asked:
            said = [asked[-1]["content"], *more]
            asked[-1]["content"] = "\n".join(some for some in said if not blank(some))
        return self._history() + asked

    def _said(self, name: str, role: str) -> list[Turn]:
        """A text as a turn; or turns, where they are given as such."""
        value = self._take(name)
        if name in table.CONVERSATIONAL:
            value = turns.as_json(value, self._names) or value
        if isinstance(value, list | dict):
            return turns.read(value, self._column(name), self._names, self._leave(name), alternates=False)
        return [{"role": role, "content": text(value, self._column(name))}]

    def _history(self) -> list[Turn]:
        name = self._column(table.HISTORY)
        value = held(self._take(table.HISTORY), name)
        if isinstance(value, list) and value and all(isinstance(item, dict) for item in value):
            return turns.read(value, name, self._names, self._leave(table.HISTORY))
        found: list[Turn] = []
        for number, pair in enumerate(value if isinstance(value, list) else [value]):
            if not isinstance(pair, list) or len(pair) != 2:
                raise RefusedError("not_an_example", f"{name}[{number}] is no pair of question and answer")
            found += turns.alternating(pair, f"{name}[{number}]")
        return found

    def _with_system(self, messages: list[Turn]) -> list[Turn]:
        for name in table.SYSTEM:
            if not holds(self._values.get(name)):
                continue
            said = text(self._values[name], self._column(name))
            if messages and messages[0]["role"] in ("system", "developer"):
                # The conversation's own counts, as trainers have it.
                if messages[0]["content"] == said:
                    self._take(name)
                continue
            self._take(name)
            messages = [{"role": "system", "content": said}, *messages]
        return messages

    def _tools(self) -> list[dict[str, Any]]:
        for name in table.TOOLS:
            if holds(self._values.get(name)):
                return turns.tools(self._take(name), self._column(name))
        return []

    def _leave(self, name: str) -> Any:
        column = self._column(name)

        def leave(key: str) -> None:
            self._left[printable(f"{column}[].{key[:_NAME_CHARACTERS]}")] = None

        return leave


def _require_pair(messages: list[Turn]) -> None:
    """Make sure that there is something that is asked and something that is said to it."""
    if not messages:
        raise RejectedError("no_turns", "the example has no turns")
    asked = next(
        (
            number
            for number, turn in enumerate(messages)
            if turn["role"] == "user" and not blank(turn["content"])
        ),
        None,
    )
    if asked is None:
        raise RejectedError("no_user_turn", "the example has no user turn with text")
    if not any(
        turn["role"] == "assistant" and (turn.get("tool_calls") or not blank(turn["content"]))
        for turn in messages[asked + 1 :]
    ):
        raise RejectedError(
            "no_answer", "the example has no assistant turn with text after the first user turn"
        )
