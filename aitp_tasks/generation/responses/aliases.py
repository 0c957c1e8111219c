"""Names of one and the same member in different prompts: ours, and those of the authors' prompts."""

#: What we read, and what other prompts call it.
ALIASES = {"additional_information": ("additional_information_needed",)}
_OURS = {alias: name for name, aliases in ALIASES.items() for alias in aliases}


def canonical(name: str) -> str:
    """Our name of a member."""
    return _OURS.get(name, name)


def spellings(name: str) -> tuple[str, ...]:
    """All names of a member, ours first."""
    ours = canonical(name)
    return ours, *ALIASES.get(ours, ())
