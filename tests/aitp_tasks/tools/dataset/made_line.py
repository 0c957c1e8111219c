"""A line of versions with pairs of one's choice, written by what writes real ones; no run is behind it."""

import json
import shutil
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pyarrow as pa

from aitp_tasks.dataset.export import SCHEMA, Export
from aitp_tasks.records import contents, tables, versions
from aitp_tasks.records.contents import Contents, MarksHeld, UsedModel
from aitp_tasks.records.manifest import Manifest, commit
from aitp_tasks.records.versions import Geometry, Version
from aitp_tasks.selection import left_out
from aitp_tasks.storage import open_storage

LINE = "aitp"
_GEOMETRY = Geometry(key="density/g/geometry.safetensors", identity="i", corpus_grid="runs/g.safetensors")
_MODEL = UsedModel(name="model", revision=None, identity="0123456789abcdef")


@dataclass
class MadeLine:
    """Versions below a root, each added after those that it builds on."""

    root: Path
    made: dict[str, Version] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.storage = open_storage(f"file://{self.root}")
        for key in (_GEOMETRY.key, _GEOMETRY.corpus_grid):
            self.storage.write_if_absent(key, b"grid")

    def add(
        self,
        name: str,
        pairs: Mapping[str, Mapping[str, Any]],
        base: str | None = None,
        sft_rows: int = 100,
        left: Mapping[str, str] | None = None,
        latest: bool = True,
    ) -> Version:
        """Write a version.

        Args:
            name: of the version.
            pairs: all that it holds, by their ids.
            base: that it builds on.
            sft_rows: examples of the SFT set.
            left: why pairs of the base have left, by their ids.
            latest: whether it joins the line.
        """
        before = self.made[base] if base else None
        ancestors = (*before.ancestors, before.name) if before else ()
        known = self._came_with(ancestors)
        rows = [row_of(pair_id, pair, known.get(pair_id, name)) for pair_id, pair in pairs.items()]
        new = sum(row["version"] == name for row in rows)
        kinds = {"sft": sft_rows, "new_pairs": new, "earlier_pairs": len(rows) - new}
        run = f"runs/dump/{name}"
        with TemporaryDirectory() as folder:
            held = _write(Path(folder), rows, kinds, len(self.made))
            files = contents.files(Path(folder))
            for path in files:
                self.storage.upload(f"datasets/{LINE}/{name}/{path}", Path(folder) / path)
        version = Version(
            name=name,
            run=run,
            ancestors=ancestors,
            pairs=(tables.write_rows(self.storage, f"datasets/{LINE}/records/pairs", rows, SCHEMA),),
            geometry=_GEOMETRY,
            sft=f"sft of {sft_rows}",
            contents=held.model_copy(update={"files": files}),
        )
        self._commit(run, version, kinds, left or {})
        self.made[name] = version
        (versions.add if latest else versions.write)(self.storage, LINE, version)
        return version

    def copied(self, root: Path) -> "MadeLine":
        """The same below another root, which may be there."""
        shutil.copytree(self.root, root, dirs_exist_ok=True)
        return MadeLine(root, dict(self.made))

    def _came_with(self, names: Iterable[str]) -> dict[str, str]:
        """The version that each pair of some versions came with."""
        found: dict[str, str] = {}
        for name in names:
            rows = tables.read(self.storage, self.made[name].pairs[0], ["pair_id", "version"]).to_pylist()
            found |= {row["pair_id"]: row["version"] for row in rows}
        return found

    def _commit(self, run: str, version: Version, kinds: Mapping[str, int], left: Mapping[str, str]) -> None:
        """What the run of a version has told."""
        outputs = {"train-00000": f"datasets/{LINE}/{version.name}/data/train-00000-of-00001.parquet"}
        if left:
            rows = [
                {"pair_id": pair_id, "question": "?", "earlier": True, "reason": reason}
                for pair_id, reason in left.items()
            ]
            table = pa.Table.from_pylist(rows, left_out.SCHEMA)
            outputs["left_out"] = tables.write(self.storage, f"{run}/assemble/left_out", table)
        removed = {
            reason: {"new": 0, "earlier": count, "sft": 0} for reason, count in Counter(left.values()).items()
        }
        figures = {"version": version.name, "removed": removed, "left": dict(Counter(left.values()))}
        told = {"pairs": kinds["new_pairs"], "earlier_pairs": kinds["earlier_pairs"]}
        told |= {"sft_examples": kinds["sft"]}
        done = Manifest(stage="assemble", label=version.name, outputs=outputs, figures=figures | told)
        commit(self.storage, f"{run}/assemble/manifest.json", done)

    def latest(self) -> str | None:
        """The version that the pointer names."""
        path = self.root / f"datasets/{LINE}/latest.json"
        return str(json.loads(path.read_text())["version"]) if path.exists() else None

    def point(self, name: str) -> None:
        """Let it name a version, there or not, as a person would by hand."""
        self.storage.write(f"datasets/{LINE}/latest.json", json.dumps({"version": name}).encode())


def row_of(pair_id: str, pair: Mapping[str, Any], version: str) -> dict[str, Any]:
    """A pair as a row of a version."""
    return {
        "messages": [
            {"role": "user", "content": pair["question"]},
            {"role": "assistant", "content": pair["answer"]},
        ],
        "origin": "aitp",
        "pair_id": pair_id,
        "shard": f"corpus/{pair['dump']}/shard.parquet",
        "row": 0,
        "density_ratio": 0.1,
        "cut_characters": 0,
        "prompt_digest": "p",
        "prompts": ["rewrite@1", "score@1", "answer@1"],
        "model": "model#0123456789ab",
        "version": version,
        **{name: pair[name] for name in ("doc_id", "source", "dump", "quality", "difficulty")},
    }


def _write(folder: Path, rows: list[dict[str, Any]], kinds: Mapping[str, int], number: int) -> Contents:
    """A version's files, and the figures of what they hold."""
    with Export(folder) as export:
        for one in range(kinds["sft"]):
            said = [
                {"role": "user", "content": f"Add {one} and one."},
                {"role": "assistant", "content": f"{one + 1}"},
            ]
            export.write([{"messages": said, "origin": "sft"}])
        export.write(rows)
        export.close(LINE)
    (folder / "README.md").write_text(
        "---\nconfigs:\n- config_name: default\n  data_files: data/*.parquet\n---\n"
    )
    every = sum(kinds.values())
    return Contents(
        made_at=f"2026-11-20T00:{number // 60:02}:{number % 60:02}Z",
        rows=every,
        by_kind=contents.shares(dict(kinds), every),
        by_dump={},
        by_source={},
        models={"encoder": _MODEL, "engine": _MODEL, "base": _MODEL},
        columns=export.told.columns,
        shards={},
        json_files={},
        marks=MarksHeld(setting="keep", rows=0, by_mark={}, dropped=0),
    )
