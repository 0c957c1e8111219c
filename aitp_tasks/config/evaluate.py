"""``evaluate``: what is held out of every dataset version, and which versions are promoted."""

from enum import StrEnum
from typing import Annotated, Self

from pydantic import Field, model_validator

from aitp_tasks.config.section import Section

#: No path: what is named lies in the harness or in the folder.
TaskName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_][\w.:,+-]*$", max_length=200)]


class Promote(StrEnum):
    """When a version and its checkpoint become the latest."""

    ALWAYS = "always"
    WHEN_BETTER = "when_better"
    NEVER = "never"


class Evaluate(Section):
    """Proof that the fine-tune has helped: losses on what no model has seen, and what follows from them."""

    held_out: Annotated[float, Field(ge=0, lt=1, strict=True)] = Field(
        0.0,
        title="Held-out share",
        description="Of SFT examples and of documents: never trained on, in any night; 0 evaluates nothing.",
    )
    max_examples: int = Field(
        1000, ge=1, title="Examples of each set", description="Evaluated at most; always the same ones."
    )
    promote: Promote = Field(
        Promote.ALWAYS,
        title="Promotion",
        description="Which versions become the latest, that the next run builds on: always all, as soon as "
        "they are made; those that are better than the SFT set alone; never any.",
    )
    tolerance: float = Field(
        0.02,
        ge=0,
        strict=True,
        title="Tolerance",
        description="In nats per token: how much worse on SFT examples a better version may be.",
    )

    generations: int = Field(
        20,
        ge=0,
        le=200,
        title="Questions answered",
        description="Held-out questions that all three models answer, for people to read in the report: half "
        "of SFT examples, half of pairs, always the same ones; 0: none.",
    )
    generated_tokens: int = Field(
        256, ge=1, le=8192, title="Tokens of an answer", description="In the report, at most."
    )
    tasks: tuple[TaskName, ...] = Field(
        (),
        title="Benchmark tasks",
        description="Of lm-evaluation-harness, by name, or of the folder below; all three models are put to "
        "them. Nothing is fetched for them.",
    )
    task_folder: str | None = Field(
        None,
        min_length=1,
        title="Folder of task files",
        description="YAML files as lm-evaluation-harness has them, and the files with their rows.",
    )
    task_limit: int | None = Field(
        None, ge=1, title="Rows of a task", description="The first ones, at most; none: all."
    )

    @model_validator(mode="after")
    def _has_what_it_decides_by(self) -> Self:
        if self.promote is Promote.WHEN_BETTER and not self.held_out:
            raise ValueError(
                "promote=when_better decides by held-out data, and held_out=0 holds none out: "
                "set held_out, to 0.02 for instance"
            )
        if self.tasks and not self.held_out:
            raise ValueError(
                f"tasks={list(self.tasks)} are measured beside held-out data, and held_out=0 holds none out: "
                "set held_out, to 0.02 for instance"
            )
        if self.task_folder is not None and not self.tasks:
            raise ValueError(f"task_folder={self.task_folder} is set, but tasks names none: name some of its")
        twice = sorted({name for name in self.tasks if self.tasks.count(name) > 1})
        if twice:
            raise ValueError(f"tasks names {', '.join(twice)} twice: name each once")
        return self
