"""The licences that the hub knows, from a list that it has published; nothing is asked of the hub."""

import difflib
from functools import cache
from pathlib import Path

#: A licence of one's own, which is told by its name and a link.
OTHER = "other"
_LIST = Path(__file__).with_name("licences.tsv")
_NEAREST = 3


@cache
def known() -> dict[str, str]:
    """Full names by identifier."""
    lines = _LIST.read_text(encoding="utf-8").splitlines()
    return dict(line.split("\t") for line in lines if not line.startswith("#"))


def require(licence: str) -> str:
    """The licence, if the hub knows it.

    Raises:
        ValueError: it does not; the nearest ones that it knows are named.
    """
    if licence in known():
        return licence
    nearest = difflib.get_close_matches(licence.lower(), known(), _NEAREST, cutoff=0.4)
    named = f"the nearest that it knows: {', '.join(nearest)}; " if nearest else ""
    raise ValueError(
        f"the hub knows no licence {licence!r}: {named}for one of your own, {OTHER} with license_name and "
        "license_link"
    )
