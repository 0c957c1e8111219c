"""Every command that README.md and docs/ show is run, against the finished run of the end-to-end test.

What a page marks by ``<!-- not run: reason -->`` is left out; tests/docs/test_commands.py checks the marks.
The commands of a page run in its order, so one may use what the one before it has left.
"""

import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.docs.console import pages, shown
from tests.e2e.conftest import Pipeline

#: Each command, and where it is shown first: equal ones are run once.
PLACES: dict[str, str] = {}
for _page in pages():
    for _command in shown(_page):
        if _command.not_run is None:
            PLACES.setdefault(_command.text, _command.place)

pytestmark = pytest.mark.timeout(1500)


@pytest.fixture(scope="module")
def environment(pipeline: Pipeline, first: dict[str, Any], repository: Path) -> dict[str, str]:
    """What the pages say that a reader has: a run, its configuration, a document and credentials."""
    (found,) = pipeline.aitp("search", "a river", "--run", first["run"], "-k", "1")["matches"]
    shown = pipeline.aitp("dataset", "show", "--config", str(pipeline.config))["examples"]
    given = {
        "RUN": first["run"],
        "CONFIG": str(pipeline.config),
        "DOC_ID": found["doc_id"],
        # Without a pair, what asks for one fails, and nothing else.
        "PAIR_ID": next((pair["pair_id"] for pair in shown), ""),
    }
    path = f"{repository}/.venv/worker/bin{os.pathsep}{os.environ['PATH']}"
    return {**os.environ, **pipeline.services.storage_environment(), **given, "PATH": path}


@pytest.mark.parametrize("text", PLACES, ids=lambda text: text.splitlines()[0])
def test_a_documented_command_works(text: str, environment: dict[str, str], repository: Path) -> None:
    done = subprocess.run(
        ["bash", "-c", text], cwd=repository, env=environment, capture_output=True, text=True, timeout=900
    )
    assert done.returncode == 0, f"{PLACES[text]} shows a command that fails:\n{done.stderr[-3000:]}"
