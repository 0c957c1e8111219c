"""Members in tags: ``<quality>8</quality>``, each once and closed."""

import re
from functools import lru_cache
from itertools import islice

from aitp_tasks.generation.responses.keys import Keys
from aitp_tasks.generation.responses.values import Members

_MOST_TAGS = 100
#: Whether they stand for themselves or for other signs is not clear.
_MARKUP = re.compile(r"&(?:lt|gt|amp|quot|apos|#\w++);|<!\[CDATA\[")


def members(text: str, keys: Keys) -> tuple[int, int, Members] | None:
    """Where they start and end, and the members; None if the tags do not pair, or text is between them."""
    tags = list(islice(_tag(keys).finditer(text), _MOST_TAGS))
    names = [tag["name"] for tag in tags]
    if any(name.casefold() == keys.singular for name in names):
        # Tags of the items; those of the list around them say nothing more.
        tags = [tag for tag in tags if keys.name(tag["name"]) != keys.only_list]
    found = Members()
    for opening, closing in zip(tags[::2], tags[1::2], strict=False):
        value = text[opening.end() : closing.start()].strip()
        pair = opening["name"] == closing["name"] and not opening["slash"] and closing["slash"]
        if not pair or _MARKUP.search(value):
            return None
        found.append((opening["name"], value))
    between = [text[one.end() : two.start()] for one, two in zip(tags[1::2], tags[2::2], strict=False)]
    if not tags or len(tags) % 2 or any(part.strip() for part in between):
        return None
    return tags[0].start(), tags[-1].end(), found


def _tag(keys: Keys) -> re.Pattern[str]:
    return _pattern(f"{keys.spellings}|{keys.singular}" if keys.singular else keys.spellings)


@lru_cache(maxsize=16)
def _pattern(names: str) -> re.Pattern[str]:
    return re.compile(rf"<(?P<slash>/?+)(?P<name>{names})>", re.IGNORECASE)
