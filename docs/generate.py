"""Writes what docs/ takes from the code, so that nothing is written twice.

``make docs`` runs it; tests/docs/test_generated.py fails while a file is not what it would write.
"""

import sys
from collections.abc import Callable
from pathlib import Path

from docs.from_code import commands, configuration, messages, walls

DOCS = Path(__file__).resolve().parent


#: Each generated file, and what makes its content.
FILES: dict[str, Callable[[], str]] = {
    "reference/configuration.md": configuration.page,
    "reference/commands.md": commands.page,
    "reference/messages.md": lambda: messages.page(DOCS.parent),
    "pictures/walls.svg": lambda: walls.picture(DOCS.parent),
}


def main() -> None:
    """Write every file and say which."""
    for name, content in FILES.items():
        path = DOCS / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content(), encoding="utf-8")
        sys.stdout.write(f"wrote docs/{name}\n")


if __name__ == "__main__":
    main()
