"""What `make docs` writes is what lies in docs/."""

import pytest

from docs.generate import DOCS, FILES


@pytest.mark.parametrize("name", FILES)
def test_a_generated_file_is_up_to_date(name: str) -> None:
    path = DOCS / name
    written = path.read_text(encoding="utf-8") if path.is_file() else None
    assert written == FILES[name](), f"docs/{name} is stale: run `make docs`"
