"""explain: where a document of the corpus lies, and why it was selected or not.

Tells its coordinates, both densities there, its score against tau, what became of
it, and the SFT examples nearest to it.
"""

import re
import sys
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from aitp_tasks.config import Criterion
from aitp_tasks.densities.grid import Points
from aitp_tasks.errors import InputError
from aitp_tasks.records import embedded, indexed, projected, selected, tables
from aitp_tasks.records.manifest import Manifest, Stopwatch
from aitp_tasks.records.run import Run
from aitp_tasks.selection import criteria
from aitp_tasks.selection.coverage import Coverage
from aitp_tasks.selection.nearest import EXAMPLES
from aitp_tasks.tools import search
from aitp_tasks.tools.terminal import printable
from aitp_tasks.vector_index.opened import OpenIndex, open_places

_PREFIX = re.compile("[0-9a-f]{8,32}")
_SHOWN = 3


def execute(run: Run, doc_id: str) -> dict[str, Any]:
    """Explain one document, and print it to standard error.

    Args:
        run: the run; its difference set must have been selected, and its corpus indexed.
        doc_id: the document's id or its beginning, at least 8 hexadecimal digits.

    Raises:
        InputError: the id is none, unknown or of several documents; or a stage has not been run.
    """
    watch = Stopwatch()
    done = run.require_manifest("difference")
    place = _place(run, doc_id)
    document = _document(run, place)
    result = {
        "stage": "explain",
        "run": run.uri,
        **{name: place[name] for name in ("doc_id", "shard", "row")},
        "source": document.source or place["source"],
        "text": search.text_at(run, "corpus", place),
        **_scores(run, place, document, done),
    }
    result |= _fate(run, place["doc_id"], result["below_tau"], done)
    with OpenIndex(run.storage, indexed.keys(run, "sft"), "sft", few_queries=True) as index:
        similarities, ids = index.search(document.vector, EXAMPLES)
        result["nearest_sft"] = search.matches(run, "sft", index, similarities[0], ids[0])
    sys.stderr.write(render(result))
    return result | {"seconds": watch.seconds()}


def render(result: dict[str, Any]) -> str:
    """The explanation as a person reads it."""
    head = [
        ("document", result["doc_id"]),
        ("source", printable(result["source"])),
        ("place", f"{printable(result['shard'])} row {result['row']:,}"),
        ("text", search.described(result["text"])),
        ("coordinates", ", ".join(f"{value:.4g}" for value in result["coordinates"])),
        ("p_corpus", f"{result['p_corpus']:.4g}"),
        ("p_sft", f"{result['p_sft']:.4g}"),
        ("p_sft / p_corpus", f"{result['ratio']:.4g}"),
        ("score", f"{result['score']:.4g} by {result['criterion']}, tau {result['tau']:.4g}"),
        ("selected", f"{'yes' if result['selected'] else 'no'}: {result['reason']}"),
    ]
    lines = [f"{name:<18}{value}" for name, value in head]
    return "\n".join([*lines, "", "nearest SFT examples", search.render(result["nearest_sft"])])


@dataclass(frozen=True)
class _Document:
    """What the embed and density units have made of one document.

    Attributes:
        coordinates: float64 (1, k).
        source: as its source column says; None where the run has none.
        score: what its density unit has made for the criterion; None where the densities decide.
        vector: float16 (1, d).
    """

    coordinates: Points
    source: str | None
    score: float | None
    vector: NDArray[np.float16]


def _place(run: Run, doc_id: str) -> dict[str, Any]:
    """The place of the only document whose id starts so."""
    prefix = doc_id.lower()
    if not _PREFIX.fullmatch(prefix):
        raise InputError(f"'{printable(doc_id)}' is no document id: give 8 to 32 hexadecimal digits of one")
    with open_places(run.storage, indexed.keys(run, "corpus"), "corpus") as places:
        found: list[dict[str, Any]] = places.starting_with(prefix).to_pylist()
    if not found:
        raise InputError(
            f"no document of {run.config.dump} has an id that starts with {prefix}: "
            "take one from `aitp search`, or from a part of the difference set"
        )
    if len(found) > 1:
        names = ", ".join(place["doc_id"] for place in found[:_SHOWN])
        raise InputError(
            f"{len(found)} documents have ids that start with {prefix}, among them {names}: give more digits"
        )
    return found[0]


def _document(run: Run, place: dict[str, Any]) -> _Document:
    measure = criteria.measure(run.config.difference.criterion)
    for group in run.plan.groups:
        if all(shard.key != place["shard"] for shard in group.shards):
            continue
        made = zip(
            embedded.shards(run, group),
            projected.shards(run, group),
            projected.keys(run, group, str(measure.made)),
            strict=True,
        )
        for embedding, projection, key in made:
            if embedding.figures["shard"] == place["shard"] and embedding.figures["etag"] == place["etag"]:
                return _Document(
                    *_coordinates(run, projection, place),
                    None if key is None else _row(run, key, place)[measure.column][0].as_py(),
                    embedded.vector_at(run.storage, embedding, place["row"]),
                )
    raise InputError(
        f"no density unit of {run.uri} has projected {place['shard']} as it was indexed: "
        "delete the run's index manifest, then run `aitp index` again"
    )


def _coordinates(run: Run, projection: Manifest, place: dict[str, Any]) -> tuple[Points, str | None]:
    """Coordinates float64 (1, k) and source of a document."""
    found = _row(run, projection.output("coordinates"), place)
    return projected.points(found), found["source"][0].as_py() if "source" in found.column_names else None


def _row(run: Run, key: str, place: dict[str, Any]) -> pa.Table:
    """The row of a shard's table that is of a document."""
    table = tables.read(run.storage, key)
    found = table.filter(pc.equal(table["row"], place["row"]))
    if found["doc_id"].to_pylist() != [place["doc_id"]]:
        raise InputError(
            f"{run.storage.uri(key)} has another document in row {place['row']} than the index: "
            "delete it and the run's density manifests, then run `aitp density` again"
        )
    return found


def _coverage(run: Run) -> Coverage:
    """The densities of the run's sets."""
    geometry = projected.geometry(run)
    return Coverage.of(projected.grids(run, geometry), projected.corpus_before(run), geometry.bandwidths)


def _scores(run: Run, place: dict[str, Any], document: _Document, done: Manifest) -> dict[str, Any]:
    criterion = run.config.difference.criterion
    densities = _coverage(run).at(document.coordinates)
    (p_corpus,), (p_sft,) = (densities[role].tolist() for role in ("corpus", "sft"))
    score = document.score
    if score is None:
        score = float(criteria.score(criterion, densities["corpus"], densities["sft"])[0])
    threshold = criteria.Threshold.told(run.config.difference, done.figures)
    row = pa.table({name: [place[name]] for name in ("doc_id", "shard", "row")})
    return {
        "coordinates": document.coordinates[0].tolist(),
        "p_corpus": p_corpus,
        "p_sft": p_sft,
        "ratio": float(criteria.score(Criterion.DENSITY_RATIO, densities["corpus"], densities["sft"])[0]),
        "criterion": criterion.value,
        "score": score,
        "tau": threshold.tau,
        "below_tau": bool(threshold.below(row, np.array([score]))[0]),
    }


def _fate(run: Run, doc_id: str, below: bool, done: Manifest) -> dict[str, Any]:
    """Whether a document was drawn, and why."""
    figures, settings = done.figures, run.config.difference
    if not below:
        return {"selected": False, "part": None, "reason": "covered, its score is not below tau"}
    part = selected.part_with(run, doc_id)
    if part is not None:
        return {"selected": True, "part": part, "reason": f"drawn in {part}"}
    if not selected.is_allotted(run):
        reason = "below tau, and left to allocate, which has not been run: a pilot is under way"
        return {"selected": False, "part": None, "reason": reason}
    limits = f"max_documents={settings.max_documents}"
    if settings.max_per_source is not None:
        limits += f", max_per_source={settings.max_per_source}"
    reason = (
        f"below tau but not drawn, as {figures['selected']:,} of {figures['below_tau']:,} documents were "
        f"({settings.sampling.value} sampling, {limits})"
    )
    return {"selected": False, "part": None, "reason": reason}
