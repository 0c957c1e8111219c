"""export: what is copied, what is compared, and what is refused; the rest is in ``test_catalog_cases.py``."""

import fcntl
import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from aitp_tasks.config import RunConfig
from aitp_tasks.errors import InputError, TransientError
from aitp_tasks.tools.dataset import export, own
from tests.aitp_tasks.conftest import Configure
from tests.aitp_tasks.tools.dataset.catalog_cases import PAIRS
from tests.aitp_tasks.tools.dataset.made_line import LINE, MadeLine


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> MadeLine:
    """One version."""
    made = MadeLine(tmp_path_factory.mktemp("line"))
    made.add("v1", PAIRS, sft_rows=3)
    return made


@pytest.fixture
def line(root: Path, written: MadeLine) -> MadeLine:
    """A copy of it."""
    return written.copied(root)


@pytest.fixture
def config(configure: Configure) -> RunConfig:
    return configure()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "below" / "out"


def version_of(line: MadeLine, **changes: Any) -> None:
    path = line.root / f"datasets/{LINE}/v1/version.json"
    told = json.loads(path.read_text())
    path.write_text(json.dumps(told | {"contents": told["contents"] | changes if changes else None}))


def names(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if not path.is_dir()}


OWN = {
    "data/train-00000-of-00001.parquet", "sharegpt.json", "alpaca.json", "dataset_info.json", "README.md",
    "version.json",
}  # fmt: skip


def test_its_own_files_are_copied_and_nothing_beside_them(
    line: MadeLine, config: RunConfig, folder: Path
) -> None:
    for other in ("trained/x.json", "refit-due.json", "notes.txt", "data/.unfinished-x"):
        line.storage.write(f"datasets/{LINE}/v1/{other}", b"{}")
    told = export.execute(config, "latest", str(folder))
    assert names(folder) == OWN
    assert (told["files"], told["copied"], told["checked"]) == (6, 6, "sizes and digests")
    # Another time only what has no digest of its own is copied: the file that names them.
    again = export.execute(config, "v1", str(folder))
    assert (again["files"], again["copied"]) == (6, 1)


def test_the_data_come_first_and_what_names_them_last(line: MadeLine) -> None:
    found = [one.path for one in own.files(line.storage, LINE, line.made["v1"])]
    assert (found[0], found[-1]) == ("data/train-00000-of-00001.parquet", "version.json")
    assert set(found) == OWN


def test_it_goes_on_where_it_was_broken_off(line: MadeLine, config: RunConfig, folder: Path) -> None:
    export.execute(config, "v1", str(folder))
    (folder / "alpaca.json").unlink()
    (folder / ".aitp-unfinished").write_text("half")
    (folder / ".aitp-export").touch()
    assert export.execute(config, "v1", str(folder))["copied"] == 2
    assert names(folder) == OWN


def test_what_is_not_what_was_made_gets_no_name(line: MadeLine, config: RunConfig, folder: Path) -> None:
    path = line.root / f"datasets/{LINE}/v1/sharegpt.json"
    data = path.read_bytes()
    path.write_bytes(data[:-1] + b" ")
    with pytest.raises(InputError, match="sharegpt.json is not what it was made as, by its size or digest"):
        export.execute(config, "v1", str(folder))
    assert "sharegpt.json" not in names(folder)
    assert "version.json" not in names(folder)
    path.write_bytes(data[:-1])
    with pytest.raises(
        InputError, match=rf"sharegpt.json is {len(data) - 1} bytes, and was made with {len(data)}"
    ):
        export.execute(config, "v1", str(folder))
    path.unlink()
    with pytest.raises(InputError, match="sharegpt.json is missing"):
        export.execute(config, "v1", str(folder))


@pytest.mark.parametrize("name", ["../../evil.json", "/etc/evil", "a/../b", ".hidden", "a//b", ""])
def test_no_name_leads_out_of_the_folder(line: MadeLine, config: RunConfig, folder: Path, name: str) -> None:
    version_of(line, files={name: {"bytes": 1, "sha256": "0"}})
    with pytest.raises(InputError, match="outside its folder"):
        export.execute(config, "v1", str(folder))
    assert not folder.exists()


def test_a_folder_with_anything_else_is_left_as_it_is(
    line: MadeLine, config: RunConfig, folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "target.json").write_text("{}")
    for made in ("data/train-00000-of-00002.parquet", "link", "sharegpt.json"):
        path = folder / made
        path.parent.mkdir(parents=True, exist_ok=True)
        path.symlink_to(tmp_path / "target.json") if made == "link" else path.write_text("[]")
        with pytest.raises(InputError, match=f"holds {made}, which is not of this version"):
            export.execute(config, "v1", str(folder))
        assert names(folder) == {made}
        path.unlink()
    # A link to a folder is something else, too, and nobody looks into it.
    (folder / "data").rmdir()
    (folder / "data").symlink_to(tmp_path)
    with pytest.raises(InputError, match="holds data"):
        export.execute(config, "v1", str(folder))


def test_another_version_does_not_go_into_the_same_folder(
    line: MadeLine, config: RunConfig, folder: Path
) -> None:
    line.add("v2", {}, "v1", sft_rows=3)
    export.execute(config, "v1", str(folder))
    with pytest.raises(InputError, match="which is not of this version"):
        export.execute(config, "v2", str(folder))


def test_two_at_once_do_not_mix(line: MadeLine, config: RunConfig, folder: Path) -> None:
    folder.mkdir(parents=True)
    with (folder / ".aitp-export").open("ab") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        with pytest.raises(TransientError, match="another export writes into"):
            export.execute(config, "v1", str(folder))
    export.execute(config, "v1", str(folder))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("", "is no folder of this machine"),
        ("s3://bucket/x", "is no folder of this machine"),
        ("{file}", "is a file: name a folder"),
        ("{file}/below", "cannot be written"),
    ],
)
def test_what_is_no_folder_is_refused(
    line: MadeLine, config: RunConfig, tmp_path: Path, given: str, message: str
) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(InputError, match=message):
        export.execute(config, "v1", given.format(file=tmp_path / "file"))


def test_a_version_of_an_earlier_release_is_copied_by_sizes(
    line: MadeLine, config: RunConfig, folder: Path
) -> None:
    made = line.root / f"datasets/{LINE}/v1"
    (path,) = (made / "data").glob("*.parquet")
    path.rename(made / "data.parquet")
    (made / "data").rmdir()
    for record in ("pairs.parquet", "left_out.parquet", "corpus-grid.safetensors", "evaluation.json"):
        (made / record).write_bytes(b"x")
    version_of(line)
    told = export.execute(config, "v1", str(folder))
    assert names(folder) == OWN - {"data/train-00000-of-00001.parquet"} | {"data.parquet"}
    assert told["checked"] == "sizes"
    assert pq.read_table(folder / "data.parquet").equals(pq.read_table(made / "data.parquet"))
    # What was there is copied again, because nobody knows whether it is the same.
    (folder / "README.md").write_bytes(b"x" * (made / "README.md").stat().st_size)
    assert export.execute(config, "v1", str(folder))["copied"] == 6
    assert (folder / "README.md").read_bytes() == (made / "README.md").read_bytes()
