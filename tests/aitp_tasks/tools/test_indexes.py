"""indexes: what is right is told so; what is wrong with one is found, named, and mended as told."""

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from aitp_tasks.config import RunConfig
from aitp_tasks.errors import InputError
from aitp_tasks.records import indexed
from aitp_tasks.records.run import Run
from aitp_tasks.stages import index as index_stage
from aitp_tasks.stages import merge
from aitp_tasks.storage import open_storage
from aitp_tasks.tools import indexes
from aitp_tasks.vector_index import library, quantiser
from aitp_tasks.vector_index.library import INDEX_FILE, LISTS_FILE
from tests.aitp_tasks.test_cli import aitp
from tests.aitp_tasks.world import World

pytestmark = [pytest.mark.slow, pytest.mark.side_by_side]

NIGHT: dict[str, Any] = {
    "sft": {"home": 40, "east": 20, "south": 20},
    # Some of it is in the dump more than once.
    "dump": {"home": 30, "south": 20, "north": 20},
}


EXACT = pytest.mark.parametrize("made", ["exact"], indirect=True)
BOTH = pytest.mark.parametrize("made", ["exact", "lists"], indirect=True)


@pytest.fixture(scope="module")
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """A night and what its index is, and one that has come as far as its geometry."""
    patch = pytest.MonkeyPatch()
    if request.param == "lists":
        patch.setattr(quantiser, "FLAT_VECTORS", 50)
    world = World(tmp_path_factory.mktemp("world"), patch)
    world.night(NIGHT)
    world.go_on(world.begin({**NIGHT, "dump": {"home": 60, "west": 8}}), "merge")
    yield world
    patch.undo()


@pytest.fixture
def root(made: World, tmp_path: Path) -> Path:
    return shutil.copytree(made.root, tmp_path / "storage")


@pytest.fixture
def config(made: World, root: Path) -> RunConfig:
    return made.runs[0].config.model_copy(update={"root": f"file://{root}"})


@pytest.fixture
def run(made: World, root: Path) -> Run:
    """The finished run."""
    return Run.open(f"file://{root}/{made.runs[0].prefix}")


def folder_of(run: Run, role: str, root: Path) -> Path:
    return (root / indexed.keys(run, role)[f"{role}_index"]).parent


@BOTH
def test_right_ones_are_told_so_each_once(config: RunConfig) -> None:
    for seed in range(3):
        result = indexes.execute(config, seed)
        # Both SFT sides differ, by the first night's pairs; the second corpus has no index yet.
        assert (result["runs"], result["indexes"]) == (2, 3)
        assert result["vectors"] > 200


def cut(path: Path, share: float = 0.5) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])


def edit(path: Path, **figures: Any) -> None:
    values = json.loads(path.read_text())
    values["figures"] |= figures
    path.write_text(json.dumps(values))


def shuffle_vectors(folder: Path) -> None:
    """The same ids and the same vectors, each of another document."""
    lists = folder / LISTS_FILE
    if lists.exists():
        data = np.frombuffer(lists.read_bytes(), np.uint8).copy()
        head = library.Head((folder / INDEX_FILE).read_bytes(), "x")
        for start, count in zip(head.starts, head.sizes, strict=True):
            end = start + int(count) * head.code_size
            codes = data[start:end].reshape(int(count), -1)
            data[start:end] = np.flip(codes, 1).reshape(-1)
        lists.write_bytes(data.tobytes())
        return
    index = library.flat_from_bytes((folder / INDEX_FILE).read_bytes(), "x")
    ids = library.faiss.vector_to_array(index.id_map)
    values = np.stack([index.reconstruct(int(number)) for number in ids])
    shifted = library.flat(np.roll(values, 7, axis=0).astype(np.float16), ids)
    (folder / INDEX_FILE).write_bytes(library.to_bytes(shifted))


def lose_vectors(folder: Path) -> None:
    """As many vectors as before, but those of some documents are near nothing."""
    lists = folder / LISTS_FILE
    if lists.exists():
        lists.write_bytes(bytes(lists.stat().st_size))
        return
    index = library.flat_from_bytes((folder / INDEX_FILE).read_bytes(), "x")
    ids = library.faiss.vector_to_array(index.id_map)
    values = np.stack([index.reconstruct(int(number)) for number in ids])
    values[::2] = 0
    (folder / INDEX_FILE).write_bytes(library.to_bytes(library.flat(values.astype(np.float16), ids)))


def blur_vectors(folder: Path) -> None:
    """All find the same documents, at other cosines."""
    index = library.flat_from_bytes((folder / INDEX_FILE).read_bytes(), "x")
    ids = library.faiss.vector_to_array(index.id_map)
    values = np.stack([index.reconstruct(int(number)) for number in ids])
    values += np.random.default_rng(0).normal(scale=0.3 / np.sqrt(values.shape[1]), size=values.shape)
    (folder / INDEX_FILE).write_bytes(library.to_bytes(library.flat(values.astype(np.float16), ids)))


def move_places(folder: Path) -> None:
    table = pq.read_table(folder / "places.parquet")
    rows = pa.array(np.roll(table["row"].to_numpy(), 1))
    pq.write_table(table.set_column(5, "row", rows), folder / "places.parquet")


DAMAGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "index cut": (lambda folder: cut(folder / INDEX_FILE), "is not a whole FAISS index"),
    "index empty": (lambda folder: (folder / INDEX_FILE).write_bytes(b""), "is not a whole FAISS index"),
    "index gone": (lambda folder: (folder / INDEX_FILE).unlink(), "index.faiss does not exist"),
    "no index": (lambda folder: (folder / INDEX_FILE).write_bytes(b"x" * 999), "is not a whole FAISS index"),
    "lists cut": (lambda folder: cut(folder / LISTS_FILE), "bytes of lists"),
    "lists gone": (lambda folder: (folder / LISTS_FILE).unlink(), "lists.ivfdata does not exist"),
    "places cut": (lambda folder: cut(folder / "places.parquet", 0.9), "is no whole table of places"),
    "places gone": (lambda folder: (folder / "places.parquet").unlink(), "places.parquet does not exist"),
    "places moved": (move_places, "is not that of document"),
    "manifest gone": (lambda folder: folder.with_suffix(".json").unlink(), r"\.json does not exist"),
    "manifest cut": (lambda folder: cut(folder.with_suffix(".json")), r"\.json is damaged"),
    "other count": (lambda folder: edit(folder.with_suffix(".json"), documents=7), "says 7 documents"),
    "other vectors": (shuffle_vectors, "not so near as it says|does not find"),
    "blurred": (blur_vectors, "not so near as it says"),
    "vectors lost": (lose_vectors, "not so near as it says|does not find|no place for"),
}


CASES = [
    *(("exact", damage, "corpus") for damage in DAMAGE if "lists" not in damage),
    *(("exact", damage, "sft") for damage in ("index gone", "manifest gone", "other vectors")),
    *(("lists", damage, "corpus") for damage in DAMAGE if "lists" in damage or "vectors" in damage),
    ("lists", "index cut", "corpus"),
]


@pytest.mark.parametrize(("made", "damage", "role"), CASES, indirect=["made"], scope="module")
def test_damage_is_found_named_and_mended_as_told(
    config: RunConfig, root: Path, run: Run, role: str, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    folder = folder_of(run, role, root)
    harm, message = DAMAGE[damage]
    harm(folder)
    with caplog.at_level("INFO"), pytest.raises(InputError, match=message) as raised:
        indexes.execute(config, seed=1)
    told = str(raised.value)
    assert "1 of 3 indexes are not as they should be" in told
    assert str(folder.relative_to(root)) in told
    # The others were looked at all the same.
    assert caplog.text.count(" is right: ") == 2
    if damage == "places moved":
        return
    stage = indexed.STAGES[role]
    assert f"delete {folder.as_uri()}.json and the run's {stage} manifest, then run `aitp {stage}`" in told
    folder.with_suffix(".json").unlink(missing_ok=True)
    (root / run.manifest_key(stage)).unlink()
    {"index": index_stage, "merge": merge}[stage].execute(Run.open(run.uri))
    assert indexes.execute(config, seed=1)["indexes"] == 3


@EXACT
def test_vectors_that_are_gone_or_damaged_are_named(config: RunConfig, root: Path) -> None:
    chunks = sorted((root / "embeddings").glob("*/*/rows-*.parquet"))
    whole = [chunk.read_bytes() for chunk in chunks]
    for chunk in chunks:
        cut(chunk)
    with pytest.raises(InputError, match=r"rows-.*\.parquet is damaged \(.*\): delete it"):
        indexes.execute(config, seed=1)
    for chunk in chunks:
        chunk.unlink()
    with pytest.raises(InputError, match=r"rows-.*\.parquet does not exist"):
        indexes.execute(config, seed=1)
    for chunk, data in zip(chunks, whole, strict=True):
        chunk.write_bytes(data)
    assert indexes.execute(config, seed=1)["indexes"] == 3


@EXACT
def test_a_run_that_cannot_be_opened_holds_no_other_one_up(
    config: RunConfig, root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    evil = root / "runs/evil\x1b[2J/0123/plan.json"
    evil.parent.mkdir(parents=True)
    evil.write_text("{}")
    with caplog.at_level("INFO"), pytest.raises(InputError, match="the plan at .* cannot be read"):
        indexes.execute(config)
    assert caplog.text.count(" is right: ") == 3


@EXACT
def test_foreign_objects_disturb_nothing(config: RunConfig, root: Path) -> None:
    for name in ("index/README", "index/\x1b[2J", "index/a/b/c.json", "runs/notes.txt", "runs/a/plan.json"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text("{")
    assert indexes.execute(config)["indexes"] == 3


@EXACT
def test_where_there_is_no_line_yet_there_is_nothing_to_check(config: RunConfig, tmp_path: Path) -> None:
    nothing = config.model_copy(update={"root": f"file://{tmp_path}/none"})
    assert {**indexes.execute(nothing), "seconds": 0} == {
        "stage": "indexes",
        "runs": 0,
        "indexes": 0,
        "vectors": 0,
        "seconds": 0,
    }


@EXACT
def test_a_version_that_is_missing_is_named(config: RunConfig, root: Path) -> None:
    open_storage(f"file://{root}").write("datasets/aitp/latest.json", b'{"version": "nobody"}')
    with pytest.raises(InputError, match=r"datasets/aitp/nobody/version\.json does not exist"):
        indexes.execute(config)


@EXACT
def test_it_is_a_command(config: RunConfig, root: Path, run: Run, tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(config.model_dump(mode="json")))
    done = aitp("indexes", "--config", str(path))
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["indexes"] == 3
    (folder_of(run, "sft", root) / INDEX_FILE).unlink()
    wrong = aitp("indexes", "--config", str(path))
    assert (wrong.returncode, wrong.stdout) == (2, "")
    assert wrong.stderr.splitlines()[-1].startswith("error: 1 of 3 indexes are not as they should be")
