"""list and show, of versions that are not as they should be; the rest is in ``test_catalog_cases.py``."""

import json
from pathlib import Path
from typing import Any

import pytest

from aitp_tasks.config import RunConfig
from aitp_tasks.errors import InputError
from aitp_tasks.evaluation.intervals import Difference
from aitp_tasks.records import evaluated, pairs
from aitp_tasks.records.manifest import Manifest, commit
from aitp_tasks.tools.dataset import list as listing
from aitp_tasks.tools.dataset import rollback, show
from tests.aitp_tasks.conftest import Configure
from tests.aitp_tasks.tools.dataset.catalog_cases import PAIRS, VERSIONS, A
from tests.aitp_tasks.tools.dataset.made_line import LINE, MadeLine


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> MadeLine:
    """v1 <- v2 <- v3, the latest, and w2 on v1."""
    made = MadeLine(tmp_path_factory.mktemp("line"))
    for name, one in VERSIONS.items():
        held: Any = {pair: PAIRS[pair] for pair in one["pairs"]}
        made.add(name, held, one["base"], one["sft_rows"], one["left_out"], latest=name != "w2")
    return made


@pytest.fixture
def line(root: Path, written: MadeLine) -> MadeLine:
    """A copy of them."""
    return written.copied(root)


@pytest.fixture
def config(configure: Configure) -> RunConfig:
    return configure()


def change(line: MadeLine, name: str, **values: Any) -> None:
    path = line.root / f"datasets/{LINE}/{name}/version.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def listed(config: RunConfig) -> dict[str, dict[str, Any]]:
    return {row["name"]: row for row in listing.execute(config)["versions"]}


def test_of_an_earlier_release_its_run_says_how_much_it_holds(line: MadeLine, config: RunConfig) -> None:
    before = listed(config)
    change(line, "v2", contents=None)
    after = listed(config)
    assert list(after) == ["v1", "v2", "v3", "w2"]
    assert after["v2"] | {"made_at": ""} == before["v2"] | {"made_at": ""}
    # When it was written stands for when it was made; that is today, and yet it comes before v3.
    assert after["v2"]["made_at"] > before["v3"]["made_at"]
    (line.root / "runs/dump/v2/assemble/manifest.json").unlink()
    found = listed(config)["v2"]
    assert [found[name] for name in ("rows", "pairs", "sft_rows", "new_pairs", "earlier_pairs")] == [None] * 5
    assert show.execute(config, "v2")["removed"] is None


def test_what_cannot_be_read_is_named_and_holds_up_nothing_else(
    line: MadeLine, config: RunConfig, capsys: pytest.CaptureFixture[str]
) -> None:
    pairs.mark(line.storage, LINE, A, pairs.Mark(mark="good"))
    (line.root / f"datasets/{LINE}/v2/version.json").write_text('{"name": "v2"')
    change(line, "w2", unknown=1)
    (next((line.root / f"datasets/{LINE}/v1/data").glob("*"))).write_bytes(b"PAR1")
    found = listing.execute(config)
    printed = capsys.readouterr().err
    assert [row["name"] for row in found["versions"]] == ["v1", "v3"]
    assert {name: "cannot be read (" in why for name, why in found["unreadable"].items()} == {
        "v1": False, "v2": True, "w2": True
    }  # fmt: skip
    assert "version.json cannot be read (unknown): restore it, or use the release" in printed
    assert found["versions"][0]["marks"] is None
    with pytest.raises(InputError, match="is damaged"):
        show.execute(config, "v1")


def test_each_state_is_told(line: MadeLine, config: RunConfig, capsys: pytest.CaptureFixture[str]) -> None:
    rollback.execute(config, "v2")
    line.storage.write(f"models/{LINE}/latest.json", b'{"version": "v1"}')
    capsys.readouterr()
    found = listing.execute(config)
    rows = {line.split()[0]: line for line in capsys.readouterr().err.splitlines() if line}
    assert rows["v1"].endswith("none  (its checkpoint is the latest)")
    assert rows["v2"].endswith("v1  (latest)")
    assert f"v2  (rolled back at {found['versions'][2]['rolled_back']})" in rows["v3"]
    assert rows["w2"].endswith("v1  (the latest does not build on it)")
    assert show.execute(config, "v3")["rolled_back"] == found["versions"][2]["rolled_back"]


def test_a_pointer_that_names_nothing_is_an_error_with_its_remedy(line: MadeLine, config: RunConfig) -> None:
    line.storage.write(f"datasets/{LINE}/latest.json", b"{}")
    with pytest.raises(InputError, match=r'write \{"version": "NAME"\} into it'):
        listing.execute(config)


def test_marks_are_counted_where_the_pair_is(line: MadeLine, config: RunConfig) -> None:
    pairs.mark(line.storage, LINE, A, pairs.Mark(mark="bad"))
    pairs.mark(line.storage, LINE, "0" * 32, pairs.Mark(mark="good"))
    found = listing.execute(config)
    assert {row["name"]: row["marks"]["bad"] for row in found["versions"]} == {
        "v1": 1,
        "v2": 1,
        "v3": 0,
        "w2": 1,
    }
    assert found["marks"] == {"good": 1, "bad": 1}
    assert show.execute(config, "v1")["marks"] == {"good": 0, "bad": 1}


def test_what_was_measured_and_decided_is_shown(
    line: MadeLine, config: RunConfig, capsys: pytest.CaptureFixture[str]
) -> None:
    assert show.execute(config, "v3")["evaluated"] is None
    sets = {
        "pairs": {
            "n": 50,
            "loss": {"base": 2.5, "aitp": None},
            "aitp_minus_base": Difference(50, -0.25, -0.5, -0.125).figures(),
            "aitp_minus_sft_only": Difference(5, -0.25, None, None, "too few").figures(),
        }
    }
    commit(
        line.storage,
        "runs/dump/v3/evaluate/manifest.json",
        Manifest(stage="evaluate", label="", figures={"sets": sets}),
    )
    line.storage.write(
        "runs/dump/v3/promote/outcome.json", b'{"promoted": false, "why": "it is not \\u001b[31mbetter"}'
    )
    capsys.readouterr()
    found = show.execute(config, "v3")
    assert found["evaluated"] == sets
    # What lies beside the version is there when its run is not.
    (line.root / "runs/dump/v3/evaluate/manifest.json").unlink()
    assert show.execute(config, "v3")["evaluated"] is None
    evaluated.note(line.storage, LINE, "v3", {"sets": sets, "steps": 3, "other": 1})
    assert show.execute(config, "v3")["evaluated"] == sets
    assert found["promoted"]["decided"] == {"promoted": False, "why": "it is not \x1b[31mbetter"}
    printed = capsys.readouterr().err
    assert "pairs: 50 examples; loss aitp ?, base 2.5" in printed
    assert "aitp minus base: -0.25 (-0.5 to -0.125)" in printed
    assert "aitp minus sft only: -0.25 (? to ?)" in printed
    assert r"promoted          no, it is not \x1b[31mbetter" in printed


def test_some_pairs_are_shown_the_same_ones_each_time(line: MadeLine, config: RunConfig) -> None:
    found = show.execute(config, "v2")["examples"]
    assert len(found) == 3
    assert found == show.execute(config, "v2")["examples"]
    for pair in found:
        assert pair == {"pair_id": pair["pair_id"], "cut": {}} | {
            name: PAIRS[pair["pair_id"]][name]
            for name in ("source", "dump", "quality", "difficulty", "question", "answer")
        }
    line.add("empty", {}, "v3", sft_rows=0)
    assert show.execute(config)["examples"] == []
