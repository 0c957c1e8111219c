"""What a branch of the hub names is asked once, when a run is planned."""

import json
from pathlib import Path

import pytest

from aitp_tasks.records.run import Run
from aitp_tasks.stages import plan
from tests.aitp_tasks.conftest import Configure
from tests.aitp_tasks.machine.hub import REPOSITORY, Hub, serving

_NAMES = ("config.json", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja")


def test_a_run_keeps_the_commit_that_its_branch_named(
    configure: Configure,
    smollm2: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    hub = Hub()
    files = {name: (smollm2 / name).read_bytes() for name in _NAMES}
    first = hub.commit("main", files)
    config = configure(finetune={"model": REPOSITORY, "revision": "main"})
    with serving(hub, tmp_path / "hub", monkeypatch), caplog.at_level("INFO"):
        planned = plan.execute(config)["run"]
        assert plan.execute(config)["run"] == planned
        assert Run.open(planned).config.finetune.revision == first
        assert f"the fine-tune of {REPOSITORY}@{first} (0.13 billion parameters) takes about" in caplog.text
        named = configure(finetune={"model": REPOSITORY, "revision": first})
        assert plan.execute(named)["run"] == planned
        second = hub.commit("main", {**files, "LICENSE": b"free"})
        later = plan.execute(config)["run"]
    assert later != planned
    assert json.loads(Run.open(later).plan.model_dump_json())["config"]["finetune"]["revision"] == second
    assert Run.open(planned).config.finetune.revision == first
