"""What is read of a folder, what is left out, and what is named."""

from itertools import chain
from pathlib import Path

import pytest

from aitp_tasks.errors import InputError
from aitp_tasks.inputs import formats, listing
from aitp_tasks.inputs.formats import Format, Kind
from aitp_tasks.storage import ObjectInfo, Storage, open_storage


class Objects(Storage):
    """A listing and nothing else."""

    root = "s3://bucket"
    concurrency = 1

    def __init__(self, *keys: str) -> None:
        self._keys = sorted(keys)

    def list(self, prefix: str) -> list[ObjectInfo]:  # type: ignore[override]
        return [
            ObjectInfo(key, 0 if key.endswith(("/", "$folder$")) else 5, "e")
            for key in self._keys
            if key.startswith(prefix)
        ]

    def folders(self, prefix: str) -> tuple[str, ...]:
        below = [key.removeprefix(prefix) for key in self._keys if key.startswith(prefix)]
        return tuple(sorted({key.split("/")[0] for key in below if "/" in key}))


Objects.__abstractmethods__ = frozenset()


def read(*names: str) -> listing.Listing:
    return listing.read(Objects(*(f"corpus/news/{name}" for name in names)), "corpus", "news")  # type: ignore[abstract]


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("a.parquet", Kind(Format.PARQUET)),
        ("A.PARQUET", Kind(Format.PARQUET)),
        ("a.snappy.parquet", Kind(Format.PARQUET)),
        ("a.pq", Kind(Format.PARQUET)),
        ("a.jsonl", Kind(Format.JSON_LINES)),
        ("a.NdJson.Zst", Kind(Format.JSON_LINES, ".zst")),
        ("a.json.gz", Kind(Format.JSON, ".gz")),
        ("a.csv.bz2", Kind(Format.CSV, ".bz2")),
        ("a.tsv.xz", Kind(Format.TSV, ".xz")),
        ("a.tar.gz", Kind(Format.TAR, ".gz")),
        ("a.arrow", Kind(Format.ARROW)),
        ("a.feather", Kind(Format.ARROW)),
        ("x.parquet/a.csv", Kind(Format.CSV)),
        ("a b+c%2F.jsonl", Kind(Format.JSON_LINES)),
        ("u\u0308.jsonl", Kind(Format.JSON_LINES)),
        ("a.parquet.gz", None),
        ("a.arrow.zst", None),
        ("a.jsonl.zstd", None),
        ("a.jsonl.gz.gz", None),
        ("a.jsonl#bytes=0-9", None),
        ("x.parquet/a", None),
        ("x.parquet/", None),
        ("jsonl", None),
        ("a.gz", None),
        (".jsonl", None),
    ],
)
def test_an_ending_says_what_a_file_is(name: str, kind: Kind | None) -> None:
    assert formats.of(f"corpus/news/{name}") == kind


def test_every_object_is_read_left_out_or_named() -> None:
    left_out = {
        "hidden files": [
            *("_SUCCESS", ".a.jsonl", "._a.parquet", "_temporary/0/a.parquet", "x/.ipynb_checkpoints/a.csv"),
            "_metadata",
        ],
        "folder markers": ["x.parquet/", "y/", "y_$folder$"],
        "files about files": ["train/dataset_info.json", "state.json", "cache-01ab_00000_of_00002.arrow"],
    }
    shards = ["a.JSONL", "a.jsonl", "lang=de/a.parquet", "x.parquet/a.csv", "x_y/a.b.tar", "statement.json"]
    unknown = ["README.md", "a.jsonl.zstd", "x.parquet/b"]
    found = read(*shards, *unknown, *chain(*left_out.values()))
    assert [info.key for info in found.shards] == sorted(f"corpus/news/{name}" for name in shards)
    assert found.unknown == sorted(f"corpus/news/{name}" for name in unknown)
    assert found.skipped == {convention: len(names) for convention, names in left_out.items()}
    assert found.named().startswith("3 objects are not read: corpus/news/README.md, ")
    assert "6 hidden files are left out" in found.named()


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ((), r"s3://bucket/corpus/news/ holds no objects: name one of \['olds'\]"),
        (
            ("a.txt", "b.txt", "c.txt", "d.txt"),
            r"corpus/news/ holds no shards \(4 objects are not read: corpus/news/a.txt, corpus/news/b.txt, "
            r"corpus/news/c.txt, and 1 more\): upload some to it \(\.parquet, .*, or name one of \['olds'\]",
        ),
        (("_tmp/a.parquet",), r"holds no shards \(1 hidden files are left out\)"),
        (("a.parquet", "_delta_log/0.json"), r"is a Delta table \(_delta_log/0.json\).*plain Parquet"),
        (("x/.hoodie/hoodie.properties",), "is a Hudi table"),
        (("data/a.parquet", "metadata/v1.metadata.json"), "is an Iceberg table"),
    ],
)
def test_a_folder_of_which_nothing_is_read_says_what_is_there(names: tuple[str, ...], message: str) -> None:
    storage = Objects("corpus/olds/a.parquet", *(f"corpus/news/{name}" for name in names))  # type: ignore[abstract]
    with pytest.raises(InputError, match=message) as caught:
        listing.read(storage, "corpus", "news")
    assert "name one of ['news" not in str(caught.value)


def test_what_a_link_would_lead_to_is_named(root: Path) -> None:
    away, folder = root / "elsewhere", root / "corpus/news"
    away.mkdir()
    for name in ("corpus/news/a.jsonl", "elsewhere/b.jsonl"):
        (root / name).write_text('{"text": "a"}\n')
    links = {"more": away, "gone.jsonl": root / "none", ".hidden": away, "b.jsonl": away / "b.jsonl"}
    for name, target in links.items():
        (folder / name).symlink_to(target)
    (folder / "more/under").symlink_to(folder)
    found = listing.of(open_storage(f"file://{root}"), "corpus/news/")
    # A link to a file is a file; what lies behind one to a folder is told by the link.
    shards = {path.name for path in folder.iterdir() if path.is_file()}
    assert {info.key.rpartition("/")[2] for info in found.shards} == shards >= {"a.jsonl", "b.jsonl"}
    assert found.unknown == ["corpus/news/gone.jsonl", "corpus/news/more"]
