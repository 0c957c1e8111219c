"""The forms of SFT sets, by the columns or keys that each needs.

The form is decided row by row: the first of the table whose keys all hold
something; or else the first whose keys are all there.
"""

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from itertools import chain
from typing import Any

from aitp_tasks.config import Formatting, Mapping
from aitp_tasks.inputs.forms.values import holds


@dataclass(frozen=True)
class Form:
    """One form.

    Attributes:
        name: in reports.
        needs: the keys that make it: a list of turns, or question and answer.
        more: keys of what belongs to the question, if they hold something.
    """

    name: str
    needs: tuple[str, ...]
    more: tuple[str, ...] = ()

    @property
    def is_list(self) -> bool:
        """Whether it is a list of turns."""
        return len(self.needs) == 1


#: In the order in which they are looked for.
FORMS = (
    Form("messages", ("messages",)),
    Form("sharegpt", ("conversations",)),
    Form("conversation", ("conversation",)),
    Form("prompt-completion", ("prompt", "completion")),
    Form("alpaca", ("instruction", "output"), ("input", "context")),
    Form("instruction-response", ("instruction", "response"), ("input", "context")),
    Form("question-answer", ("question", "answer"), ("context",)),
    Form("question-response", ("question", "response"), ("context",)),
    Form("prompt-response", ("prompt", "response")),
    Form("query-response", ("query", "response")),
    Form("input-output", ("input", "output")),
    Form("data", ("data",)),
)
ALPACA = next(form for form in FORMS if form.name == "alpaca")
SHAREGPT = next(form for form in FORMS if form.name == "sharegpt")

#: What belongs to an example beside its form.
SYSTEM = ("system", "system_prompt")
HISTORY = "history"
TOOLS = ("tools", "functions")
#: What says that a row is an example of another kind.
#: The preferred answer, and the other one.
CHOSEN, REJECTED = "chosen", "rejected"
ANSWERS = ((CHOSEN, REJECTED), ("chosen_messages", "rejected_messages"))
#: What may be lists of turns, also as JSON in a text.
CONVERSATIONAL = ("prompt", "completion", *chain(*ANSWERS))
#: The second may also be something else.
KTO_TAG, LABEL = LABELS = ("kto_tag", "label")
MEDIA = ("images", "image", "videos", "video", "audios", "audio")
#: The name of a row of WebDataset, and the columns of it that are no texts.
KEY = "__key__"
MEDIA_FILES = (
    *("jpg", "jpeg", "png", "webp", "gif", "bmp", "tif", "tiff"),
    *("mp4", "avi", "mov", "mkv", "webm"),
    *("wav", "mp3", "flac", "ogg", "opus", "m4a"),
)
#: A conversation that has been rendered, or no conversation.
TEXT = "text"

KNOWN = tuple(
    dict.fromkeys(
        (
            *(name for form in FORMS for name in (*form.needs, *form.more)),
            *(*SYSTEM, HISTORY, *TOOLS, *chain(*ANSWERS), *LABELS, *MEDIA, *MEDIA_FILES, TEXT),
        )
    )
)


def form_of(values: dict[str, Any]) -> Form | None:
    """The form of a row; None where it has none."""
    filled = {name for name, value in values.items() if holds(value)}
    present = {name for name, value in values.items() if value is not None}
    for names in (filled, present, values.keys()):
        for form in FORMS:
            if names >= set(form.needs):
                return form
    return None


def may_hold(names: Collection[str]) -> bool:
    """Whether rows with these columns can have a form."""
    return any(chosen in names for chosen, _ in ANSWERS) or any(
        set(form.needs) <= set(names) for form in FORMS
    )


def described() -> str:
    """The forms, for messages."""
    return ", ".join("+".join(form.needs) for form in FORMS)


class Mapped:
    """The columns of a mapping, under the names by which the table knows them."""

    def __init__(self, mapping: Mapping) -> None:
        columns = mapping.columns
        if mapping.formatting is Formatting.SHAREGPT:
            self.form = SHAREGPT
            own: dict[str, str | None] = {"conversations": columns.messages or "conversations"}
        else:
            self.form = ALPACA
            # As LLaMA-Factory has it: columns that are named at all are all that there are.
            given = columns.prompt or columns.query or columns.response
            own = {
                "instruction": columns.prompt or (None if given else "instruction"),
                "input": columns.query or (None if given else "input"),
                "output": columns.response or (None if given else "output"),
                HISTORY: columns.history,
            }
        own |= {"system": columns.system, "tools": columns.tools, CHOSEN: columns.chosen}
        own |= {REJECTED: columns.rejected, "kto_tag": columns.kto_tag, "images": columns.images}
        own |= {"videos": columns.videos, "audios": columns.audios}
        #: By the table's name, the set's.
        self.columns = {name: column for name, column in own.items() if column is not None}
        #: What no mapping can make an example of.
        guards = (*chain(*ANSWERS), *LABELS, *MEDIA, *MEDIA_FILES)
        taken = set(self.columns.values())
        self.columns |= {name: name for name in guards if name not in self.columns and name not in taken}

    @property
    def needs(self) -> Iterator[str]:
        """The set's columns without which there is no example."""
        return (self.columns[name] for name in self.form.needs if name in self.columns)
