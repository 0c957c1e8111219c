"""Densities and difference set: against other libraries, at growing size, and on real text.

    make bench-difference                     # everything; about 25 minutes on two cores
    make bench-difference PARTS="peers"       # some of: peers growth far sanity index fetch search nights

peers: the published script's all-pairs kernel at 20,000 and (a slice of) 100,000
points a side, KDEpy and scikit-learn at the same error, each in a process of its
own; medians of three passes, of one where the first takes over a minute. growth:
1, 10 and 50 million points a side, each in a process of its own. far: two clouds nine
bandwidths apart, against exact sums, and points beyond the window in three dimensions.
sanity: Alpaca as SFT set; C4, Wikipedia and 50 held-in Alpaca examples as corpus, through the stages
themselves. index, fetch, search, nights: see index_merge.py, fetch.py, search.py,
nights.py. The last line of output is one JSON object.
"""

import json
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import fetch
import index_merge
import nights
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import search
from embedders import REPOSITORY
from measure import median_of_passes, run_parts, timed, tree_memory
from numpy.typing import NDArray
from scipy.spatial import KDTree

from aitp_tasks.config import Examples
from aitp_tasks.densities import loops
from aitp_tasks.densities.field import FLOOR, Field, Window, cells_per_bandwidth
from aitp_tasks.densities.grid import Points, SparseGrid
from aitp_tasks.inputs.examples import Example
from aitp_tasks.inputs.forms import columns, compared
from aitp_tasks.inputs.forms.rows import Rows
from aitp_tasks.records.run import Run

_PEERS = REPOSITORY / ".venv" / "peers" / "bin" / "python"
_DATA = REPOSITORY / ".aitp" / "data"
_ERROR = 1e-3
#: Where KDEpy's error is compared: further down it is far larger, on any grid.
_KDEPY_ABOVE = 1e-3
_SLIPPED_IN = 50
_SLICE = 2000


def made(count: int, seed: int) -> tuple[Points, Points]:
    """Two overlapping sets of ``count`` points, spread as projected vectors are."""
    random = np.random.default_rng(seed)
    corpus = random.normal(size=(count, 2))
    corpus *= [5.0, 4.0]
    sft = random.normal(size=(count, 2))
    sft *= [2.5, 2.0]
    sft += [3.0, -1.0]
    return corpus, sft


def densities(corpus: Points, sft: Points) -> list[NDArray[np.float64]]:
    """Both densities at every corpus point, as the stages compute them."""
    return [field.at(corpus) for field in fields(corpus, sft)]


def fields(corpus: Points, sft: Points, bandwidth: float = 1.0) -> list[Field]:
    """Both densities on their grids."""
    step = bandwidth / cells_per_bandwidth(_ERROR, bandwidth, corpus.shape[1])
    grids = [SparseGrid.of(points, step) for points in (corpus, sft)]
    window = Window.around(grids, bandwidth)
    return [Field.of(grid, bandwidth, window) for grid in grids]


def peers(folder: Path) -> dict[str, Any]:
    """Speed against other libraries, and the largest error."""
    figures: dict[str, Any] = {}
    for count, rows_timed in ((20_000, 20_000), (100_000, _SLICE)):
        corpus, sft = made(count, seed=count)
        np.save(folder / "corpus.npy", corpus)
        np.save(folder / "sft.npy", sft)
        densities(corpus[:1000], sft[:1000])
        ours, found = median_of_passes(densities, corpus, sft)
        name = f"{count // 1000}k"
        pairs = _peer(folder, "all_pairs", rows_timed) * count / rows_timed
        figures |= {f"seconds_{name}": round(ours, 4), f"all_pairs_seconds_{name}": round(pairs, 1)}
        figures[f"speedup_{name}"] = round(pairs / ours, 1)
        exact = _exact(corpus, sft, rows_timed)
        error = max(_error(mine[:rows_timed], truth) for mine, truth in zip(found, exact, strict=True))
        figures["max_rel_error"] = max(figures.get("max_rel_error", 0.0), error)
        cells, their_error = _kdepy(folder, rows_timed, exact)
        # Timed on all rows, as ours.
        seconds = _peer(folder, "kdepy", count, cells)
        figures[f"kdepy_{name}"] = {
            "cells": cells,
            "seconds": round(seconds, 3),
            f"error_above_{_KDEPY_ABOVE:g}": their_error,
        }
        figures["vs_kdepy"] = min(figures.get("vs_kdepy", np.inf), round(seconds / ours, 2))
        seconds = _peer(folder, "sklearn", rows_timed) * count / rows_timed
        their_error = max(
            _error(mine, truth) for mine, truth in zip(np.load(folder / "sklearn.npy"), exact, strict=True)
        )
        figures[f"sklearn_{name}"] = {"seconds": round(seconds, 1), "error": their_error}
        figures["vs_sklearn"] = min(figures.get("vs_sklearn", np.inf), round(seconds / ours, 1))
        print(name, json.dumps(figures), flush=True)
    return figures


def _peer(folder: Path, name: str, *numbers: int) -> float:
    script = REPOSITORY / "benchmarks" / "densities.py"
    command = [_PEERS, script, name, folder, *map(str, numbers)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{name} failed:\n{done.stderr[-3000:]}")
    return float(json.loads(done.stdout)["seconds"])


def _kdepy(folder: Path, count: int, exact: list[NDArray[np.float64]]) -> tuple[int, float]:
    """The coarsest grid that keeps the error where KDEpy can: it cuts the kernel's tails off."""
    for cells in (8, 12, 16, 24, 32, 48):
        _peer(folder, "kdepy", count, cells)
        found = zip(np.load(folder / "kdepy.npy"), exact, strict=True)
        error = max(_error(mine, truth, _KDEPY_ABOVE) for mine, truth in found)
        if error <= _ERROR:
            break
    return cells, error


def _exact(corpus: Points, sft: Points, count: int) -> list[NDArray[np.float64]]:
    """All pairs in float64, at the first ``count`` corpus points."""
    return [_sums(points, corpus[:count]) for points in (corpus, sft)]


def _sums(points: Points, at: Points) -> NDArray[np.float64]:
    """All pairs in float64."""
    ones = np.ones(len(points))
    with ThreadPoolExecutor(loops.threads()) as pool:
        starts = range(0, len(at), 500)
        parts = pool.map(
            lambda start: loops.gaussian_sums(points, ones, at[start : start + 500], 1.0), starts
        )
    return np.concatenate(list(parts)) / (len(points) * 2 * np.pi)


def _error(found: NDArray[np.float64], exact: NDArray[np.float64], least: float = 1e-10) -> float:
    above = exact > least
    return float(f"{np.abs(found[above] / exact[above] - 1).max():.3g}")


def growth(folder: Path) -> dict[str, Any]:
    """Seconds and peak memory beyond the points, at growing size."""
    figures: dict[str, Any] = {}
    for millions in (1, 10, 50):
        script = [sys.executable, __file__, "--grow", str(millions)]
        process = subprocess.Popen(script, stdout=subprocess.PIPE, text=True)
        peaks = [0.0]
        watcher = threading.Thread(target=_watch, args=(process, peaks))
        watcher.start()
        output, _ = process.communicate()
        watcher.join()
        if process.returncode:
            sys.exit(f"growth to {millions} million failed")
        figures |= {
            f"seconds_{millions}m": json.loads(output)["seconds"],
            f"peak_mb_{millions}m": round(peaks[0] / 1e6),
            f"points_mb_{millions}m": round(2 * 16 * millions),
        }
        print("growth", json.dumps(figures), flush=True)
    return figures


def _watch(process: "subprocess.Popen[str]", peaks: list[float]) -> None:
    while process.poll() is None:
        peaks[0] = max(peaks[0], tree_memory(process.pid))
        time.sleep(0.02)


def _grow(millions: int) -> None:
    """Grids of all points, then the documents below tau, a million at a time as if that were a shard."""
    corpus, sft = made(millions * 1_000_000, seed=millions)
    start = time.perf_counter()
    p_corpus, p_sft = fields(corpus, sft)
    below = 0
    for shard in np.split(corpus, millions):
        below += int((p_sft.at(shard) / p_corpus.at(shard) < 1.0).sum())
    print(json.dumps({"seconds": round(time.perf_counter() - start, 2), "below": below}))


def far(folder: Path) -> dict[str, Any]:
    """What is told of documents far from all SFT examples, against exact sums; growth beyond the window."""
    random = np.random.default_rng(0)
    corpus = random.normal(size=(400_000, 2)) * 5
    sft = random.normal(size=(20_000, 2)) + np.array([9.0, 0.0])
    p_corpus, p_sft = (field.at(corpus) for field in fields(corpus, sft))
    distances = KDTree(sft).query(corpus, workers=-1)[0]
    suspects = np.flatnonzero((distances > 8) & (p_sft / p_corpus > 0.5))
    # Exact sums cost: a sample, and whatever might be misjudged.
    checked = np.union1d(suspects[:2000], random.choice(len(corpus), 2000, replace=False))
    exact_corpus, exact_sft = (_sums(points, corpus[checked]) for points in (corpus, sft))
    ratio, exact_ratio = p_sft[checked] / p_corpus[checked], exact_sft / exact_corpus
    wrong = ((ratio < 1.0) != (exact_ratio < 1.0)) & (abs(np.log(exact_ratio)) > np.log(2))
    below = exact_sft <= FLOOR
    figures = {
        "far_documents": int((distances > 8).sum()),
        "far_wrong": int(wrong.sum()) + max(len(suspects) - 2000, 0),
        "max_rel_error": max(_error(p_corpus[checked], exact_corpus), _error(p_sft[checked], exact_sft)),
        "max_abs_error_below_floor": float(f"{np.abs(p_sft[checked] - exact_sft)[below].max():.3g}"),
    }
    for count in (50_000, 100_000, 200_000):
        points = random.normal(size=(count, 3)) * 3.5
        start = time.perf_counter()
        for field in fields(points, points[: count // 10], bandwidth=0.5):
            field.at(points)
        figures[f"outside_seconds_{count // 1000}k"] = round(time.perf_counter() - start, 1)
        print("far", json.dumps(figures), flush=True)
    return figures


def sanity(folder: Path) -> dict[str, Any]:
    """How often SFT examples that are slipped into the corpus are selected, against the rest."""
    corpus = folder / "corpus" / "mixed"
    corpus.mkdir(parents=True)
    for path in sorted((_DATA / "corpus").rglob("*.parquet")):
        table = pq.read_table(path, columns=["text"])
        kind = pa.array(["corpus"] * len(table))
        pq.write_table(table.append_column("kind", kind), corpus / f"{path.parent.name}-{path.name}")
    sft = folder / "sft" / "alpaca"
    sft.mkdir(parents=True)
    examples: list[str] = []
    rows = Rows(Examples())
    for path in sorted((_DATA / "sft").rglob("*.parquet")):
        table = pq.read_table(path)
        pq.write_table(table, sft / path.name)
        for batch in table.to_batches():
            found = (rows.example(row) for row in columns.rows(batch))
            texts = (compared.first_turns(item.messages) for item in found if isinstance(item, Example))
            examples += [text for text in texts if isinstance(text, str)]
    step = len(examples) // _SLIPPED_IN
    slipped = examples[::step][:_SLIPPED_IN]
    table = pa.table({"text": slipped, "kind": ["sft"] * len(slipped)})
    pq.write_table(table, corpus / "slipped-in.parquet")
    settings = [
        f"root=file://{folder}", "dump=mixed", "sft=alpaca",
        "difference.tau=0.5", "difference.max_documents=100000", "difference.source_column=kind",
    ]  # fmt: skip
    overrides = [word for setting in settings for word in ("--set", setting)]
    told, _, _ = timed(["plan", "--config", str(REPOSITORY / "configs/demo.yaml"), *overrides])
    for stage, units in (("embed", True), ("merge", False), ("density", True), ("difference", False)):
        for unit in range(told["embed_units"] if units else 1):
            timed([stage, "--run", told["run"], *(["--unit", str(unit)] if units else [])])
    figures = Run.open(told["run"]).require_manifest("difference").figures
    sources = {source["source"]: source for source in figures["sources"]}
    rates = {name: source["below_tau"] / source["documents"] for name, source in sources.items()}
    return {
        "slipped_in_rate": round(rates["sft"], 3),
        "corpus_rate": round(rates["corpus"], 3),
        "slipped_in_share": round(rates["sft"] / rates["corpus"], 3),
    }


PARTS = {
    "peers": peers,
    "growth": growth,
    "far": far,
    "sanity": sanity,
    "index": index_merge.index,
    "fetch": fetch.fetch,
    "search": search.search,
    "nights": nights.nights,
}

if __name__ == "__main__":
    if sys.argv[1:2] == ["--grow"]:
        _grow(int(sys.argv[2]))
    else:
        run_parts(PARTS, sys.argv[1:])
