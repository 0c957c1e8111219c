"""The door to py3langid, which tells a text's language.

Naive Bayes over byte n-grams: nothing is drawn at random, and the model is part
of the package.
"""

from functools import cache

from py3langid.langid import MODEL_FILE, LanguageIdentifier

#: A text's beginning tells its language.
_CHARACTERS = 1000
#: A language that has no greater probability is excluded.
EXCLUDED = 0.02


def most_likely(text: str) -> tuple[str, float]:
    """The most likely language of a text and its probability; ``zxx`` is no language, as of code."""
    language, probability = _identifier().classify(text[:_CHARACTERS])
    return language, probability


def probabilities(text: str) -> dict[str, float]:
    """The probability of each of 140 languages, by their codes."""
    return dict(_identifier().rank(text[:_CHARACTERS]))


def may_be(text: str, code: str) -> bool:
    """Whether a text may be in a language, however unlikely."""
    return probabilities(text)[code] > EXCLUDED


@cache
def _identifier() -> LanguageIdentifier:
    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
