"""Which pairs a version holds, of the earlier ones and of the new ones.

Earlier pairs leave for an SFT example that says the same; new ones that the dataset
has already do not come in (see ``twins`` and ``near_duplicates``). Where there is not
room for all, they compete (see ``race``), and the version covers no less of the corpus
than the earlier ones alone would.
"""

import logging
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aitp_tasks.config import Criterion
from aitp_tasks.densities.grid import Points
from aitp_tasks.encoder.opened import open_encoder
from aitp_tasks.inputs.forms import compared
from aitp_tasks.records import digest, earlier, indexed, projected
from aitp_tasks.records.earlier import Earlier
from aitp_tasks.records.pair_texts import Pair
from aitp_tasks.records.run import Run
from aitp_tasks.selection import left_out, near_duplicates, race, twins
from aitp_tasks.selection.coverage import Coverage
from aitp_tasks.selection.gain import Sides
from aitp_tasks.selection.incoming import Incoming
from aitp_tasks.vector_index.opened import OpenIndex

log = logging.getLogger(__name__)

TWIN, NO_ROOM = "sft_twin", "over_rewritten_share"


@dataclass
class Choice:
    """What became of each pair.

    Attributes:
        earlier: pairs of the version before that stay.
        new: pairs that come in.
        left_out: of both, those that do not, rows of ``left_out.SCHEMA``.
        duplicates: new pairs that the dataset has already, rows of ``near_duplicates.SCHEMA``.
        uncovered: share of the corpus that the SFT set and all these pairs do not cover.
        uncovered_before: the same of the earlier pairs that might have stayed, over as many examples.
        sides: densities before and after the new pairs.
    """

    earlier: list[Pair]
    new: list[Pair]
    left_out: list[dict[str, Any]]
    sides: Sides
    duplicates: list[dict[str, Any]] = field(default_factory=list)
    uncovered: float = 0.0
    uncovered_before: float = 0.0


def compared_with(run: Run, sft: str) -> str:
    """Digest of all that earlier pairs are compared with: once is enough."""
    limit = run.config.assemble.max_similarity
    return digest.of_value([run.plan.encoder_digest, sft, run.config.sft_text.value, limit])


def choose(run: Run, incoming: Incoming, sft: str, room: int | None) -> Choice:
    """Choose among the earlier pairs and new ones.

    Args:
        run: whose pairs they are.
        incoming: the earlier pairs and the new ones, in the order of their ids; which of both do not stay.
        sft: digest of the SFT set.
        room: for so many pairs in all; None for any number.

    Raises:
        InputError: an earlier stage has not been run, or what it has left is damaged.
    """
    before = incoming.before
    with ExitStack() as stack:
        index = None
        if run.config.assemble.max_similarity < 1:
            index = stack.enter_context(OpenIndex(run.storage, indexed.keys(run, "sft"), "sft"))
        gone = _twins(run, before, index, compared_with(run, sft))
        fresh = _without_duplicates(run, incoming, index)
    leaving = incoming.leaving | {
        str(pair["pair_id"]): left_out.row(pair, TWIN, earlier=True, example=gone[text_id])
        for pair, text_id in zip(before.rows, before.text_ids, strict=True)
        if text_id in gone
    }
    contest = _Contest(
        run, before, np.array([pair["pair_id"] not in leaving for pair in before.rows], bool), fresh
    )
    chosen = contest.settle(room)
    chosen.left_out[:0] = [*leaving.values(), *incoming.refused]
    chosen.duplicates = fresh.duplicates
    return chosen


def _twins(run: Run, before: Earlier, index: OpenIndex | None, compared: str) -> dict[str, dict[str, Any]]:
    """SFT examples that earlier pairs are the same as, by the pairs' text ids."""
    limit, base = run.config.assemble.max_similarity, run.plan.base
    if index is None or base is None or base.compared == compared or not len(before):
        return {}
    same = twins.same_texts(before.text_ids, earlier.sft_text_ids(run))
    shards = frozenset(shard.key for group in run.plan.groups_of_pairs for shard in group.shards)
    near = twins.near(earlier.all_vectors(run), index, shards, same, limit)
    # Where the index has the text from is no matter.
    return near | {text_id: {"shard": None, "row": None, "similarity": 1.0} for text_id in same}


def _without_duplicates(run: Run, incoming: Incoming, index: OpenIndex | None) -> near_duplicates.Selection:
    """The new pairs with their vectors, but for those that the dataset has already."""
    made = incoming.settle()
    if not made:
        return near_duplicates.Selection()
    texts = (compared.of_pair(pair["messages"], run.config.sft_text) for pair in made)
    encoder = incoming.guard.encoder or open_encoder(run.config.encoder, run.plan.encoder_identity)
    embedded = incoming.unlike_items(made, encoder.vectors_of(texts))
    place = projected.geometry(run).projections["sft"].apply
    return near_duplicates.select(made, embedded, index, run.config.assemble.max_similarity, place)


class _Contest:
    """Earlier and new pairs, and what they cover."""

    def __init__(
        self,
        run: Run,
        before: Earlier,
        stays: NDArray[np.bool_],
        fresh: near_duplicates.Selection,
    ) -> None:
        geometry = projected.geometry(run)
        self._order = run.config.assemble.order
        self._coverage = Coverage.of_run(run, geometry)
        found = run.require_manifest("difference").figures
        # What the difference set calls covered; other criteria's thresholds are of something else.
        self._tau = found["tau"] if found["criterion"] == Criterion.DENSITY_RATIO else 1.0
        self._earlier = [pair for pair, stay in zip(before.rows, stays, strict=True) if stay]
        self._pairs = self._earlier + fresh.kept
        places = np.full((len(fresh.kept), geometry.components), np.nan)
        for number, pair in enumerate(fresh.kept):
            places[number] = fresh.points.get(str(pair["pair_id"]), np.nan)
        self._points = np.concatenate([before.points[stays], places])

    def settle(self, room: int | None) -> Choice:
        """Who stays."""
        everyone = list(range(len(self._pairs)))
        old = everyone[: len(self._earlier)]
        kept, remaining = self._best(everyone, room), self._best(old, room)
        if len(kept) < len(everyone):
            kept = self._covering(kept, remaining, room)
        return Choice(
            earlier=[self._pairs[place] for place in kept if place < len(old)],
            new=[self._pairs[place] for place in kept if place >= len(old)],
            left_out=[
                left_out.row(self._pairs[place], NO_ROOM, earlier=place < len(old))
                for place in sorted(set(everyone) - set(kept))
            ],
            sides=Sides.of(
                self._coverage.now["corpus"],
                self._coverage.sft_alone or self._coverage.now["sft"],
                self._placed([place for place in kept if place < len(old)]),
                self._placed([place for place in kept if place >= len(old)]),
                self._tau,
            ),
            uncovered=self._uncovered(kept)[0],
            uncovered_before=self._uncovered(remaining, self._examples(kept))[0],
        )

    def _best(self, some: list[int], room: int | None) -> list[int]:
        """Those of some pairs that stay when only they compete."""
        if room is None or len(some) <= room:
            return some
        gone = race.leaving(
            self._order,
            [self._pairs[place] for place in some],
            self._points[some],
            self._coverage.crowds(),
            len(some) - room,
        )
        out = set(gone)
        return [place for number, place in enumerate(some) if number not in out]

    def _covering(self, kept: list[int], remaining: list[int], room: int | None) -> list[int]:
        """Those kept, or with fewer new ones, so that the remaining alone would cover no more.

        Neither of tonight's corpus nor of all dumps of the line, nor of these and where pairs lie.
        """
        old = range(len(self._earlier))
        while self._covers_less(kept, remaining):
            new = [place for place in kept if place not in old]
            if not new:
                return remaining
            # The rarest half of them.
            rank = self._crowds(kept)
            best = sorted(new, key=lambda place: (rank[place], place))[: len(new) // 2]
            log.info("assemble pairs_held_back=%d: with them, less would be covered", len(new) - len(best))
            kept = self._best([*old, *best], room)
        return kept

    def _covers_less(self, kept: list[int], remaining: list[int]) -> bool:
        before = self._uncovered(remaining, self._examples(kept))
        return any(now > then for now, then in zip(self._uncovered(kept), before, strict=True))

    def _crowds(self, kept: list[int]) -> dict[int, float]:
        """The crowd of each pair among those kept; of one without a place, no end of it."""
        placed = [place for place in kept if not np.isnan(self._points[place]).any()]
        crowds = self._coverage.crowds().among(self._points[placed])
        return dict.fromkeys(kept, np.inf) | dict(zip(placed, crowds.tolist(), strict=True))

    def _examples(self, kept: list[int]) -> int:
        """How many examples a density is the mean over, with those pairs."""
        alone = self._coverage.sft_alone or self._coverage.now["sft"]
        return alone.grid.count + len(self._placed(kept))

    def _uncovered(self, kept: list[int], examples: int | None = None) -> list[float]:
        return self._coverage.uncovered_with(self._placed(kept), self._tau, examples)

    def _placed(self, kept: Sequence[int]) -> Points:
        points: Points = self._points[list(kept)]
        found: Points = points[~np.isnan(points).any(axis=1)]
        return found
