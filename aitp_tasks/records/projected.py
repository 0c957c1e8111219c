"""What merge and density have left: the geometry, and of each shard its coordinates and its grid."""

from collections.abc import Iterator

import numpy as np
import pyarrow as pa

from aitp_tasks.densities.discriminant import Discriminant
from aitp_tasks.densities.geometry import ROLES, Geometry
from aitp_tasks.densities.grid import Points, SparseGrid
from aitp_tasks.errors import InputError
from aitp_tasks.records import damage, digest, manifest, prefetched, tables, versions
from aitp_tasks.records.manifest import Manifest
from aitp_tasks.records.plan import Group
from aitp_tasks.records.run import Run

#: Names of the coordinates' columns.
AXES = ("x", "y", "z")


def identity(geometry: Geometry) -> str:
    """Digest of a geometry: only grids of one geometry add, and only their densities compare."""
    return digest.of_bytes(geometry.to_bytes())


def geometry(run: Run) -> Geometry:
    """The geometry of a run.

    Raises:
        InputError: merge has not been run.
    """
    return damage.read(run.storage, run.require_manifest("merge").output("geometry"), Geometry.from_bytes)


def discriminant(run: Run) -> Discriminant | None:
    """The Gaussians of both sets; None where merge was run by a release without them.

    Raises:
        InputError: merge has not been run.
    """
    key = run.require_manifest("merge").outputs.get("discriminant")
    return None if key is None else damage.read(run.storage, key, Discriminant.from_bytes)


def shards(run: Run, group: Group) -> list[Manifest]:
    """The manifests of a group's projected shards.

    Raises:
        InputError: the group has not been projected.
    """
    made = [key for name, key in _unit(run, group).outputs.items() if name.startswith("shard-")]
    standing = run.storage.uri(run.manifest_key("density", group.digest))
    remedy = f"delete {standing} and clear the density task of {group.label}"
    return manifest.load_all(run.storage, made, remedy)


def keys(run: Run, group: Group, name: str) -> list[str | None]:
    """Keys of what was made of a group's shards: ``encoded``, ``nearness``, ``log_ratios``; None: not wanted.

    Raises:
        InputError: the group has not been projected.
    """
    outputs = _unit(run, group).outputs
    made = sum(output.startswith("shard-") for output in outputs)
    return [outputs.get(f"{name}-{number:06d}") for number in range(made)]


def coordinates(
    run: Run, role: str, columns: list[str] | None = None
) -> Iterator[tuple[dict[str, str], pa.Table]]:
    """Source, key and entity tag of each projected shard of a role, and its documents' coordinates.

    Those of a few shards are read ahead.
    """

    def read(made: tuple[Group, Manifest]) -> tuple[dict[str, str], pa.Table]:
        group, shard = made
        facts = {name: str(shard.figures[name]) for name in ("source", "shard", "etag")}
        own = run.storage.uri(shard.output("grid").rpartition("/")[0])
        unit = run.storage.uri(run.manifest_key("density", group.digest))
        remedy = f"delete it, {own}.json and {unit}, then run `aitp density` again"
        try:
            found = tables.read(run.storage, shard.output("coordinates"), columns, remedy)
        except damage.DamagedError:
            raise
        except InputError as error:
            raise InputError(f"{error}; or delete {own}.json and {unit}, then run `aitp density` again")
        return facts, found

    made = ((group, shard) for group in run.plan.groups_of(role) for shard in shards(run, group))
    return prefetched.prefetched(read, made, prefetched.SHARDS)


def points(table: pa.Table) -> Points:
    """Coordinates float64 (n, k) of a table of documents."""
    found: Points = np.stack([table[axis].to_numpy() for axis in AXES if axis in table.column_names], axis=1)
    return found


def grids(run: Run, geometry: Geometry) -> dict[str, SparseGrid]:
    """The sums of the groups' grids: ``corpus``, ``sft``, and ``pairs`` of earlier versions.

    Raises:
        InputError: a group has not been projected.
    """
    found = {role: SparseGrid.empty(geometry.components, geometry.step) for role in (*ROLES, "pairs")}
    pairs = versions.source(run.config.assemble.dataset)
    for group in run.plan.groups:
        name = "pairs" if group.source == pairs else group.role
        key = _unit(run, group).output("grid")
        found[name] = found[name] + damage.read(run.storage, key, SparseGrid.from_bytes)
    return found


def corpus_before(run: Run) -> SparseGrid | None:
    """The grid of the corpus that the geometry was fitted to; None where that is this run's own."""
    kept = run.plan.geometry
    return _kept_grid(run, kept.corpus_grid) if kept else None


def line_corpus(run: Run, corpus: SparseGrid) -> SparseGrid | None:
    """The grid of all dumps that the line has seen since its geometry was fitted; None: this corpus alone.

    A dump counts as often as it has come.
    """
    kept = run.plan.geometry
    if kept is None or run.plan.base is None:
        return None
    # A version of an earlier release tells of the corpus that the geometry was fitted to only.
    return corpus + _kept_grid(run, run.plan.base.corpus or kept.corpus_grid)


def pair_points(run: Run) -> Points:
    """Coordinates float64 (n, k) of the earlier pairs that have a vector."""
    line = versions.source(run.config.assemble.dataset)
    found = [points(table) for facts, table in coordinates(run, "sft") if facts["source"] == line]
    return np.concatenate(found) if found else np.empty((0, run.config.density.components))


def _kept_grid(run: Run, key: str) -> SparseGrid:
    """A grid that the line goes on upon."""
    return damage.read(run.storage, key, SparseGrid.from_bytes, damage.RESTORE)


def _unit(run: Run, group: Group) -> Manifest:
    return run.require_manifest("density", group.digest, what=f"density of {group.label}")
