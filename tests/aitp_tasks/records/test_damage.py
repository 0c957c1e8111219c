"""An object that was cut short or overwritten is named with its remedy, whatever its reader would say."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from aitp_tasks.config import Density
from aitp_tasks.densities.discriminant import Discriminant
from aitp_tasks.densities.geometry import Geometry
from aitp_tasks.densities.grid import SparseGrid
from aitp_tasks.densities.moments import Moments
from aitp_tasks.errors import InputError
from aitp_tasks.records import damage, manifest, tables
from aitp_tasks.records.manifest import Ledger, Manifest
from aitp_tasks.storage import Storage, open_storage

MOMENTS = Moments.of(np.random.default_rng(0).normal(size=(50, 6)).astype(np.float16))
BOTH = {"corpus": MOMENTS, "sft": MOMENTS}
MADE = Manifest(stage="embed", label="ü", ledger=Ledger(rows_in=2, rows_out=2), outputs={"rows": "a/b"})


def _read(parse: Callable[[bytes], Any]) -> Callable[[Storage, str], Any]:
    return lambda storage, key: damage.read(storage, key, parse)


@pytest.mark.parametrize(
    ("data", "read"),
    [
        (tables.to_bytes(pa.table({"id": ["a"] * 100, "n": range(100)})), tables.read),
        (MADE.model_dump_json().encode(), manifest.load),
        (MOMENTS.to_bytes(), _read(Moments.from_bytes)),
        (Discriminant.fit(MOMENTS, MOMENTS).to_bytes(), _read(Discriminant.from_bytes)),
        (Geometry.fit(Density(), BOTH).to_bytes(), _read(Geometry.from_bytes)),
        (SparseGrid.empty(2, 0.5).to_bytes(), _read(SparseGrid.from_bytes)),
    ],
    ids=["table", "manifest", "moments", "discriminant", "geometry", "grid"],
)
def test_a_damaged_object_is_named_with_its_remedy(
    tmp_path: Path, data: bytes, read: Callable[[Storage, str], Any]
) -> None:
    storage, path = open_storage(f"file://{tmp_path}"), tmp_path / "folder/object"
    path.parent.mkdir()
    path.write_bytes(data)
    assert read(storage, "folder/object") is not None
    cut = [data[:size] for size in (0, 1, 9, len(data) // 2, len(data) - 1)]
    # Another object's content; a page of a proxy; of the right form, and empty.
    for damaged in [*cut, b"{}", b"<html>no</html>\n" * 50, b"\x02\0\0\0\0\0\0\0{}", bytes(len(data))]:
        path.write_bytes(damaged)
        with pytest.raises(damage.DamagedError) as raised:
            read(storage, "folder/object")
        said = str(raised.value)
        assert re.fullmatch(rf"file://{path} is damaged \(.+\): delete it.*, then clear the task .*", said)
        assert len(said) < 600
        assert "\n" not in said


def test_what_is_not_there_is_not_damaged(tmp_path: Path) -> None:
    storage = open_storage(f"file://{tmp_path}")
    with pytest.raises(InputError, match="no/such does not exist") as raised:
        tables.read(storage, "no/such")
    assert not isinstance(raised.value, damage.DamagedError)
    assert manifest.load(storage, "no/such") is None


def test_the_values_of_a_manifest_are_not_told(tmp_path: Path) -> None:
    storage = open_storage(f"file://{tmp_path}")
    later = MADE.model_dump_json().replace('"stage"', '"text":"a secret of a document","stage"')
    (tmp_path / "later.json").write_text(later)
    with pytest.raises(damage.DamagedError, match=r"\(text Extra inputs are not permitted\)") as raised:
        manifest.load(storage, "later.json")
    assert "secret" not in str(raised.value)
