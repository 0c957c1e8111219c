"""Whether two questions are the same but for their wording.

Similarity is Dice's coefficient of their words with content, inflections of one
word counting as one: twice the number of shared words by that of all. However
similar, two questions differ where they differ in a number, a sign ("C" and
"C++"), a name, a negation, a question word or a pair such as "increase" and
"decrease", or have their words in another order ("from English to French").
"""

import re
from collections import Counter

from aitp_tasks.generation.gates.analysis import Text
from aitp_tasks.generation.gates.languages import Language

#: Signs that mean something; a hyphen does beside numbers and spaces.
_SIGN = re.compile(r"""[^\w\s.,;:?!'"()…“”„«»‘’¿¡。、「」『』–—-]|(?<![^\W\d])-(?![^\W\d])""")
#: Inflections of one word differ in the last letters only, after a stem of at least so many.
_ENDING, _STEM = 3, 4
#: Words that end in so many same letters may be opposites.
_OPPOSITE = 4
#: More differing words than this are not compared with each other.
_MOST_DIFFERENCES = 20


def near_identical(first: Text, second: Text, limit: float) -> bool:
    """Whether the similarity of two questions is at least the limit and nothing that matters differs."""
    if _SIGN.findall(first.flat) != _SIGN.findall(second.flat):
        return False
    if first.words == second.words:
        return True
    language = first.language
    ours, theirs = _content(first, language), _content(second, language)
    # What the shorter one has is the most that they can share.
    if 2 * min(len(ours), len(theirs)) < limit * (len(ours) + len(theirs)):
        return False
    theirs = _with_inflections_of(ours, theirs)
    lost, added = Counter(ours) - Counter(theirs), Counter(theirs) - Counter(ours)
    shared = len(ours) - lost.total()
    if shared == 0 or 2 * shared < limit * (len(ours) + len(theirs)):
        return False
    if [word for word in ours if word not in lost] != [word for word in theirs if word not in added]:
        return False
    return not _matters(set(lost), set(added), _names(first, language) | _names(second, language), language)


def _content(text: Text, language: Language | None) -> list[str]:
    """The words with content, in order; all words where the language is not known."""
    return [word for word in text.words if language is None or language.has_content(word)]


def _with_inflections_of(ours: list[str], theirs: list[str]) -> list[str]:
    """Their words, each that is an inflection of one of ours replaced by that."""
    lost, added = sorted(set(ours) - set(theirs)), sorted(set(theirs) - set(ours))
    if max(len(lost), len(added)) > _MOST_DIFFERENCES:
        return theirs
    replaced = {word: other for word in added for other in lost if _is_inflection(word, other)}
    return [replaced.get(word, word) for word in theirs]


def _is_inflection(word: str, other: str) -> bool:
    stem = max(len(word) - _ENDING, len(other) - _ENDING, _STEM)
    return min(len(word), len(other)) >= _STEM and word[:stem] == other[:stem]


def _names(text: Text, language: Language | None) -> set[str]:
    """Words with a capital letter, their case folded; not a first word that is no name."""
    first, *others = text.written_words
    names = {word.casefold() for word in others if word != word.lower()}
    opening = first.casefold()
    if language is None or not (language.opens_request(opening) or opening in language.stop_words):
        names.add(opening)
    return names


def _matters(lost: set[str], added: set[str], names: set[str], language: Language | None) -> bool:
    """Whether words that only one of two questions has make them different questions."""
    for word in lost | added:
        if word in names or any(map(str.isdigit, word)):
            return True
        if language is not None and (word in language.negations or word in language.question_words):
            return True
    return any(_excludes(word, other) for word in lost for other in added)


def _excludes(word: str, other: str) -> bool:
    """Whether one word instead of the other asks for something else; unclear in scripts without case."""
    return word.upper() == word or word[-_OPPOSITE:] == other[-_OPPOSITE:]
