"""Which new pairs come as far as the contest for places, and what is found on the way.

In this order: length and language; evaluation sets; texts that the SFT set, an earlier pair
or another new pair has too; sources and openings of which there are too many. Everything is
off unless it is configured. Meanings are compared later, as the pairs are embedded.

The SFT set passes once, as it is written: what is near to a pair is known behind its end.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Self

import numpy as np

from aitp_tasks.config import RunConfig, SftHits
from aitp_tasks.encoder.opened import open_encoder
from aitp_tasks.inputs.examples import Example, Rejection
from aitp_tasks.inputs.forms import compared
from aitp_tasks.inputs.rows import Refusal
from aitp_tasks.records import digest, earlier, indexed
from aitp_tasks.records.earlier import Earlier
from aitp_tasks.records.pair_texts import Pair
from aitp_tasks.records.run import Run
from aitp_tasks.records.vectors import Vectors
from aitp_tasks.selection import left_out, near_texts, pair_gates
from aitp_tasks.selection.contamination import sets
from aitp_tasks.selection.contamination.guard import CONTAMINATED, EARLIER, NEW, SFT, Guard
from aitp_tasks.selection.contamination.meanings import Embedded
from aitp_tasks.selection.contamination.report import Found
from aitp_tasks.selection.personal_data import PersonalData
from aitp_tasks.vector_index.opened import OpenIndex

#: The reason of pairs whose text another text is like.
NEAR_TEXT = "near_text"
Item = Example | Rejection | Refusal


class Incoming:
    """The new pairs on their way into a version."""

    def __init__(
        self,
        config: RunConfig,
        made: Sequence[Pair],
        before: Earlier,
        guard: Guard,
        personal: PersonalData | None = None,
    ) -> None:
        """Look at all pairs; the SFT set has not passed yet.

        Args:
            config: of the run.
            made: the new pairs, in the order in which they are taken.
            before: the pairs of the version before.
            guard: with the evaluation sets.
            personal: counts what the SFT set holds of personal data.
        """
        self._config = config
        self.before = before
        self._settings = config.assemble
        #: New pairs that do not come in, rows of ``left_out.SCHEMA``.
        self.refused: list[dict[str, Any]] = []
        #: Why some earlier pairs leave, rows of ``left_out.SCHEMA`` by the pairs' ids.
        self.leaving: dict[str, dict[str, Any]] = {}
        self.guard = guard
        self._personal = personal or PersonalData(config.assemble)
        #: SFT examples that are left out, with what each holds.
        self.dropped: list[Found] = []
        open_ = self._keep(made, lambda pair: pair_gates.closed(pair, self._settings))
        self._pairs = self._uncontaminated(open_)
        self._look_at_earlier()
        self._texts: near_texts.NearTexts | None = None
        if self._settings.max_text_similarity < 1:
            named = ((str(pair["pair_id"]), _text(pair)) for pair in self._pairs)
            self._texts = near_texts.NearTexts(named, self._settings.max_text_similarity)
            for pair in before.rows:
                if pair["pair_id"] not in self.leaving:
                    self._texts.see(str(pair["pair_id"]), _text(pair))

    @classmethod
    def of_run(cls, run: Run, made: Sequence[Pair], personal: PersonalData) -> Self:
        """The same, of a run.

        Raises:
            InputError: an earlier stage has not been run, or an evaluation set cannot be read.
            ObjectChangedError: one was replaced since the run was planned.
        """
        settings = run.config.contamination
        guard = Guard(sets.read(run.storage, settings, run.plan.evaluation), settings)
        if guard.compares_meanings:
            with OpenIndex(run.storage, indexed.keys(run, "sft"), "sft") as index:
                guard.embed(open_encoder(run.config.encoder, run.plan.encoder_identity), index)
        return cls(run.config, made, earlier.read(run), guard, personal)

    def watched(self, examples: Iterable[tuple[str, Item]]) -> Iterator[tuple[Item, str | None]]:
        """Each row of the SFT set, given with its place, and why it is left out here, if it is.

        Raises:
            InputError: the SFT set is one of the evaluation sets.
        """
        looked = self.guard.looked_at(SFT, map(self._sft_row, examples))
        for (place, item), found in looked:
            if isinstance(item, Example):
                self._personal.count(SFT, _said(item))
            drops = found is not None and self._config.contamination.sft is SftHits.DROP
            if found is not None and drops:
                self.dropped.append(found)
            elif isinstance(item, Example) and self._texts is not None:
                self._texts.see(place, "\n".join(_said(item)))
            yield item, CONTAMINATED if drops else None
        self.guard.require_other_than_sft()

    def settle(self) -> list[Pair]:
        """The pairs that go on, once the SFT set has passed."""
        near = self._texts.near() if self._texts is not None else {}
        kept = []
        for pair in self._pairs:
            found = near.get(str(pair["pair_id"]))
            if found is None:
                kept.append(pair)
            else:
                self._refuse(pair, NEAR_TEXT, found.name, found.similarity)
        crowded = pair_gates.crowded(kept, self._settings)
        self._pairs = self._keep(kept, lambda pair: crowded.get(str(pair["pair_id"])))
        return self._pairs

    def unlike_items(self, pairs: Sequence[Pair], embedded: Embedded) -> Embedded:
        """The vectors of pairs as they are made, without those that say what an evaluation item says.

        Args:
            pairs: that are embedded.
            embedded: vectors whose rows are places among the pairs.
        """
        for found, refused in embedded:
            close = self.guard.close_to(
                [str(pairs[row]["pair_id"]) for row in found.rows.tolist()], found.values
            )
            self.refused += [
                row_of(pairs[row], one, earlier=False)
                for row, one in zip(found.rows.tolist(), close, strict=True)
                if one is not None
            ]
            stays = np.array([one is None for one in close], bool)
            ids = [doc_id for doc_id, one in zip(found.doc_ids, close, strict=True) if one is None]
            yield Vectors(ids, found.rows[stays], found.values[stays]), refused

    def _keep(self, pairs: Iterable[Pair], closed: Callable[[Pair], str | None]) -> list[Pair]:
        kept = []
        for pair in pairs:
            reason = closed(pair)
            if reason is None:
                kept.append(pair)
            else:
                self._refuse(pair, reason)
        return kept

    def _uncontaminated(self, pairs: Iterable[Pair]) -> list[Pair]:
        kept = []
        rows = ((pair, str(pair["pair_id"]), pair_gates.texts(pair), "") for pair in pairs)
        for pair, found in self.guard.looked_at(NEW, rows):
            if found is None:
                kept.append(pair)
            else:
                self.refused.append(row_of(pair, found, earlier=False))
        return kept

    def _look_at_earlier(self) -> None:
        known = zip(self.before.rows, self.before.text_ids, strict=True)
        rows = ((pair, str(pair["pair_id"]), pair_gates.texts(pair), text_id) for pair, text_id in known)
        for pair, found in self.guard.looked_at(EARLIER, rows):
            if found is not None:
                self.leaving[str(pair["pair_id"])] = row_of(pair, found, earlier=True)

    def _refuse(self, pair: Pair, reason: str, like: str = "", similarity: float | None = None) -> None:
        self.refused.append(
            left_out.row(pair, reason, earlier=False, like=like or None) | {"similarity": similarity}
        )

    def _sft_row(self, row: tuple[str, Item]) -> tuple[tuple[str, Item], str, list[str], str]:
        place, item = row
        if not isinstance(item, Example):
            return row, place, [], ""
        text = compared.text(item, self._config.sft_text) if self.guard.compares_meanings else None
        return row, place, _said(item), digest.of_text(text) if isinstance(text, str) else ""


def row_of(pair: Pair, found: Found, *, earlier: bool) -> dict[str, Any]:
    """A row of ``left_out.SCHEMA`` for a pair that holds an evaluation item."""
    like = f"{found.item} ({found.rule}, {max(found.share_of_item, found.similarity or 0.0):.0%})"
    row = left_out.row(pair, CONTAMINATED, earlier=earlier, like=like)
    return row | {"similarity": found.similarity}


def _text(pair: Pair) -> str:
    return "\n".join(pair_gates.texts(pair))


def _said(example: Example) -> list[str]:
    """The texts of an example's turns."""
    return [str(turn["content"]) for turn in example.messages if turn["content"]]
