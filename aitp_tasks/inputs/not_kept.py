"""What rows hold beside their examples: in how many rows each column, or key of a turn, held something."""

from collections.abc import Iterable, Mapping

#: Names that are counted apart: a set may use keys as values.
_MOST_NAMES = 200
_OTHERS = "(others)"


class NotKept:
    """Counts rows by the names of what is not kept of them."""

    def __init__(self, unread: Mapping[str, int] | None = None) -> None:
        """``unread``: rows by names of columns that are not read at all."""
        self._counts: dict[str, int] = {}
        for name, rows in (unread or {}).items():
            self._add(name, rows)

    def add(self, names: Iterable[str]) -> None:
        """Count one row."""
        for name in names:
            self._add(name, 1)

    @property
    def counts(self) -> dict[str, int]:
        """Rows by name, the most frequent first."""
        return dict(sorted(self._counts.items(), key=lambda item: (-item[1], item[0])))

    def _add(self, name: str, rows: int) -> None:
        if rows:
            known = name in self._counts or len(self._counts) < _MOST_NAMES
            key = name if known else _OTHERS
            self._counts[key] = self._counts.get(key, 0) + rows
