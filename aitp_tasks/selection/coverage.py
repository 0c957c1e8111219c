"""The densities of a run's sets, over one window, so that they compare."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save

from aitp_tasks.densities.field import Field, Window
from aitp_tasks.densities.geometry import Geometry
from aitp_tasks.densities.grid import Points, SparseGrid
from aitp_tasks.records import projected
from aitp_tasks.records.run import Run
from aitp_tasks.selection import regions
from aitp_tasks.selection.race import Crowds

#: Cells per axis of the densities that the report draws.
_PICTURE_CELLS = 800


@dataclass(frozen=True)
class Coverage:
    """The densities of corpus and SFT side as functions of the coordinates.

    Attributes:
        now: of corpus and SFT side, by role.
        sft_alone: of the SFT set without the pairs of earlier versions; None where there are none.
        line: of all dumps that the line has seen since its geometry was fitted; None where that is the
            corpus alone.
        seen: of these and of the pairs, each of which was written from a document; None where there are none.
        corpus_before: of the corpus that the geometry was fitted to; None where that is this one.
    """

    now: Mapping[str, Field]
    sft_alone: Field | None
    line: Field | None
    seen: Field | None
    corpus_before: Field | None

    @classmethod
    def of(
        cls,
        grids: Mapping[str, SparseGrid],
        before: SparseGrid | None,
        bandwidths: Mapping[str, float],
        line: SparseGrid | None = None,
    ) -> Self:
        """From the grids of ``corpus``, ``sft`` and ``pairs``, the earlier corpus's, and that of all dumps.

        Raises:
            InputError: the window would have too many cells.
        """
        both = grids["sft"] + grids["pairs"]
        seen = (line or grids["corpus"]) + grids["pairs"] if grids["pairs"].count else None
        everything = [grids["corpus"], both, *(grid for grid in (before, line) if grid)]
        window = Window.around(everything, max(bandwidths.values()))

        def field(role: str, grid: SparseGrid) -> Field:
            return Field.of(grid, bandwidths[role], window)

        return cls(
            {"corpus": field("corpus", grids["corpus"]), "sft": field("sft", both)},
            field("sft", grids["sft"]) if grids["pairs"].count else None,
            field("corpus", line) if line else None,
            field("corpus", seen) if seen else None,
            field("corpus", before) if before else None,
        )

    @classmethod
    def of_run(cls, run: Run, geometry: Geometry) -> Self:
        """From what a run's density units have left.

        Raises:
            InputError: a group was not projected, or the window would have too many cells.
        """
        grids = projected.grids(run, geometry)
        line = projected.line_corpus(run, grids["corpus"])
        return cls.of(grids, projected.corpus_before(run), geometry.bandwidths, line)

    def at(self, points: Points) -> dict[str, NDArray[np.float64]]:
        """Both densities, by role, float64 (n,) each, at points float64 (n, k)."""
        return {role: field.at(points) for role, field in self.now.items()}

    def crowds(self) -> Crowds:
        """What says how rare a place is."""
        return Crowds(self.sft_alone or self.now["sft"], self.seen or self.line or self.now["corpus"])

    def uncovered_with(self, points: Points, tau: float, examples: int | None = None) -> list[float]:
        """Shares that the SFT set and pairs at points float64 (n, k) do not cover: of corpus, line and seen.

        Args:
            points: where the pairs lie.
            tau: see ``uncovered``.
            examples: how many examples a density is to be the mean over; by default as many as there are.
        """
        alone = self.sft_alone or self.now["sft"]
        together = alone.grid + SparseGrid.of(points, alone.grid.step)
        field = Field.of(together, alone.bandwidth, alone.window)
        scale = 1.0 if examples is None else examples / together.count
        dumps = [self.now["corpus"], *(some for some in (self.line, self.seen) if some is not None)]
        return [regions.uncovered(some, field, scale * tau) for some in dumps]

    def uncovered(self, tau: float) -> dict[str, Any]:
        """Share of the corpus that is not covered, with and without the pairs of earlier versions."""
        corpus, sft = self.now["corpus"], self.now["sft"]
        now = regions.uncovered(corpus, sft, tau)
        alone = now if self.sft_alone is None else regions.uncovered(corpus, self.sft_alone, tau)
        return {"uncovered": now, "uncovered_by_sft_alone": alone}

    def drift(self) -> dict[str, float] | None:
        """How far the corpus has moved from that which the geometry was fitted to; None where it is that."""
        if self.corpus_before is None:
            return None
        now = self.now["corpus"]
        return {
            "outside": regions.outside(now, self.corpus_before),
            "distance": regions.distance(now, self.corpus_before),
        }

    def picture(self) -> bytes:
        """The densities as safetensors, over the first two axes: rows are y, columns are x."""
        fields = dict(self.now)
        if self.sft_alone is not None:
            fields["sft_alone"] = self.sft_alone
        return drawn(fields)


def drawn(fields: Mapping[str, Field]) -> bytes:
    """Densities over one window as safetensors, over the first two axes: rows are y, columns are x."""
    axes = fields["corpus"].axes
    x, y = axes[0], axes[1] if len(axes) > 1 else np.zeros(1)
    thin_x, thin_y = (-(-len(axis) // _PICTURE_CELLS) for axis in (x, y))
    arrays = {
        f"p_{name}": np.ascontiguousarray(_in_plane(field).T[::thin_y, ::thin_x].astype(np.float32))
        for name, field in fields.items()
    }
    data: bytes = save(
        arrays | {"x": np.ascontiguousarray(x[::thin_x]), "y": np.ascontiguousarray(y[::thin_y])}
    )
    return data


def _in_plane(field: Field) -> NDArray[np.float64]:
    """A density float64 (nx, ny): the third axis summed up, a missing second one of length 1."""
    if field.values.ndim == 3:
        summed: NDArray[np.float64] = field.values.sum(axis=2) * field.grid.step
        return summed
    return field.values if field.values.ndim == 2 else field.values[:, None]
