"""Programs, their comments and their manuals as answers in JSON: none comes back changed."""

import ast
import json
import random
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

from aitp_tasks.generation.responses import UnreadableError, read

SCHEMA = {"type": "object", "properties": {"answer": {"type": "string"}}, "required": ["answer"]}
#: How many texts, of how many files, and of how many characters at most.
TEXTS, FILES, LENGTH = 5000, 1200, 4000


def files() -> list[Path]:
    """Sources and manuals of what is installed, any of them as likely as any other."""
    found = {
        Path(str(name.locate()))
        for distribution in metadata.distributions()
        for name in distribution.files or []
        if name.suffix in (".py", ".md", ".rst", ".ipynb", ".sh", ".js", ".txt") or name.name == "METADATA"
    }
    return random.Random(0).sample(sorted(found), FILES)


def texts(path: Path) -> Iterator[str]:
    """A file's first characters; of a program its functions and their docstrings too."""
    try:
        source = path.read_text(encoding="utf-8")
        tree = ast.parse(source) if path.suffix == ".py" else ast.Module([], [])
    except (OSError, UnicodeDecodeError, SyntaxError, ValueError, RecursionError):
        return
    yield source[:LENGTH]
    lines = source.splitlines()
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield "\n".join(lines[node.lineno - 1 : node.end_lineno])[:LENGTH]
            yield (ast.get_docstring(node) or "")[:LENGTH]


def test_no_code_that_is_json_is_changed() -> None:
    written = sorted({text for path in files() for text in texts(path) if len(text) > 40})
    chosen = random.Random(0).sample(written, TEXTS)
    refused = []
    for text in chosen:
        for answer in (json.dumps({"answer": text}), json.dumps({"answer": text}, ensure_ascii=False)):
            try:
                response = read(answer, SCHEMA)
            except UnreadableError as error:
                refused.append(str(error))
                continue
            assert (response.value, response.repairs) == ({"answer": text}, ())
    print(*refused, sep="\n")
    assert len(refused) <= TEXTS / 500
