"""Kernel densities by other libraries, each timed in a process of its own, without its imports.

    .venv/peers/bin/python benchmarks/densities.py all_pairs FOLDER ROWS

FOLDER holds corpus.npy and sft.npy, float64 (n, 2). Densities of both sets at the
first ROWS corpus points go to FOLDER/NAME.npy, float64 (2, ROWS); one line of JSON
says the median seconds of three passes, of one where the first takes over a minute.
Bandwidth 1 everywhere.
"""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from measure import median_of_passes
from numpy.typing import NDArray

Points = NDArray[np.float64]
_BATCH = 128
_MARGIN = 9.0


def all_pairs(corpus: Points, sft: Points, rows: int) -> list[Any]:
    """As the published script has it: torch, batches of 128 documents against all points of a set."""
    import torch

    at = torch.from_numpy(corpus[:rows].astype(np.float32))
    found = []
    for points in (torch.from_numpy(some.astype(np.float32)) for some in (corpus, sft)):
        densities = []
        for start in range(0, rows, _BATCH):
            batch = at[start : start + _BATCH]
            squares = ((batch[:, None, :] - points[None, :, :]) ** 2).sum(dim=-1)
            densities.append(torch.exp(-squares / 2).mean(dim=1) / (2 * np.pi))
        found.append(torch.cat(densities).numpy())
    return found


def kdepy(corpus: Points, sft: Points, rows: int, cells: int) -> list[Any]:
    """KDEpy's FFTKDE on a grid of ``cells`` a bandwidth, its logarithm interpolated as this project does."""
    from KDEpy import FFTKDE
    from scipy.ndimage import map_coordinates

    both = np.concatenate([corpus.min(axis=0), sft.min(axis=0)]).min() - _MARGIN
    top = np.concatenate([corpus.max(axis=0), sft.max(axis=0)]).max() + _MARGIN
    count = int((top - both) * cells) + 1
    axis = np.linspace(both, top, count)
    grid = np.stack(np.meshgrid(axis, axis, indexing="ij"), axis=-1).reshape(-1, 2)
    places = (corpus[:rows] - both).T / (axis[1] - axis[0])
    found = []
    for points in (corpus, sft):
        values = FFTKDE(kernel="gaussian", bw=1.0).fit(points).evaluate(grid).reshape(count, count)
        logarithms = np.log(np.maximum(values, 1e-300))
        found.append(np.exp(map_coordinates(logarithms, places, order=3, mode="nearest")))
    return found


def sklearn(corpus: Points, sft: Points, rows: int) -> list[Any]:
    """scikit-learn's KernelDensity by a tree, relative tolerance 1e-3."""
    from sklearn.neighbors import KernelDensity

    return [
        np.exp(KernelDensity(bandwidth=1.0, rtol=1e-3).fit(points).score_samples(corpus[:rows]))
        for points in (corpus, sft)
    ]


def main(name: str, folder: Path, rows: int, *more: int) -> None:
    """Time one of them."""
    method: Callable[..., list[Any]] = {"all_pairs": all_pairs, "kdepy": kdepy, "sklearn": sklearn}[name]
    corpus, sft = np.load(folder / "corpus.npy"), np.load(folder / "sft.npy")
    method(corpus[:1000], sft[:1000], 200, *more)  # imports and first calls
    seconds, found = median_of_passes(method, corpus, sft, rows, *more)
    np.save(folder / f"{name}.npy", np.stack(found))
    print(json.dumps({"seconds": seconds}))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), *map(int, sys.argv[3:]))
