"""difference: the documents that the SFT set hardly covers, and a sample of them with their text.

Reads the grids and coordinates of all density units, and of the input shards
the sampled rows only. Writes one Parquet object per part of the sample (a part
is a slice of the hash space, so documents that come or go leave the others
where they are), both densities on a grid for the report, and the figures.
"""

import logging
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from safetensors.numpy import save

from aitp_tasks import density, digest, shards, tables
from aitp_tasks.config import Criterion
from aitp_tasks.density.grid import DensityField, SparseGrid, window
from aitp_tasks.manifest import Ledger, Manifest, Stopwatch
from aitp_tasks.run import Run, part_name
from aitp_tasks.storage import ObjectInfo

log = logging.getLogger(__name__)

#: Thresholds that every run counts; the authors' own values are among them.
SWEEP = (0.1, 0.2, 0.5, 0.7, 0.8, 1.0, 1.25, 1.5, 2.0)
#: The authors' floor of the SFT density.
FLOOR = 1e-10
_TEXT = pa.field("text", pa.large_string())


def execute(run: Run, unit: None = None) -> dict[str, Any]:
    """Select the difference set and draw the sample.

    Raises:
        InputError: an earlier stage has not been run.
        ObjectChangedError: a shard was replaced after it was embedded.
    """
    watch = Stopwatch()
    done = run.find_manifest("difference") or _select(run, watch)
    return {
        "stage": "difference",
        "run": run.uri,
        "label": run.config.dump,
        **{name: done.figures[name] for name in ("documents", "below_tau", "selected", "parts")},
        "seconds": watch.seconds(),
    }


def _select(run: Run, watch: Stopwatch) -> Manifest:
    corpus, sft = _fields(run)
    selection = _Selection(run)
    for group in run.plan.groups:
        if group.role == "corpus":
            unit = run.require_manifest("density", group.digest, what=f"density of {group.label}")
            selection.add(_with_densities(tables.read(run.storage, unit.output("coordinates")), corpus, sft))
    sample = selection.sample
    parts = -(-len(sample) // run.config.difference.documents_per_part)
    outputs = {"grids": run.key("difference", "grids.safetensors")}
    run.storage.write(outputs["grids"], _picture(corpus, sft))
    outputs |= _write_parts(run, sample, parts)
    figures = selection.figures() | {"parts": parts, "bandwidth": run.config.density.bandwidth}
    log.info(
        "difference documents=%d below_tau=%d selected=%d", selection.documents, selection.below, len(sample)
    )
    return run.commit(
        Manifest(
            stage="difference",
            label=run.config.dump,
            ledger=selection.ledger(),
            outputs=outputs,
            figures=figures,
            seconds=watch.seconds(),
            peak_memory_mb=watch.peak_memory_mb(),
        )
    )


def _fields(run: Run) -> tuple[DensityField, DensityField]:
    """Densities of the corpus and of the SFT set over one window."""
    grids: dict[str, SparseGrid] = {}
    for group in run.plan.groups:
        unit = run.require_manifest("density", group.digest, what=f"density of {group.label}")
        grid = density.load_grid(run.storage, unit.output("grid"))
        grids[group.role] = grids[group.role] + grid if group.role in grids else grid
    bandwidth = run.config.density.bandwidth
    low, high = window(list(grids.values()), bandwidth)
    return (
        DensityField.of(grids["corpus"], bandwidth, low, high),
        DensityField.of(grids["sft"], bandwidth, low, high),
    )


def _with_densities(coordinates: pa.Table, corpus: DensityField, sft: DensityField) -> pa.Table:
    """Add p_corpus, p_sft and their ratio to coordinates."""
    points = np.stack([coordinates["x"].to_numpy(), coordinates["y"].to_numpy()], axis=1)
    p_corpus, p_sft = corpus.at(points), np.maximum(sft.at(points), FLOOR)
    columns = {"p_corpus": p_corpus, "p_sft": p_sft, "ratio": p_sft / p_corpus}
    for name, values in columns.items():
        coordinates = coordinates.append_column(name, pa.array(values, pa.float64()))
    return coordinates


class _Selection:
    """Bottom-k sample of the documents below the threshold, and the counts."""

    def __init__(self, run: Run) -> None:
        self._settings = run.config.difference
        self._score = "ratio" if self._settings.criterion is Criterion.DENSITY_RATIO else "p_sft"
        self._sample: pa.Table | None = None
        self._sweep = np.zeros(len(SWEEP), np.int64)
        self._seen: set[str] = set()
        self.documents = self.below = self.repeated = 0

    def add(self, table: pa.Table) -> None:
        """Take in one unit's documents with their densities."""
        scores = table[self._score].to_numpy()
        self.documents += len(table)
        self._sweep += [(scores < tau).sum() for tau in SWEEP]
        table = table.filter(pa.array(scores < self._settings.tau))
        self.below += len(table)
        table = table.filter(pa.array(self._is_new(table["doc_id"].to_pylist()), pa.bool_()))
        draws = [digest.of_text(f"{self._settings.seed}:{doc_id}") for doc_id in table["doc_id"].to_pylist()]
        table = table.append_column("draw", pa.array(draws, pa.string()))
        if self._sample is not None:
            table = pa.concat_tables([self._sample, table]).unify_dictionaries()
        order = pc.sort_indices(table, sort_keys=[("draw", "ascending")])
        self._sample = table.take(order[: self._settings.max_documents])

    def _is_new(self, doc_ids: list[str]) -> list[bool]:
        """Which documents have a text that was not seen before."""
        new = []
        for doc_id in doc_ids:
            new.append(doc_id not in self._seen)
            self._seen.add(doc_id)
        self.repeated += len(new) - sum(new)
        return new

    @property
    def sample(self) -> pa.Table:
        """The sampled documents, in the order of their ids."""
        assert self._sample is not None
        return self._sample.drop_columns("draw").sort_by("doc_id")

    def ledger(self) -> Ledger:
        """Where every document went."""
        selected = len(self.sample)
        return Ledger(
            rows_in=self.documents,
            rows_out=selected,
            rejected={
                "covered": self.documents - self.below,
                "repeated_text": self.repeated,
                "not_sampled": self.below - self.repeated - selected,
            },
        )

    def figures(self) -> dict[str, Any]:
        """The counts, and how many documents each threshold would select."""
        return {
            "documents": self.documents,
            "below_tau": self.below,
            "selected": len(self.sample),
            "criterion": self._settings.criterion.value,
            "tau": self._settings.tau,
            "sweep": [[tau, int(count)] for tau, count in zip(SWEEP, self._sweep, strict=True)],
        }


def _write_parts(run: Run, sample: pa.Table, parts: int) -> dict[str, str]:
    places = [int(doc_id[:8], 16) * parts >> 32 for doc_id in sample["doc_id"].to_pylist()]
    texts = _texts(run, sample)
    sample = sample.append_column(_TEXT, pa.array(texts, _TEXT.type)).rename_columns({"source": "dump"})
    outputs = {}
    for unit in range(parts):
        part = sample.filter(pa.array([place == unit for place in places], pa.bool_()))
        outputs[part_name(unit, parts)] = tables.write(
            run.storage, run.key("difference", part_name(unit, parts)), part
        )
    return outputs


def _texts(run: Run, sample: pa.Table) -> list[str]:
    """The texts of sampled rows, from one pass over each of their shards."""
    wanted: dict[tuple[str, str], dict[int, int]] = {}
    places = zip(
        sample["shard"].to_pylist(), sample["etag"].to_pylist(), sample["row"].to_pylist(), strict=True
    )
    for position, (shard, etag, row) in enumerate(places):
        wanted.setdefault((shard, etag), {})[row] = position
    texts = [""] * len(sample)
    for (shard, etag), positions in sorted(wanted.items()):
        info = ObjectInfo(shard, run.storage.stat(shard).size, etag)
        for row, text in shards.Corpus(run.storage, info, run.config).pick(positions):
            texts[positions[row]] = text
    return texts


def _picture(corpus: DensityField, sft: DensityField) -> bytes:
    """Both densities as safetensors: rows are y, columns are x."""
    axes: list[NDArray[np.float64]] = [
        corpus.origin[axis] + corpus.step * np.arange(corpus.values.shape[axis]) for axis in (0, 1)
    ]
    data: bytes = save(
        {
            "p_corpus": np.ascontiguousarray(corpus.values.T.astype(np.float32)),
            "p_sft": np.ascontiguousarray(sft.values.T.astype(np.float32)),
            "x": axes[0],
            "y": axes[1],
        }
    )
    return data
