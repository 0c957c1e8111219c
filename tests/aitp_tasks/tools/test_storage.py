"""storage: the figures are those of another count, whatever the names; growth is that since the last time."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from aitp_tasks.config import RunConfig
from aitp_tasks.storage import ObjectInfo, open_storage
from aitp_tasks.storage.local import LocalStorage
from aitp_tasks.tools import storage
from tests.aitp_tasks.conftest import Configure
from tests.aitp_tasks.test_cli import aitp

#: What the operator takes of a result.
RESULT_BYTES = 1024


@pytest.fixture(autouse=True)
def times(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each count a second after the one before."""
    seconds = iter(range(60))
    clock = SimpleNamespace(gmtime=lambda: None, strftime=lambda *_: f"2026-11-29T12-00-{next(seconds):02d}Z")
    monkeypatch.setattr(storage, "time", clock)


@pytest.fixture
def config(configure: Configure) -> RunConfig:
    return configure()


def fill(root: Path, objects: dict[str, int]) -> None:
    for name, size in objects.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(bytes(size))


def counted(root: Path) -> dict[str, list[int]]:
    """Objects and bytes by the first folder, by another way."""
    found: dict[str, list[int]] = {}
    for folder, _, names in os.walk(root):
        kind = Path(folder).relative_to(root).parts[:1]
        for name in names:
            count = found.setdefault(kind[0] if kind and kind[0] in storage.KINDS else "other", [0, 0])
            count[0] += 1
            count[1] += os.stat(Path(folder) / name).st_size
    return found


def test_the_figures_are_those_of_another_count(config: RunConfig, root: Path) -> None:
    fill(root, {f"{kind}/a/{number}": 10 * number for kind in storage.KINDS[:-1] for number in range(7)})
    expected = counted(root)
    result = storage.execute(config)
    assert {name: count[:2] for name, count in result["kinds"].items()} == expected
    assert result["bytes"] == sum(count[1] for count in expected.values())
    assert result["objects"] == sum(count[0] for count in expected.values())
    assert result["since"] is None
    assert {count[2] for count in result["kinds"].values()} == {None}
    written = json.loads((root / result["figures"]).read_text())
    assert {name: list(count.values()) for name, count in written["kinds"].items()} == expected
    assert written["largest"]["density/a"] == {"objects": 7, "bytes": 210}


def test_growth_is_since_the_last_time_and_what_is_gone_is_told(
    config: RunConfig, root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    fill(root, {"embeddings/e/a": 100, "index/e/a": 50})
    first = storage.execute(config)
    fill(root, {"embeddings/e/b": 23})
    (root / "index/e/a").unlink()
    with caplog.at_level("INFO"):
        second = storage.execute(config)
    grown = {name: count[2] for name, count in second["kinds"].items()}
    figures = (root / first["figures"]).stat().st_size
    assert grown == {"corpus": 0, "sft": 0, "embeddings": 23, "index": -50, "maintenance": figures}
    assert second["kinds"]["index"] == [0, 0, -50]
    assert second["since"] == "2026-11-29T12-00-00Z"
    assert any(line.split() == ["embeddings", "2", "123", "+23"] for line in caplog.messages)
    assert any(line.split() == ["index", "0", "0", "-50"] for line in caplog.messages)
    assert any(
        line.startswith("all ") and line.endswith(f"{23 - 50 + figures:+,}") for line in caplog.messages
    )
    # And the third is since the second.
    assert storage.execute(config)["since"] == "2026-11-29T12-00-01Z"


def test_an_empty_storage_has_nothing(config: RunConfig, tmp_path: Path) -> None:
    result = storage.execute(config.model_copy(update={"root": f"file://{tmp_path}/none"}))
    assert (result["objects"], result["bytes"], result["kinds"]) == (0, 0, {})


def test_whatever_a_name_is_it_is_counted_and_moves_no_cursor(
    config: RunConfig, root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    names = ["loose", "\x1b[2J/x", "new\nline/x", "corpus/\x1b[2J/x", "corpus", "x" * 200 + "/y"]
    fill(root, {name: 5 for name in names if name != "corpus"})
    raw = os.fsencode(root) + b"/\xff\xfe"
    with open(raw, "wb") as file:
        file.write(bytes(5))
    expected = counted(root)
    with caplog.at_level("INFO"):
        result = storage.execute(config)
    assert {name: count[:2] for name, count in result["kinds"].items()} == expected
    assert expected["other"] == [5, 25]
    written = (root / result["figures"]).read_text()
    assert r"corpus/\\x1b[2J" in written
    assert "AITP writes nothing that is called" in caplog.text
    told = caplog.text + written
    assert all(one.isprintable() or one == "\n" for one in told)
    assert "new\nline" not in told


def test_figures_that_cannot_be_read_are_named_and_passed_over(
    config: RunConfig, root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    storage.execute(config)
    for name, data in {"2026-11-30": b"{", "2026-12-01": b'{"at": 1}', "2026-12-02": b"\xff"}.items():
        (root / f"maintenance/storage/{name}.json").write_bytes(data)
    assert storage.execute(config)["since"] == "2026-11-29T12-00-00Z"
    assert caplog.text.count("holds no figures: those before it count; delete it") == 3


def test_a_large_storage_is_told_in_few_bytes_and_little_memory(
    config: RunConfig, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def many(self: LocalStorage, prefix: str) -> Iterator[ObjectInfo]:
        if prefix:
            return
        for kind in (*storage.KINDS, "else"):
            for number in range(4_000):
                yield ObjectInfo(f"{kind}/folder-{number:06d}/object", 10**11, "")

    monkeypatch.setattr(LocalStorage, "list", many)
    first = storage.execute(config)
    assert first["kinds"]["runs"] == [4_000, 4 * 10**14, None]
    monkeypatch.setattr(storage, "_last", lambda *_: storage.count(open_storage(config.root), "x" * 20))
    result: dict[str, Any] = storage.execute(config)
    assert len(json.dumps(result | {"seconds": 9999.999})) <= RESULT_BYTES
    assert (root / result["figures"]).stat().st_size < 5_000


def test_it_is_a_command(config: RunConfig, tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(config.model_dump(mode="json")))
    done = aitp("storage", "--config", str(path))
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["kinds"]["corpus"][0] == 2
    # As the operator shows them: each line is one of the product's own.
    assert all(
        line.startswith(("INFO aitp_tasks", "WARNING aitp_tasks")) for line in done.stderr.splitlines()
    )
