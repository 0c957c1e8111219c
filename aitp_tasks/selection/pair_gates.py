"""Gates of single pairs and of crowds of them, which need no model: language, length, opening, source."""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from aitp_tasks.config import Assemble
from aitp_tasks.records.pair_texts import Pair
from aitp_tasks.texts import identification, plain, words

LANGUAGE, OPENING, SOURCE = "other_language", "same_opening", "over_source_cap"
#: Words of a question that are its opening.
OPENING_WORDS = 4
#: A language is sure from this probability on, if those that are kept are as good as excluded.
_SURE = 0.8
#: What the model calls a text that is in no language.
_NO_LANGUAGE = "zxx"


def closed(pair: Pair, settings: Assemble) -> str | None:
    """Why a pair does not come in, or None if it may.

    Takes any text and never fails; where a gate cannot tell, it is open.

    Returns:
        ``question_too_short``, ``question_too_long``, ``answer_too_short``, ``answer_too_long`` or
        ``other_language``: the first that applies.
    """
    for what, text in zip(("question", "answer"), texts(pair), strict=True):
        low, high = (getattr(settings, f"{bound}_{what}_words") for bound in ("min", "max"))
        if low is None and high is None:
            continue
        length = words.count(words.split(words.normal(text)))
        if low is not None and length < low:
            return f"{what}_too_short"
        if high is not None and length > high:
            return f"{what}_too_long"
    if settings.languages and _is_other(" ".join(texts(pair)), settings.languages):
        return LANGUAGE
    return None


def crowded(pairs: Sequence[Pair], settings: Assemble) -> dict[str, str]:
    """Why some of a run's pairs do not come in that too many others are like, by their ids.

    Args:
        pairs: in the order in which they are taken.
        settings: of the gates.
    """
    found: dict[str, str] = {}
    if settings.max_pairs_per_source is not None:
        sources = ((str(pair["pair_id"]), pair["source"]) for pair in pairs)
        found |= _over(sources, settings.max_pairs_per_source, SOURCE)
    if settings.max_same_opening < 1:
        left = [(str(pair["pair_id"]), opening(pair)) for pair in pairs if str(pair["pair_id"]) not in found]
        # Rounded, because 0.29 * 100 is a little less than 29.
        most = max(int(round(settings.max_same_opening * len(left), 6)), 1)
        found |= _over(left, most, OPENING)
    return found


def opening(pair: Pair) -> tuple[str, ...]:
    """The words that a pair's question begins with."""
    return tuple(plain.split(texts(pair)[0])[:OPENING_WORDS])


def texts(pair: Pair) -> tuple[str, str]:
    """Question and answer."""
    question, answer = (str(turn["content"]) for turn in pair["messages"])
    return question, answer


def _over(values: Iterable[tuple[str, Any]], most: int, reason: str) -> dict[str, str]:
    """The ids that come after so many with the same value."""
    seen: Counter[Any] = Counter()
    found = {}
    for pair_id, value in values:
        seen[value] += 1
        if seen[value] > most:
            found[pair_id] = reason
    return found


def _is_other(text: str, kept: Sequence[str]) -> bool:
    """Whether a text is surely in none of some languages."""
    likely, probability = identification.most_likely(text)
    if likely in (*kept, _NO_LANGUAGE) or probability < _SURE:
        return False
    found = identification.probabilities(text)
    return all(found.get(code, 0.0) <= identification.EXCLUDED for code in kept)
