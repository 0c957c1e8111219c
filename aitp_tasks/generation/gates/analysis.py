"""A text as the gates see it."""

from functools import cached_property

from aitp_tasks.generation.gates import languages
from aitp_tasks.generation.gates.languages import Language
from aitp_tasks.texts import words


class Text:
    """A text and its forms, each computed when it is first asked for."""

    def __init__(self, raw: str) -> None:
        self.raw = raw

    @cached_property
    def normal(self) -> str:
        """The normal form."""
        return words.normal(self.raw)

    @cached_property
    def flat(self) -> str:
        """The normal form on one line, with single spaces."""
        return " ".join(self.normal.split())

    @cached_property
    def written_words(self) -> list[str]:
        """The words in order, as they are written."""
        return words.split(self.normal)

    @cached_property
    def words(self) -> list[str]:
        """The words in order, their case folded."""
        return [word.casefold() for word in self.written_words]

    @cached_property
    def length(self) -> int:
        """How many words a reader would count, estimated in scripts without spaces."""
        return words.count(self.written_words)

    @cached_property
    def language(self) -> Language | None:
        """Its language, if that is among the known ones."""
        return languages.of(self.words)
