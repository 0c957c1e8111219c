"""How many documents of each region to draw, by the pairs that the tokens spent there have given.

A region's share follows its rate: kept pairs over generated tokens. A floor keeps every region in
play, so that one which was unlucky, or has changed, is measured again. What nothing is known
of counts as the best that is known. A region whose documents run out passes its share on.

All of it is whole numbers and fractions: neither the order of the regions nor a machine rounds
otherwise.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fractions import Fraction

from aitp_tasks.records import digest


@dataclass(frozen=True)
class Region:
    """What is known of one region.

    Attributes:
        available: documents that can be drawn there.
        documents: that were rewritten there before; 0 where nothing is measured.
        pairs: that were kept of them.
        tokens: that were generated for them.
    """

    available: int
    documents: float = 0.0
    pairs: float = 0.0
    tokens: float = 0.0


def allot(regions: Mapping[str, Region], budget: int, floor: int, seed: int = 0) -> dict[str, int]:
    """How many documents to draw of each region, by its name.

    They are ``budget`` together, or all that there are: in proportion to the regions' rates, but
    of none fewer than the floor or more than are available. Where no region has given a pair,
    all count alike.

    Args:
        regions: by name.
        budget: documents in all.
        floor: documents that every region gets, whatever its rate, as far as it has them; lower where the
            budget is too small for that.
        seed: of the hashes that decide between equal claims to one more document.

    Raises:
        ValueError: a number is negative.
    """
    numbers = [budget, floor, *(number for region in regions.values() for number in vars(region).values())]
    if min(numbers) < 0:
        raise ValueError(f"{min(numbers)} is no number of documents, pairs or tokens: give 0 or more")
    most = {name: region.available for name, region in regions.items()}
    total = min(budget, sum(most.values()))
    floor = _possible(floor, most.values(), total)
    least = {name: min(floor, available) for name, available in most.items()}
    shares = _shares(_rates(regions), least, most, total)
    return _whole(shares, total, {name: digest.of_value([seed, name]) for name in regions})


def floor_of(regions: Mapping[str, Region], budget: int, share: float) -> int:
    """Documents that are a share of an even share: one at least, where there is one for each region."""
    there = sum(region.available > 0 for region in regions.values())
    if budget < there or not there:
        return 0
    return max(int(Fraction(share) * Fraction(budget, there)), 1)


def _possible(floor: int, available: Iterable[int], total: int) -> int:
    """The highest floor, up to one that is wanted, of which all regions' are no more than the total."""
    sizes = sorted(available)
    low, high = 0, floor
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if sum(min(middle, size) for size in sizes) <= total else (low, middle - 1)
    return low


def _rates(regions: Mapping[str, Region]) -> dict[str, Fraction]:
    """Kept pairs over tokens, or over documents where a server tells no tokens; all 1 where no pair was."""
    by_tokens = any(region.tokens for region in regions.values())
    spent = {
        name: Fraction(region.tokens if by_tokens else region.documents) for name, region in regions.items()
    }
    rates = {name: Fraction(regions[name].pairs) / cost for name, cost in spent.items() if cost}
    best = max(rates.values(), default=Fraction(0))
    if not best:
        return {name: Fraction(1) for name in regions}
    return {name: rates.get(name, best) for name in regions}


def _shares(
    rates: dict[str, Fraction], least: dict[str, int], most: dict[str, int], total: int
) -> dict[str, Fraction]:
    """Shares in proportion to the rates, between their ends, that are the total together."""
    giving = [name for name, rate in rates.items() if rate]
    others = [name for name in rates if name not in giving]
    left = total - sum(least[name] for name in others)
    if sum(most[name] for name in giving) >= left:
        return {name: Fraction(least[name]) for name in others} | _between(giving, rates, least, most, left)
    # All that give pairs are exhausted: the others share what is left evenly.
    taken = {name: Fraction(most[name]) for name in giving}
    left = total - sum(most[name] for name in giving)
    return taken | _between(others, dict.fromkeys(others, Fraction(1)), least, most, left)


def _between(
    names: Iterable[str],
    rates: dict[str, Fraction],
    least: dict[str, int],
    most: dict[str, int],
    total: int,
) -> dict[str, Fraction]:
    """In proportion, but for those that this would take beyond an end: they are set to it.

    As flexible boxes are laid out: of both ends, those come first that take the sum the wrong way,
    and the rest is shared anew until none does.
    """
    free, left, found = list(names), Fraction(total), dict[str, Fraction]()
    while free:
        weight = sum((rates[name] for name in free), Fraction(0))
        wanted = {name: left * rates[name] / weight for name in free}
        bound = {name: min(max(wanted[name], Fraction(least[name])), Fraction(most[name])) for name in free}
        over = sum(bound.values(), Fraction(0)) - left
        ended = {name: bound[name] for name in free if not over or (bound[name] - wanted[name]) * over > 0}
        found |= ended
        left -= sum(ended.values(), Fraction(0))
        free = [name for name in free if name not in ended]
    return found


def _whole(shares: dict[str, Fraction], total: int, hashes: dict[str, str]) -> dict[str, int]:
    """Whole numbers by the largest remainders; of equal ones, the first by their hashes."""
    found = {name: int(share) for name, share in shares.items()}
    by_remainder = sorted(shares, key=lambda name: (found[name] - shares[name], hashes[name], name))
    for name in by_remainder[: total - sum(found.values())]:
        found[name] += 1
    return found
