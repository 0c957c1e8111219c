"""Text for a terminal: document text is data there too, and moves no cursor."""


def printable(text: str, characters: int | None = None) -> str:
    """The beginning of a text in one line: whatever does not print is written as an escape."""
    shown = "".join(
        one if one.isprintable() else one.encode("unicode_escape").decode("ascii")
        for one in text[:characters]
    )
    return shown if characters is None or len(text) <= characters else f"{shown} …"
