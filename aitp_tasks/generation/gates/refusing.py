"""Whether an answer refuses, asks back or speaks as a machine."""

import re
from collections.abc import Iterator

from aitp_tasks.generation.gates import languages
from aitp_tasks.generation.gates.analysis import Text
from aitp_tasks.generation.gates.languages import Language

#: A refusal stands in an answer's beginning.
_OPENING = 400
#: A longer answer that ends in a question has said something before.
_ASKING_WORDS = 30
#: What is asked for may be a question itself.
_WRITTEN = re.compile(
    r"\b(?:write|writing|line|example|slogan|email|letter|dialogue|joke|riddle|questions?|ask|schreib\w*|beispiel\w*"
    r"|frage\w*|écri\w*|exemple|question|escrib\w*|ejemplo|pregunta\w*|scriv\w*|esempio|domanda|escrev\w*|exemplo"
    r"|pergunta\w*|schrijf\w*|voorbeeld\w*|vraag|напиш\w*|пример\w*|вопрос\w*)\b|写|举例|问题|例|書|質問",
    re.IGNORECASE,
)
_QUOTED = re.compile(
    '"[^"]{1,400}"|“[^”]{1,400}”|„[^“”]{1,400}[“”]|«[^»]{1,400}»|»[^«]{1,400}«|「[^」]{1,400}」|『[^』]{1,400}』'
)


def refuses(answer: Text, question: Text) -> bool:
    """Whether an answer opens as refusals do, in one of the languages known.

    Not where its question has somebody say one: then it may be a translation.
    """
    beginning = Text(_QUOTED.sub('""', answer.raw[:_OPENING]))
    language = beginning.language
    if language is None:
        return False
    if _asks_back(answer, question, language):
        return True
    if not language.refusals.search(beginning.flat):
        return False
    return not any(
        known.refusals.search(said.flat)
        for said in _sayings(question)
        for known in languages.known().values()
    )


def _asks_back(answer: Text, question: Text, language: Language) -> bool:
    """Whether an answer is a question itself, though its question asks for no words to be said or written."""
    if (
        len(answer.raw) > _OPENING
        or answer.length > _ASKING_WORDS
        or not language.asking_back.search(answer.flat)
    ):
        return False
    tongues = (question.language or language).tongues
    return not (tongues.search(question.flat) or _WRITTEN.search(question.flat))


def _sayings(question: Text) -> Iterator[Text]:
    """What a question may have somebody say."""
    beginning = question.raw[:_OPENING]
    yield Text(beginning.partition(":")[2])
    yield from (Text(found[1:-1]) for found in _QUOTED.findall(beginning))
