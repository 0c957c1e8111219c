"""What `difference.allocation: yield` gains over `even`: kept pairs for each generated token.

All 406 documents of the demo are rewritten, scored and answered once, by the demo's own small model and the
stages' own commands. Both allocations are then replayed on what came of each document: which ones each would
have drawn of half, or a quarter, of them, with what it would have known by then. It is a replay and no second
run of the model: an engine may give a document other responses in other company. The draws, the regions and
the shares are those of the stages.

Both draw with many seeds; the interval is of a bootstrap over the documents, each as often as it was drawn.
Planted outcomes show what there is to gain where regions differ: no pair is kept of
one half of the plane. Nothing is generated twice. The last line of output is JSON.

    make bench-allocation
"""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
from measure import processor, timed
from numpy.typing import NDArray

from aitp_tasks.config import Allocation, Difference
from aitp_tasks.densities.partition import Partition
from aitp_tasks.records import digest, generated, projected, selected, versions
from aitp_tasks.records.run import Run
from aitp_tasks.selection.drawing import by_yield
from aitp_tasks.selection.fit import Fit
from aitp_tasks.selection.sample import Quotas, Sample
from aitp_tasks.selection.sampled import Sampled

REPOSITORY = Path(__file__).resolve().parents[1]
FOLDER = REPOSITORY / ".aitp/allocation"
_SETTINGS = {
    "root": f"file://{FOLDER}/storage",
    "assemble.dataset": "allocation",
    # All documents, whatever their densities.
    "difference.target_share": None,
    "difference.tau": 1e9,
    "difference.documents_per_part": 500,
}
_STAGES = ("embed", "merge", "density", "difference", *generated.STAGES)
#: Of the documents, what a run draws.
SHARES = (0.5, 0.25)
REGIONS = (2, 4, 8, 16)
#: What is told in the last line: the default number of regions, half of the documents.
_TOLD = (0.5, 8)
_SEEDS, _RESAMPLES, _LEVEL = 400, 2000, 0.95

Counts = NDArray[np.int64]


def main() -> None:
    """Make what is not there, and replay."""
    run = _made()
    documents, pairs, tokens = _outcomes(run)
    print(
        f"{len(documents)} documents, {pairs.sum()} kept pairs, {tokens.sum()} generated tokens\n", flush=True
    )
    figures = _table(documents, pairs, tokens)
    print("\nwith no pair kept of one half of the plane\n")
    points = projected.points(documents)
    planted = _table(documents, pairs * Partition.of(points, 2).at(points), tokens)
    print(
        json.dumps(
            {
                "pairs_per_token_gain": figures["pairs_per_token_gain"],
                "interval": [figures["low"], figures["high"]],
                "pairs_per_1000_tokens": {name: figures[name] for name in ("even", "yield")},
                "planted_gain": planted["pairs_per_token_gain"],
                "planted_interval": [planted["low"], planted["high"]],
                "documents": len(documents),
                "kept_pairs": int(pairs.sum()),
                "generated_tokens": int(tokens.sum()),
                "resamples": _RESAMPLES,
                "seeds": _SEEDS,
                "replay": True,
                "processor": processor(),
            }
        )
    )


def _table(documents: pa.Table, pairs: Counts, tokens: Counts) -> dict[str, float]:
    """Print what was found for each share and number of regions; the figures of that which is told."""
    print("| drawn | regions | even | yield | gain | pairs per 1,000 tokens of each region |")
    print("|---|---|---|---|---|---|")
    told: dict[str, float] = {}
    for share in SHARES:
        for regions in REGIONS:
            most = round(share * len(documents))
            settings = Difference(max_documents=most, allocation=Allocation.YIELD, regions=regions)
            found = _compared(documents, pairs, tokens, settings)
            rates = ", ".join(f"{rate:.2f}" for rate in _rates(documents, pairs, tokens, regions))
            gain = f"{found['pairs_per_token_gain']:.3f} ({found['low']:.3f} to {found['high']:.3f})"
            both = f"{found['even']:.3f} | {found['yield']:.3f}"
            print(f"| {most} | {regions} | {both} | {gain} | {rates} |", flush=True)
            if (share, regions) == _TOLD:
                told = found
    return told


def _made() -> Run:
    """All documents of the demo, answered."""
    done = FOLDER / "run"
    if done.exists():
        return Run.open(done.read_text())
    data, storage = REPOSITORY / ".aitp/data", FOLDER / "storage"
    for source in data.rglob("*.parquet"):
        target = storage / source.relative_to(data)
        target.parent.mkdir(parents=True, exist_ok=True)
        if not target.exists():
            target.hardlink_to(source)
    configured = ["--config", str(REPOSITORY / "benchmarks/experiment.yaml")]
    for key, value in _SETTINGS.items():
        configured += ["--set", f"{key}={json.dumps(value)}"]
    planned, _, _ = timed(["plan", *configured])
    units = dict.fromkeys(("embed", "density"), planned["embed_units"])
    for stage in _STAGES:
        for arguments in _units(stage, units):
            result, seconds, _ = timed([stage, "--run", planned["run"], *arguments])
            print(f"{stage} {' '.join(arguments)}: {seconds:.0f} s", flush=True)
            if stage == "difference":
                units |= dict.fromkeys(generated.STAGES, result["parts"])
    done.write_text(planned["run"])
    return Run.open(planned["run"])


def _units(stage: str, units: dict[str, int]) -> Iterator[list[str]]:
    if stage not in units:
        yield []
    for unit in range(units.get(stage, 0)):
        yield ["--unit", str(unit)]


def _outcomes(run: Run) -> tuple[pa.Table, Counts, Counts]:
    """All documents, as a draw wants them, and kept pairs and generated tokens of each, int64 (n,)."""
    columns = ["doc_id", "source", "shard", "row", "x", "y"]
    documents = pa.concat_tables([selected.table(run, part, columns) for part in run.parts])
    documents = documents.set_column(1, "source", documents["source"].cast(pa.string()))
    pairs, tokens = dict[str, int](), dict[str, int]()
    for part in run.parts:
        for row in generated.kept_rows(run, "answer", part):
            pairs[row["doc_id"]] = pairs.get(row["doc_id"], 0) + 1
        for stage in generated.STAGES:
            for document, count in (generated.tokens(run, stage, part) or {}).items():
                tokens[document] = tokens.get(document, 0) + count
    ids = documents["doc_id"].to_pylist()
    return (
        documents,
        np.array([pairs.get(name, 0) for name in ids], np.int64),
        np.array([tokens.get(name, 0) for name in ids], np.int64),
    )


def _rates(documents: pa.Table, pairs: Counts, tokens: Counts, regions: int) -> NDArray[np.float64]:
    """Kept pairs per 1,000 tokens of each region, over all documents."""
    points = projected.points(documents)
    places = Partition.of(points, regions).at(points)
    found: NDArray[np.float64] = 1000 * np.bincount(places, pairs) / np.bincount(places, tokens)
    return found


def _compared(documents: pa.Table, pairs: Counts, tokens: Counts, settings: Difference) -> dict[str, float]:
    """Kept pairs per 1,000 tokens of both allocations, their quotient, and its interval over documents."""
    often = _drawn(documents, pairs, tokens, settings)
    spent = np.stack([often * pairs, often * tokens])
    even, paid = 1000 * spent[0].sum(axis=1) / spent[1].sum(axis=1)
    # How often one is drawn is held: one that is there twice would tell in the pilot what it gives.
    places = np.random.default_rng(0).integers(len(documents), size=(_RESAMPLES, len(documents)))
    kept, cost = (some[:, places].sum(axis=2) for some in spent)
    gains = (kept[1] / cost[1]) / (kept[0] / cost[0])
    low, high = np.quantile(gains, [(1 - _LEVEL) / 2, (1 + _LEVEL) / 2])
    told = {"even": even, "yield": paid, "pairs_per_token_gain": paid / even, "low": low, "high": high}
    return {name: round(float(value), 4) for name, value in told.items()}


def _drawn(documents: pa.Table, pairs: Counts, tokens: Counts, settings: Difference) -> Counts:
    """How often both allocations draw each document, over all seeds; int64 (2, n)."""
    often = np.zeros((2, len(documents)), np.int64)
    for seed in range(_SEEDS):
        # Another name gives a document another place in the draw.
        ids = [digest.of_text(f"{seed} {place}") for place in range(len(documents))]
        table = documents.set_column(0, "doc_id", pa.array(ids))
        position = {one: number for number, one in enumerate(ids)}
        worth = dict(zip(ids, zip(pairs, tokens, strict=True), strict=True))
        for allocation, chosen in enumerate(_replayed(table, worth, settings)):
            often[allocation, [position[one] for one in chosen["doc_id"].to_pylist()]] += 1
    return often


def _replayed(
    documents: pa.Table, worth: dict[str, tuple[int, int]], settings: Difference
) -> tuple[pa.Table, pa.Table]:
    """What both allocations draw of some documents."""

    def draw(quotas: Quotas | None) -> Fit:
        sample = Sample(settings, 1.0, quotas=quotas)
        sample.add(documents)
        return Fit(sample.documents(), documents.slice(0, 0), 0, 0, sample.seen)

    even = draw(None).drawn
    sampled = Sampled.of(even, settings, 1.0, None, 500)
    assert sampled.is_pilot
    assert sampled.partition is not None
    pilot = sampled.written["doc_id"].to_pylist()
    regions = sampled.partition.at(projected.points(sampled.written))
    given = np.array([worth[name] for name in pilot])
    count = settings.regions
    known = versions.Regions(
        cuts=sampled.partition.cuts,
        setup="",
        documents=tuple(np.bincount(regions, minlength=count).tolist()),
        pairs=tuple(np.bincount(regions, given[:, 0], count).tolist()),
        tokens=tuple(np.bincount(regions, given[:, 1], count).tolist()),
    )
    taken = tuple(int(number) for number in known.documents)
    found = by_yield(settings, draw, len(even) - len(pilot), known, taken, frozenset(pilot))
    return even, found.drawn


if __name__ == "__main__":
    main()
