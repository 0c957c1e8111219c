"""Personal data in texts, by kind: counted, and masked in new pairs where the configuration names a kind.

The rules are datafog's, patterns without a model: they see what looks like an address or a
number, and cannot tell a customer's from one that is made up. Dates and five digits are
mostly neither births nor post codes, so that what is masked is for a person to choose. An
example of the SFT set is never changed. Nothing leaves the machine, and no text that is found is told.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from aitp_tasks.config import Assemble, PersonalKind
from aitp_tasks.records.pair_texts import Pair

#: What datafog calls the kinds.
_LABELS = {
    PersonalKind.EMAIL: "EMAIL",
    PersonalKind.PHONE: "PHONE",
    PersonalKind.SSN: "SSN",
    PersonalKind.CREDIT_CARD: "CREDIT_CARD",
    PersonalKind.IP_ADDRESS: "IP_ADDRESS",
    PersonalKind.DATE: "DOB",
    PersonalKind.ZIP: "ZIP",
}


class PersonalData:
    """Looks for personal data, and counts it by dataset and kind."""

    def __init__(self, settings: Assemble) -> None:
        self._masked = [kind for kind in _LABELS if kind in settings.mask]
        self._annotator: Any = None
        if settings.personal_data or settings.mask:
            # Loads in half a second, which only those pay who ask for it.
            from datafog.processing.text_processing.regex_annotator import RegexAnnotator

            self._annotator = RegexAnnotator(enabled_labels=list(_LABELS.values()))
        self._counts: dict[str, dict[PersonalKind, Counter[str]]] = {}

    def __bool__(self) -> bool:
        """Whether anything is looked for."""
        return self._annotator is not None

    def masked(self, dataset: str, pairs: Iterable[Pair]) -> Iterator[Pair]:
        """The pairs, with what is to be masked replaced by its kind in brackets; counted all the same."""
        for pair in pairs:
            yield self._masked_pair(dataset, pair) if self else pair

    def count(self, dataset: str, texts: Sequence[str]) -> None:
        """Count what the texts of one row hold."""
        if self:
            self._note(dataset, [found for text in texts for found in self._find(text)], masked=False)

    def figures(self) -> dict[str, dict[str, dict[str, int]]]:
        """By dataset and kind: ``rows`` that hold any, how many are ``found`` and how many ``masked``."""
        return {
            dataset: {kind.value: dict(sorted(counted.items())) for kind, counted in sorted(kinds.items())}
            for dataset, kinds in sorted(self._counts.items())
        }

    def _masked_pair(self, dataset: str, pair: Pair) -> Pair:
        found = [self._find(str(turn["content"])) for turn in pair["messages"]]
        self._note(dataset, [one for of_turn in found for one in of_turn], masked=True)
        messages = [
            {
                **turn,
                "content": _replaced(
                    str(turn["content"]), [one for one in of_turn if one[0] in self._masked]
                ),
            }
            for turn, of_turn in zip(pair["messages"], found, strict=True)
        ]
        return {**pair, "messages": messages}

    def _find(self, text: str) -> list[tuple[PersonalKind, int, int]]:
        """What a text holds: kind, start and end, in their order; what begins within another is left out."""
        kinds = {label: kind for kind, label in _LABELS.items()}
        spans = sorted(
            (span.start, -span.end, kinds[span.label])
            for span in self._annotator.annotate_with_spans(text)[1].spans
            if span.label in kinds
        )
        found, behind = [], 0
        for start, minus_end, kind in spans:
            if start >= behind:
                found.append((kind, start, -minus_end))
                behind = -minus_end
        return found

    def _note(self, dataset: str, found: Sequence[tuple[PersonalKind, int, int]], *, masked: bool) -> None:
        counts = self._counts.setdefault(dataset, {})
        for kind, number in Counter(kind for kind, _, _ in found).items():
            counted = counts.setdefault(kind, Counter())
            is_masked = masked and kind in self._masked
            counted.update({"rows": 1, "found": number, "masked": number if is_masked else 0})


def _replaced(text: str, found: Sequence[tuple[PersonalKind, int, int]]) -> str:
    pieces, behind = [], 0
    for kind, start, end in found:
        pieces += [text[behind:start], f"[{kind.name}]"]
        behind = end
    return "".join([*pieces, text[behind:]])
